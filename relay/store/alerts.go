package store

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"postern/relay/store/internal/db"
)

// schemaAlert keeps alerts: those that are open, and those that were.
const schemaAlert = `
CREATE TABLE alert (
	event   TEXT NOT NULL,
	subject TEXT NOT NULL,
	since   INTEGER NOT NULL, -- times are nanoseconds since 1970
	ended   INTEGER NOT NULL, -- 0: open
	data    TEXT NOT NULL,
	PRIMARY KEY (event, subject, since)
) STRICT, WITHOUT ROWID;
CREATE INDEX alert_since ON alert (since);
CREATE INDEX alert_open  ON alert (since) WHERE ended = 0;
`

// maxAlerts is how many alerts are kept; the oldest go first.
const maxAlerts = 10_000

// Alert is something that operators were told of.
type Alert struct {
	Event   string            `json:"event"`
	Subject string            `json:"subject"`
	Since   time.Time         `json:"since"`
	Ended   time.Time         `json:"ended,omitzero"` // zero: it is open
	Summary string            `json:"summary"`        // what is wrong and what to do
	Over    string            `json:"over,omitempty"` // what was said at its end
	Details map[string]string `json:"details,omitempty"`
}

// alertText is what of an Alert is text.
type alertText struct {
	Summary string            `json:"summary"`
	Over    string            `json:"over,omitempty"`
	Details map[string]string `json:"details,omitempty"`
}

var putAlert = upsert("alert", 3, "event", "subject", "since", "ended", "data")

// SaveAlert records that an alert is open, or with Ended that it was. One that ends keeps what was said of it.
func (s *Store) SaveAlert(ctx context.Context, a Alert) error {
	err := s.write(ctx, func(t *tx) error {
		text := alertText{a.Summary, a.Over, a.Details}
		if !a.Ended.IsZero() {
			said, err := alertSaid(t.Conn, a)
			if err != nil {
				return err
			}
			if said.Summary != "" {
				text.Summary, text.Details = said.Summary, said.Details
			}
		}
		data, err := json.Marshal(text)
		if err != nil {
			return err
		}
		err = t.Run(putAlert, a.Event, a.Subject, unixNano(a.Since),
			endOf(a), string(data))
		if err != nil {
			return err
		}
		// What a former process left open under the same name has ended with this one's beginning.
		err = t.Run("UPDATE alert SET ended = ?1 WHERE event = ?2 AND subject = ?3 AND ended = 0 AND since < ?1",
			unixNano(a.Since), a.Event, a.Subject)
		if err != nil {
			return err
		}
		return t.Run("DELETE FROM alert WHERE since < (SELECT since FROM alert ORDER BY since DESC LIMIT 1 OFFSET ?)",
			maxAlerts-1)
	})
	return wrap(err, "record the alert %s", a.Event)
}

func endOf(a Alert) int64 {
	if a.Ended.IsZero() {
		return 0
	}
	return unixNano(a.Ended)
}

// alertSaid is what was recorded of an alert when it began.
func alertSaid(conn db.Conn, a Alert) (said alertText, err error) {
	for row, err := range conn.Rows("SELECT data FROM alert WHERE event = ? AND subject = ? AND since = ?", a.Event,
		a.Subject, unixNano(a.Since)) {
		if err != nil {
			return said, err
		}
		return said, json.Unmarshal(row.Blob(0), &said)
	}
	return said, nil
}

// AlertQuery chooses alerts, the newest first.
type AlertQuery struct {
	Open  bool   // only those that are not over
	After string // Place of the last alert of the page before; "": from the newest on
	Limit int
}

// Place is where an alert stands among all, for AlertQuery.After: alerts may begin at one moment.
func (a Alert) Place() string {
	return strconv.FormatInt(unixNano(a.Since), 10) + " " + a.Event + " " + a.Subject
}

// ErrPlace: AlertQuery.After is not the Place of an alert.
var ErrPlace = errors.New("it is not the place of an alert")

// placeOf reads what Place writes. "" stands before all.
func placeOf(place string) (since int64, event, subject string, err error) {
	if place == "" {
		return math.MaxInt64, "", "", nil
	}
	at, rest, ok1 := strings.Cut(place, " ")
	event, subject, ok2 := strings.Cut(rest, " ")
	since, err = strconv.ParseInt(at, 10, 64)
	if err != nil || !ok1 || !ok2 {
		return 0, "", "", ErrPlace
	}
	return since, event, subject, nil
}

// Alerts returns a page of alerts. ErrPlace: the query has no place to go on from.
func (s *Store) Alerts(ctx context.Context, q AlertQuery) (alerts []Alert, err error) {
	since, event, subject, err := placeOf(q.After)
	if err != nil {
		return nil, err
	}
	chosen := ""
	if q.Open {
		chosen = " AND ended = 0"
	}
	query := "SELECT event, subject, since, ended, data FROM alert WHERE (since, event, subject) < (?, ?, ?)" + chosen +
		" ORDER BY since DESC, event DESC, subject DESC LIMIT ?"
	err = s.lookups.read(ctx, func(conn db.Conn) error {
		for row, err := range conn.Rows(query, since, event, subject, int64(max(q.Limit, 0))) {
			if err != nil {
				return err
			}
			a := Alert{Event: row.Text(0), Subject: row.Text(1), Since: time.Unix(0, row.Int(2))}
			if ended := row.Int(3); ended != 0 {
				a.Ended = time.Unix(0, ended)
			}
			var text alertText
			if err := json.Unmarshal(row.Blob(4), &text); err != nil {
				return err
			}
			a.Summary, a.Over, a.Details = text.Summary, text.Over, text.Details
			alerts = append(alerts, a)
		}
		return nil
	})
	return alerts, wrap(err, "read the alerts")
}
