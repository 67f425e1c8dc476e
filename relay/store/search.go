package store

import (
	"context"
	"errors"
	"math"
	"strings"

	"postern/relay/store/internal/db"
	"postern/relay/trace"
)

// maxVisits is how many events one call of Search reads at most, so that it ends soon whatever is asked; then there
// is a next page. An event that is read costs some 10 µs.
const maxVisits = 6000

// Search finds messages, and sessions and logins that were refused, the newest first: one row each, where its newest
// event that matches stands. It is exact, whatever the index has: the index only says where to look. Errors that wrap
// trace.ErrQuery are for whoever asks; no other error depends on the question. In the daemon searches go one after the
// other, and wait while mail is busy and whoever searches has taken what it can spare; trace.ErrTooMany is of these.
func (s *Store) Search(ctx context.Context, q trace.Search) (a trace.Answer, err error) {
	q.Since, q.Until = s.clock.there(q.Since), s.clock.there(q.Until)
	l := searching{q: q}
	err = l.in(ctx, s)
	for i := range l.answer.Found {
		f := &l.answer.Found[i]
		f.Time, f.First, f.Last = s.clock.here(f.Time), s.clock.here(f.First), s.clock.here(f.Last)
	}
	l.answer.Reached = s.clock.here(l.answer.Reached)
	return l.answer, wrap(err, "search the trace")
}

// searching is one call of Search.
type searching struct {
	q      trace.Search
	terms  []string
	conn   db.Conn
	budget int // events that may still be read
	answer trace.Answer

	since, before, asOf int64           // as in trace.Cursor
	done                map[string]bool // what is in the answer, or was on a page before
}

// notYet is the AsOf of a cursor whose search has not looked at anything: the next call begins it.
const notYet = math.MaxInt64

func (l *searching) in(ctx context.Context, s *Store) error {
	if err := l.prepare(); err != nil {
		return err
	}
	done, err := s.paced(ctx, l.q.By)
	switch {
	case errors.Is(err, context.DeadlineExceeded) && l.q.After == "": // a page may be empty, and have a next
		l.answer.Next = trace.Cursor{Before: l.before, AsOf: notYet}.String()
		return nil
	case err != nil:
		return err
	}
	defer done()
	return s.lookups.snapshot(ctx, func(conn db.Conn) error {
		l.conn = conn
		return l.run()
	})
}

func (l *searching) prepare() (err error) {
	l.budget, l.done = maxVisits, map[string]bool{}
	if l.terms, err = l.q.Terms(); err != nil {
		return err
	}
	switch {
	case l.q.Limit <= 0:
		l.q.Limit = trace.DefaultPage
	case l.q.Limit > trace.MaxPage:
		l.q.Limit = trace.MaxPage
	}
	l.since, l.before = math.MinInt64, math.MaxInt64
	if !l.q.Since.IsZero() {
		l.since = unixNano(l.q.Since)
	}
	if !l.q.Until.IsZero() {
		l.before = unixNano(l.q.Until)
	}
	if l.q.After != "" {
		at, err := trace.ParseCursor(l.q.After)
		if err != nil {
			return err
		}
		l.before, l.asOf = min(l.before, at.Before), at.AsOf
	}
	return nil
}

// run looks through events from the newest on: those behind the index one by one, then those that the index names, then
// those before it.
func (l *searching) run() error {
	state, err := readSearchState(l.conn)
	if err != nil {
		return err
	}
	if l.q.After == "" || l.asOf == notYet { // the first page
		behind, _, err := l.conn.Int("SELECT coalesce(max(n) + 1, 0) FROM event")
		if err != nil {
			return err
		}
		l.before = min(l.before, behind)
		l.asOf = l.before
	}
	if _, l.answer.Partial, err = l.conn.Int("SELECT 1 FROM event WHERE n < ? AND n >= ? LIMIT 1", state.low,
		l.since); err != nil {
		return err
	}
	if len(l.terms) == 0 { // everything: no index is faster than the events themselves
		return l.finish(l.through(math.MinInt64))
	}
	more, err := l.through(state.done)
	if more && err == nil {
		more, err = l.named(state.low)
	}
	if more && err == nil {
		more, err = l.through(math.MinInt64)
	}
	return l.finish(more, err)
}

// finish says where the next page begins, unless everything was looked at.
func (l *searching) finish(more bool, err error) error {
	if err == nil && !more {
		l.answer.Next = trace.Cursor{Before: l.before, AsOf: l.asOf}.String()
		l.answer.Reached = fromNano(l.before)
	}
	return err
}

// through reads events, the newest first, back to a number. more is false if the page ended before that.
func (l *searching) through(back int64) (more bool, err error) {
	for {
		some, err := l.newest(max(back, l.since))
		if err != nil || len(some) == 0 {
			l.before = min(l.before, back)
			return err == nil, err
		}
		for _, e := range some {
			if more, err := l.take(e, true); err != nil || !more {
				return false, err
			}
		}
	}
}

// newest reads the newest of the events that are left to be looked at.
func (l *searching) newest(back int64) ([]*indexedEvent, error) {
	return collect(eventRows(l.conn, "SELECT n, kind, id, session, login, sender, rcpt, data FROM event "+
		"NOT INDEXED WHERE n >= ? AND n < ? ORDER BY n DESC LIMIT ?", back, l.before, eventsAtOnce))
}

