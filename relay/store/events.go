package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/relay/store/internal/db"
	"postern/relay/trace"
)

var _ trace.Sink = (*Store)(nil)

// eventRow is an event ready to be inserted.
type eventRow struct {
	trace.Event
	n            int64  // once it is inserted; before, if it may be there already
	doubted      bool   // it may be there already
	sender, rcpt string // keys
	data         []byte
}

func newEventRow(e trace.Event) (eventRow, error) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	r := eventRow{Event: e, sender: addressKey(e.From), rcpt: addressKey(e.To)}
	// What has a column is not stored twice, unless the column cannot give it back.
	e.ID, e.Session, e.Login = "", "", ""
	if addressOf(r.sender) == e.From {
		e.From = ""
	}
	if addressOf(r.rcpt) == e.To {
		e.To = ""
	}
	var err error
	r.data, err = json.Marshal(struct {
		trace.Event
		Time *struct{} `json:"time,omitempty"` // hide those of Event
		Kind *struct{} `json:"kind,omitempty"`
	}{Event: e})
	return r, err
}

// addressKey turns an address around, "domain@local" in lower case, so that all of a domain are neighbours.
func addressKey(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return strings.ToLower(address)
	}
	return strings.ToLower(address[at+1:] + "@" + address[:at])
}

func addressOf(key string) string {
	domain, local, ok := strings.Cut(key, "@")
	if !ok {
		return key
	}
	return local + "@" + domain
}

// AppendEvents implements trace.Sink. It is lazy: it waits for a commit that comes anyway, 250 ms at
// most. What is too much goes by TrimEvents.
func (s *Store) AppendEvents(ctx context.Context, events []trace.Event) error {
	return s.appendEvents(ctx, events, true)
}

// AppendEventsNow is AppendEvents for somebody who waits for it.
func (s *Store) AppendEventsNow(ctx context.Context, events []trace.Event) error {
	return s.appendEvents(ctx, events, false)
}

func (s *Store) appendEvents(ctx context.Context, events []trace.Event, lazy bool) error {
	if len(events) == 0 {
		return nil
	}
	rows := make([]eventRow, 0, len(events))
	for _, e := range events {
		s.beforeWriting(&e)
		r, err := newEventRow(e)
		if err != nil {
			return fmt.Errorf("append events: %w", err)
		}
		rows = append(rows, r)
	}
	write := &op{lazy: lazy, cost: int64(len(rows)), bulk: eventBulk{rows}, run: func(t *tx) error {
		return t.insertEvents(rows)
	}}
	if s.doubted.recall(rows) {
		write.bulk = nil // it looks first
	}
	err := s.writer.do(ctx, write)
	switch {
	case err == nil:
		s.told.Add(uint64(len(rows)))
	case errors.Is(err, errDoubt):
		s.doubted.note(rows)
	}
	if errors.Is(err, ErrAway) {
		err = fmt.Errorf("%w: %w", trace.ErrSinkAway, err)
	}
	return wrap(err, "append events")
}

func (t *tx) insertEvents(rows []eventRow) error {
	counts, err := t.count()
	if err != nil {
		return err
	}
	if err := t.engine.placeEvents(t.Conn, t.numbers(rows)); err != nil {
		return err
	}
	for i := range rows {
		r := &rows[i]
		if there, err := r.there(t.Conn); there || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		if err := r.insert(t); err != nil {
			return err
		}
		counts.events++
		counts.history += r.octets()
		if r.Kind.IsRefusal() {
			counts.refusals += r.octets()
		}
	}
	return t.noteLate(rows)
}

// numbers are those that events should get, in order, and those of a second later: others may have some of them.
func (t *tx) numbers(rows []eventRow) []int64 {
	numbers := make([]int64, 0, 2*len(rows))
	for i := range rows {
		n, _ := rows[i].number(t)
		numbers = append(numbers, n, n+int64(time.Second))
	}
	slices.Sort(numbers)
	return numbers
}

// number is the one that the event should get, and how far the next one is.
func (r *eventRow) number(t *tx) (n, step int64) {
	if n, step = t.engine.number(r.Time); r.doubted {
		n = r.n
	}
	return n, step
}

// insert gives the event its number, or the next one that is free.
func (r *eventRow) insert(t *tx) error {
	for n, step := r.number(t); ; n += step {
		err := t.Run("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
			n, string(r.Kind), r.ID, r.Session, r.Login, r.sender, r.rcpt, r.data)
		if err != nil || t.Changes() > 0 {
			r.n = n
			return err
		}
	}
}

// there reports whether an event that may have been written was.
func (r *eventRow) there(conn db.Conn) (there bool, err error) {
	if r.doubted {
		_, there, err = conn.Int("SELECT 1 FROM event WHERE n = ? AND kind = ? AND id = ? AND session = ? AND "+
			"login = ? AND data = ?", r.n, string(r.Kind), r.ID, r.Session, r.Login, r.data)
	}
	return there, err
}

// same reports whether two rows are of one event.
func (r *eventRow) same(other *eventRow) bool {
	return r.Time.Equal(other.Time) && r.Kind == other.Kind && r.ID == other.ID && r.Session == other.Session &&
		r.Login == other.Login && bytes.Equal(r.data, other.data)
}

// doubted are events of which it is not known whether they are written: who tries again must not write them twice.
// Under the number that an event has had it can be written once only, whenever that takes place.
type doubted struct {
	mu   sync.Mutex
	rows []eventRow // guarded by mu; the latest ones
}

// maxDoubted is how many are remembered: more than one write of a recorder has.
const maxDoubted = 4096

