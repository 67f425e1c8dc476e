package store

import (
	"context"
	"fmt"
	"math"
	"time"

	"postern/internal/periodic"
	"postern/relay/store/internal/db"
)

// eventShare is what an event takes beside its columns, in octets: rows, index entries and the room that pages have
// left.
const eventShare = "250"

// eventOctets is about what an event takes of the file: its columns that are indexed are there twice. The same in Go is
// eventRow.octets. It never changes: the counters of schemaHistory were counted with it.
const eventOctets = eventShare + ` + octet_length(kind) + octet_length(data)
	+ 2 * (octet_length(id) + octet_length(session) + octet_length(login) + octet_length(sender) + octet_length(rcpt))`

func (r *eventRow) octets() int64 {
	indexed := len(r.ID) + len(r.Session) + len(r.Login) + len(r.sender) + len(r.rcpt)
	return int64(250 + len(r.Kind) + len(r.data) + 2*indexed)
}

// refusals are the kinds of trace.Kind.IsRefusal.
const refusals = "kind IN ('refused', 'auth-fail', 'rejected')"

// schemaHistory counts the octets of the trace, all and those of refusals, and finds the oldest refusals.
const schemaHistory = `
ALTER TABLE counter ADD COLUMN history INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counter ADD COLUMN refusals INTEGER NOT NULL DEFAULT 0;
UPDATE counter SET (history, refusals) =
	(SELECT coalesce(sum(octets), 0), coalesce(sum(octets) FILTER (WHERE ` + refusals + `), 0)
	FROM (SELECT kind, ` + eventOctets + ` AS octets FROM event));
CREATE INDEX event_refusal ON event (n) WHERE ` + refusals + `;
`

const (
	// trimBatch is how many events one transaction removes at most: some milliseconds of work.
	trimBatch = 100
	// leastHistory is what is kept, in octets, however little room there is: it may say why there is none.
	leastHistory = 4 << 20
	// refusalShare is the part of the history that refusals have when there is too much of it; those over it go before
	// anything else goes.
	refusalShare = 16
	// partSpare is the part of the history that may go beside what has to, where events go together.
	partSpare = 8
)

// TrimEvents removes events while the trace has more than so many octets, or more of them than MaxEvents, in small
// transactions with pauses that leave the writer to mail. Refusals go first, then whatever is oldest. So that mail is
// not refused for the sake of history, there is less of it the more mail waits or the less the disk has free.
func (s *Store) TrimEvents(ctx context.Context, most int64) (total int64, err error) {
	passed := newPassed()
	for {
		began := time.Now()
		var n int64
		if n, err = s.trimSome(ctx, most, passed); err != nil {
			return total, fmt.Errorf("trim the trace: %w", err)
		}
		if total += n; n == 0 {
			return total, nil
		}
		if err := periodic.Sleep(ctx, time.Since(began)); err != nil {
			return total, err
		}
	}
}

// trimSome makes one step.
func (s *Store) trimSome(ctx context.Context, most int64, passed passed) (n int64, err error) {
	var counts counters
	err = s.readers.read(ctx, func(conn db.Conn) error {
		if counts, err = readCounters(conn, s.engine.layout()); err != nil {
			return err
		}
		index, err := searchOctets(conn)
		most = max(most-index, min(leastHistory, most)) // the index has its share
		return err
	})
	if err != nil {
		return 0, err
	}
	if most, err = s.historyLimit(ctx, counts, most); err != nil {
		return 0, err
	}
	over := counts.excess(most, s.opts.MaxEvents)
	if over <= 0 {
		return 0, nil
	}
	if !counts.refusalsFirst(most) {
		// Together they may be a little more than has to go.
		together := over*counts.each() + counts.history/partSpare
		if n, dropped, err := s.engine.dropEvents(ctx, math.MinInt64, together); err != nil || n > 0 {
			return n, err
		} else if dropped {
			return s.trimSome(ctx, most, passed)
		}
	}
	return s.trimRows(ctx, passed, math.MaxInt64, func(now *counters) (n int64, refusalsFirst bool) {
		return min(now.excess(most, s.opts.MaxEvents), trimBatch), now.refusalsFirst(most)
	})
}