// named reads the events that the index names, back to a number.
func (l *searching) named(back int64) (more bool, err error) {
	c, err := newCandidates(l.conn, l.terms, max(back, l.since), l.before)
	if err != nil {
		return false, err
	}
	for {
		numbers, err := c.some()
		if err != nil || len(numbers) == 0 {
			l.before = min(l.before, back)
			return err == nil, err
		}
		if more, err := l.takeNumbered(numbers); err != nil || !more {
			return false, err
		}
	}
}

// takeNumbered looks at the events with these numbers that are there still.
func (l *searching) takeNumbered(numbers []int64) (more bool, err error) {
	there := map[int64]*indexedEvent{}
	for e, err := range eventsNumbered(l.conn, numbers) {
		if err != nil {
			return false, err
		}
		there[e.n] = e
	}
	for _, n := range numbers {
		e, is := there[n]
		if !is {
			e = &indexedEvent{n: n}
		}
		if more, err := l.take(e, is); err != nil || !more {
			return false, err
		}
	}
	return true, nil
}

// take looks at one event and reports whether the page has room for more.
func (l *searching) take(e *indexedEvent, there bool) (more bool, err error) {
	l.budget--
	l.before = e.n
	if there && l.matches(e) {
		if err := l.add(e); err != nil {
			return false, err
		}
	}
	return l.budget > 0 && len(l.answer.Found) < l.q.Limit, nil
}

// matches reports whether an event is what is looked for.
func (l *searching) matches(e *indexedEvent) bool {
	return l.q.About.Has(&e.Event) && e.HasTerms(l.terms)
}

// add puts what an event belongs to into the answer, unless a newer event has done so.
func (l *searching) add(e *indexedEvent) error {
	key := groupOf(&e.Event)
	if key != "" && l.done[key] {
		return nil
	}
	g := group{newest: e.n}
	if key == "" {
		g.add(e)
		l.answer.Found = append(l.answer.Found, g.found())
		return nil
	}
	l.done[key] = true
	for other, err := range l.members(&e.Event) {
		if err != nil {
			return err
		}
		l.budget--
		if other.n > e.n && other.n < l.asOf && l.matches(other) {
			return nil // it was on a page before
		}
		g.add(other)
	}
	l.answer.Found = append(l.answer.Found, g.found())
	return nil
}

// maxGroup is how many events of a message are enough to know it.
const maxGroup = 20_000

// members reads the newest events of a row of the answer, the newest first.
func (l *searching) members(e *trace.Event) events {
	const columns = "SELECT n, kind, id, session, login, sender, rcpt, data FROM event INDEXED BY "
	if e.ID != "" {
		return eventRows(l.conn, columns+"event_id WHERE id = ? AND id <> '' ORDER BY n DESC LIMIT ?", e.ID, maxGroup)
	}
	return eventRows(l.conn, columns+"event_session WHERE session = ? AND session <> '' AND id = '' ORDER BY n DESC "+
		"LIMIT ?", e.Session, maxGroup)
}

// groupOf names the row of the answer that an event belongs to; empty: it is a row of its own.
func groupOf(e *trace.Event) string {
	switch {
	case e.ID != "":
		return "message " + e.ID
	case e.Session != "":
		return "session " + e.Session
	}
	return ""
}

// group sums up the events of a row, which come the newest first.
type group struct {
	newest   int64 // of those that match
	row      trace.Found
	events   int
	said     bool            // row.State is what happened last
	outcomes map[string]bool // recipients, and whether it is known what became of them
}

func (g *group) add(e *indexedEvent) {
	f := &g.row
	if g.events++; g.events == 1 {
		f.Last, f.State, f.Reply, f.Detail = e.Time, e.Kind, e.Reply, e.Detail
	}
	f.First = e.Time
	if !g.said && e.Kind != trace.Report && e.Kind != trace.Operator {
		g.said = true
		f.State, f.Reply, f.Detail = e.Kind, e.Reply, e.Detail
	}
	for _, field := range []struct {
		of    *string
		value string
	}{
		{&f.ID, e.ID}, {&f.Session, e.Session}, {&f.Login, e.Login}, {&f.Client, e.Client}, {&f.Listener, e.Listener},
		{&f.From, e.From}, {&f.Upstream, e.Upstream},
	} {
		if *field.of == "" {
			*field.of = field.value
		}
	}
	if e.To != "" {
		f.To = e.To
		g.outcome(e)
	}
}

// outcome counts a recipient once, by the newest event that says what became of it.
func (g *group) outcome(e *indexedEvent) {
	var n *int
	switch e.Kind {
	case trace.Delivered:
		n = &g.row.Delivered
	case trace.Deferred:
		n = &g.row.Deferred
	case trace.Failed:
		n = &g.row.Failed
	case trace.Unclear:
		n = &g.row.Unclear
	}
	if g.outcomes == nil {
		g.outcomes = map[string]bool{}
	}
	to := strings.ToLower(e.To)
	counted, known := g.outcomes[to]
	if !known {
		g.row.Recipients++
	}
	if !counted && n != nil {
		*n++
	}
	g.outcomes[to] = counted || n != nil
}

func (g *group) found() trace.Found {
	g.row.Time, g.row.Events = fromNano(g.newest), g.events
	return g.row
}