func (d *doubted) note(rows []eventRow) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rows = append(d.rows, rows...)
	d.rows = slices.Clone(d.rows[max(0, len(d.rows)-maxDoubted):])
}

// recall gives those that are tried again the numbers that they had, and reports whether there are any.
func (d *doubted) recall(rows []eventRow) (some bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range rows {
		r := &rows[i]
		at := slices.IndexFunc(d.rows, func(before eventRow) bool { return before.same(r) })
		if at < 0 {
			continue
		}
		r.n, r.doubted, some = d.rows[at].n, true, true
		d.rows = slices.Delete(d.rows, at, at+1)
	}
	return some
}

// eventLimit is how many events a query gives when it does not say.
const eventLimit = 200

// Events returns the newest events that match, oldest first. Addresses are compared without regard to
// case.
func (s *Store) Events(ctx context.Context, q trace.Query) (events []trace.Event, err error) {
	q.Since, q.Until = s.clock.there(q.Since), s.clock.there(q.Until)
	err = s.lookups.read(ctx, func(conn db.Conn) error {
		events, err = selectEvents(conn, q)
		return err
	})
	if err == nil {
		events, err = s.withHashed(ctx, q, events)
	}
	for i := range events {
		events[i].Time = s.clock.here(events[i].Time)
	}
	return events, wrap(err, "search the trace")
}

// condition is one term of a WHERE clause.
type condition struct {
	index string // which serves it
	term  string // "?" are its arguments
	args  []any
	broad bool // may select so much that going through time is faster
}

// conditions turns a query into terms, the most selective first.
func conditions(q trace.Query) (cs []condition) {
	add := func(index, column, value string) {
		if value != "" {
			cs = append(cs, condition{index: index, term: column + " = ? AND " + column + " <> ''", args: []any{value}})
		}
	}
	addresses := func(index, column, pattern string) {
		domain, ok := strings.CutPrefix(pattern, "*@")
		if !ok {
			add(index, column, addressKey(pattern))
			return
		}
		domain = strings.ToLower(domain)
		cs = append(cs, condition{
			index: index, broad: true,
			term: column + " >= ? AND " + column + " < ? AND " + column + " <> ''",
			args: []any{domain + "@", domain + "A"}, // "A" follows "@"
		})
	}
	add("event_id", "id", q.ID)
	add("event_session", "session", q.Session)
	addresses("event_rcpt", "rcpt", q.To)
	addresses("event_sender", "sender", q.From)
	add("event_login", "login", q.Login)
	slices.SortStableFunc(cs, func(a, b condition) int {
		switch {
		case a.broad == b.broad:
			return 0
		case a.broad:
			return 1
		default:
			return -1
		}
	})
	return cs
}

func selectEvents(conn db.Conn, q trace.Query) (events []trace.Event, err error) {
	cs := conditions(q)
	index := "NOT INDEXED"
	if len(cs) > 0 {
		use := true
		if cs[0].broad {
			if use, err = cs[0].rare(conn); err != nil {
				return nil, err
			}
		}
		if use {
			index = "INDEXED BY " + cs[0].index
		}
	}
	text, args := eventQuery(q, cs, index)
	for row, err := range conn.Rows(text, args...) {
		if err != nil {
			return nil, err
		}
		e, err := scanEvent(row)
		if err != nil {
			return nil, err
		}
		if q.Text != "" && !e.Has(q.Text) {
			continue
		}
		if events = append(events, e); len(events) == limitOf(q) {
			break
		}
	}
	slices.Reverse(events)
	return events, nil
}

// eventQuery gives the newest events first.
func eventQuery(q trace.Query, cs []condition, index string) (text string, args []any) {
	until, limit := int64(math.MaxInt64), int64(limitOf(q))
	if !q.Until.IsZero() {
		until = unixNano(q.Until)
	}
	if q.Text != "" {
		limit = math.MaxInt64 // rows, of which few have the text
	}
	kinds := ""
	for _, k := range q.Kinds {
		kinds += " " + string(k) + " "
	}
	text = "SELECT n, kind, id, session, login, sender, rcpt, data FROM event " + index +
		" WHERE n >= ? AND n < ? AND (? = '' OR instr(?, ' ' || kind || ' ') > 0)"
	args = []any{unixNano(q.Since), until, kinds, kinds}
	for _, c := range cs {
		text += " AND " + c.term
		args = append(args, c.args...)
	}
	return text + " ORDER BY n DESC LIMIT ?", append(args, limit)
}

// limitOf is how many events a query gives.
func limitOf(q trace.Query) int {
	if q.Limit <= 0 {
		return eventLimit
	}
	return q.Limit
}

// rareUpTo is how many events of a domain are sorted; of more, the newest are found faster by going
// back in time.
const rareUpTo = 5000

func (c condition) rare(conn db.Conn) (bool, error) {
	n, _, err := conn.Int("SELECT count(*) FROM (SELECT 1 FROM event INDEXED BY "+c.index+" WHERE "+c.term+" LIMIT ?)",
		append(slices.Clone(c.args), rareUpTo)...)
	return n < rareUpTo, err
}

func scanEvent(s db.Row) (e trace.Event, err error) {
	if err := decodeEvent(s.Text(7), &e); err != nil {
		return e, fmt.Errorf("event %d: its row is damaged: %w", s.Int(0), err)
	}
	e.Time, e.Kind, e.ID, e.Session, e.Login = fromNano(s.Int(0)), trace.Kind(s.Text(1)), s.Text(2), s.Text(3),
		s.Text(4)
	if e.From == "" {
		e.From = addressOf(s.Text(5))
	}
	if e.To == "" {
		e.To = addressOf(s.Text(6))
	}
	return e, nil
}