// trimRows makes a step in which events from before a number go one by one: so many of the oldest, or of the oldest
// refusals, as few says by what there is.
func (s *Store) trimRows(ctx context.Context, passed passed, before int64,
	few func(now *counters) (n int64, refusalsFirst bool)) (int64, error) {
	var gone []goneEvent
	var refusalsFirst bool
	err := s.write(ctx, func(t *tx) error {
		gone = nil
		now, err := t.count()
		if err != nil {
			return err
		}
		var n int64
		if n, refusalsFirst = few(now); n > 0 {
			gone, err = t.trim(n, passed[refusalsFirst], before, refusalsFirst)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, e := range gone {
		passed[refusalsFirst] = max(passed[refusalsFirst], e.n)
		s.engine.removed(e.n, e.octets, !refusalsFirst)
	}
	return int64(len(gone)), nil
}

// historyLimit is how many octets of history there may be now, of most.
func (s *Store) historyLimit(ctx context.Context, counts counters, most int64) (int64, error) {
	least := min(leastHistory, most)
	if s.opts.MaxBytes > 0 {
		most = min(most, s.opts.MaxBytes-counts.bytes)
	}
	lack, err := s.engine.lack(ctx)
	return max(min(most, counts.history-lack), least), err
}

// excess is about how many events are too many.
func (c *counters) excess(octets, events int64) int64 {
	over := c.events - events
	if c.history > octets && c.events > 0 {
		over = max(over, (c.history-octets+c.each()-1)/c.each())
	}
	return over
}

// each is how many octets an event has.
func (c *counters) each() int64 { return max(1, c.history/max(1, c.events)) }

// refusalsFirst reports whether refusals have more than their part of the history.
func (c *counters) refusalsFirst(most int64) bool {
	return c.refusals > min(most, c.history)/refusalShare
}

// passed is up to which number trimming has found its last, of all events and of refusals: what was removed before it
// is still looked at otherwise, until vacuum comes, for each step.
type passed map[bool]int64

func newPassed() passed { return passed{false: math.MinInt64, true: math.MinInt64} }

// goneEvent is an event that was removed.
type goneEvent struct{ n, octets int64 }

// trim removes the oldest events between two numbers, n at most; the oldest refusals, if these go first.
func (t *tx) trim(n, after, before int64, refusalsFirst bool) (gone []goneEvent, err error) {
	oldest := "event NOT INDEXED WHERE n > ? AND n < ?"
	if refusalsFirst {
		oldest = "event INDEXED BY event_refusal WHERE n > ? AND n < ? AND " + refusals
	}
	counts, err := t.count()
	if err != nil {
		return nil, err
	}
	var numbers []int64
	for row, err := range t.Rows("DELETE FROM event WHERE n IN (SELECT n FROM "+oldest+" ORDER BY n LIMIT ?) "+
		"RETURNING "+
		eventOctets+", "+refusals+", n", after, before, n) {
		if err != nil {
			return nil, err
		}
		gone, numbers = append(gone, goneEvent{row.Int(2), row.Int(0)}), append(numbers, row.Int(2))
		counts.events--
		counts.history -= row.Int(0)
		if row.Bool(1) {
			counts.refusals -= row.Int(0)
		}
	}
	return gone, t.unindex(numbers, false)
}

// PruneEvents removes the events before a moment, in small transactions, and returns how many. At a server some may
// stay for a thirtieth of the time that has passed since then, a day of 30, and for an hour more where somebody else
// uses them.
func (s *Store) PruneEvents(ctx context.Context, before time.Time) (total int64, err error) {
	total, err = s.pruneEvents(ctx, s.clock.nano(before))
	return total, wrap(err, "prune events")
}

func (s *Store) pruneEvents(ctx context.Context, before int64) (total int64, err error) {
	for dropped := true; dropped; {
		var n int64
		if n, dropped, err = s.engine.dropEvents(ctx, before, math.MinInt64); err != nil {
			return total, err
		}
		total += n
	}
	rows, err := s.engine.oneByOne(ctx, before)
	if err != nil || !rows {
		return total, err
	}
	for passed := newPassed(); ; {
		n, err := s.trimRows(ctx, passed, before, func(*counters) (int64, bool) { return trimBatch, false })
		if total += n; err != nil || n < trimBatch {
			return total, err
		}
	}
}

// sumEvents counts the events from one number to another.
func sumEvents(conn db.Conn, first, last int64) (c counters, err error) {
	for row, err := range conn.Rows("SELECT count(*), coalesce(sum(octets), 0), coalesce(sum(octets) FILTER (WHERE "+
		refusals+"), 0) FROM (SELECT kind, "+eventOctets+" AS octets FROM event WHERE n >= ? AND n <= ?) AS e", first,
		last) {
		if err != nil {
			return c, err
		}
		c.events, c.history, c.refusals = row.Int(0), row.Int(1), row.Int(2)
	}
	return c, nil
}

// inBatches writes in small transactions until one has less to do than a whole batch.
func (s *Store) inBatches(ctx context.Context, batch int64, write func(*tx) (int64, error)) (total int64, err error) {
	for {
		var n int64
		err := s.write(ctx, func(t *tx) (err error) {
			n, err = write(t)
			return err
		})
		if err != nil {
			return total, err
		}
		if total += n; n < batch {
			return total, nil
		}
	}
}
