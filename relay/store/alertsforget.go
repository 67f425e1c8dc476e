package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"postern/internal/periodic"
	"postern/relay/privacy"
	"postern/relay/store/internal/db"
)

// alertBatch is how many alerts one transaction removes.
const alertBatch = 100

// PruneAlerts removes alerts that ended before a moment. It returns how many.
func (s *Store) PruneAlerts(ctx context.Context, before time.Time) (total int64, err error) {
	for {
		var n int64
		err := s.write(ctx, func(t *tx) error {
			err := t.Run("DELETE FROM alert WHERE (event, subject, since) IN (SELECT event, subject, since FROM alert "+
				"WHERE ended <> 0 AND ended < ? LIMIT ?)", unixNano(before), alertBatch)
			n = t.Changes()
			return err
		})
		if total += n; err != nil || n < alertBatch {
			return total, wrap(err, "remove old alerts")
		}
		if err := periodic.Sleep(ctx, time.Millisecond); err != nil {
			return total, err
		}
	}
}

// pastAlert is an alert that is over, by what names it.
type pastAlert struct {
	event, subject string
	since          int64
	text           alertText
}

// alerts removes what operators were told of the person and is over. What is open is what is so now.
func (p *person) alerts(ctx context.Context) error {
	past, err := readAll(ctx, p.s.lookups, func(row db.Row) (a pastAlert, err error) {
		a = pastAlert{event: row.Text(0), subject: row.Text(1), since: row.Int(2)}
		if err := json.Unmarshal(row.Blob(3), &a.text); err != nil {
			return a, fmt.Errorf("alert %s: %w", a.event, err)
		}
		return a, nil
	}, "SELECT event, subject, since, data FROM alert WHERE ended <> 0")
	if err != nil {
		return err
	}
	past = slices.DeleteFunc(past, func(a pastAlert) bool { return !p.isIn(&a) })
	for batch := range slices.Chunk(past, alertBatch) {
		err := p.s.write(ctx, func(t *tx) error {
			for _, a := range batch {
				err := t.Run("DELETE FROM alert WHERE event = ? AND subject = ? AND since = ?", a.event, a.subject,
					a.since)
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		p.Alerts += int64(len(batch))
	}
	return nil
}

// isIn reports whether an alert names the person: an address anywhere, a login where a field is it.
func (p *person) isIn(a *pastAlert) bool {
	texts := []string{a.subject, a.text.Summary, a.text.Over}
	for _, detail := range a.text.Details {
		texts = append(texts, detail)
	}
	return slices.ContainsFunc(texts, func(text string) bool {
		if !strings.Contains(p.name, "@") {
			return slices.ContainsFunc(strings.FieldsFunc(text, isBetween), func(word string) bool {
				return strings.EqualFold(word, p.name)
			})
		}
		_, named := privacy.Redact(text, p.name, forgottenName)
		if p.hashed != "" && !named {
			_, named = privacy.Redact(text, p.hashed, forgottenName)
		}
		return named
	})
}

// isBetween reports what stands between logins in a text.
func isBetween(r rune) bool { return r == ' ' || strings.ContainsRune(",;:()\"'\n", r) }
