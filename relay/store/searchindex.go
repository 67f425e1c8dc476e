package store

import (
	"context"
	"errors"
	"time"

	"postern/internal/periodic"
	"postern/relay/store/internal/db"
	"postern/relay/trace"
)

// How the index of the trace is made, so that mail does not wait for it: events are added in batches, beside the
// writer, and written in transactions of writeOctets. While mail is busy only full batches are added and everything
// else rests; otherwise the indexer rests some times as long as it worked.
const (
	indexEvery  = time.Second
	batchEvents = 4096        // full batch of new events
	fewEvents   = 256         // new events that are added while mail is not busy
	fewFor      = time.Minute // fewer ones are added when the oldest is as old
	oldEvents   = 16384       // batch of events that were there before the index
	settleFor   = 2 * time.Second
	rewriteFor  = 5 * time.Second // what is to be forgotten has to rest for so long
	writeOctets = 128 << 10
	sweepRows   = 16 // removed in a transaction
	busyCommits = 10 // in a second, of others
	busyEvents  = 50 // in a second: mail that is handed off while its client waits makes few commits
	restTimes   = 4
)

// errStale ends work on the index that something else has overtaken. It is begun again.
var errStale = errors.New("the index of the trace has changed meanwhile")

// Indexer keeps the index of the trace up to date. Only one process at a time may run one: the daemon, or of several
// nodes the one that leads.
type Indexer struct {
	s       *Store
	owns    bool      // the index is this one's
	lost    time.Time // when another one had taken it over
	commits uint64    // of the store, when it was last looked at
	told    uint64    // events that the store had got then
	own     uint64    // since then, by the indexer itself
	looked  time.Time
	asked   map[int64]rewriting
	swept   int64 // epoch in which nothing is left over of segments that are gone
}

// rewriting is a segment that is to be written anew, and since when nobody has asked again.
type rewriting struct {
	count int
	since time.Time
}

// NewIndexer returns an indexer that does nothing yet.
func (s *Store) NewIndexer() *Indexer { return &Indexer{s: s, asked: map[int64]rewriting{}} }

// Run works until ctx ends. What fails is logged once and tried again; a damaged index is made anew.
func (x *Indexer) Run(ctx context.Context) {
	x.owns, x.lost = false, time.Time{}
	failing := false
	rest := indexEvery
	for periodic.Sleep(ctx, rest) == nil {
		began := time.Now()
		did, err := x.step(ctx, fromNano(x.s.clock.nano(began)), x.busy(began))
		if errors.Is(err, errSearchIndex) {
			x.s.log.Warn("the index of the trace is damaged and is made anew", "err", err)
			err = x.s.Reindex(ctx)
		}
		if err != nil && !failing && ctx.Err() == nil {
			x.s.log.Warn("the trace was not indexed: searching it takes longer", "err", err)
		}
		failing = err != nil
		rest = indexEvery
		if did && err == nil {
			rest = min(rest, restTimes*time.Since(began))
		}
	}
}

// busy reports whether mail keeps the store busy.
func (x *Indexer) busy(now time.Time) bool {
	commits, since := x.s.Commits(), now.Sub(x.looked)
	others := float64(commits - x.commits - min(x.own, commits-x.commits))
	told := x.s.told.Load()
	events := float64(told - x.told)
	x.commits, x.own, x.told, x.looked = commits, 0, told, now
	seconds := max(since, indexEvery).Seconds()
	return others > busyCommits*seconds || events > busyEvents*seconds
}

// step does the most urgent piece of work and reports whether there was any.
func (x *Indexer) step(ctx context.Context, now time.Time, busy bool) (did bool, err error) {
	if mine, err := x.claim(ctx, now); err != nil || !mine {
		return false, err
	}
	work := []func(context.Context, time.Time, bool) (bool, error){x.rewrite, x.addNew, x.addLate}
	if !busy {
		work = append(work, x.sweep, x.merge, x.addOld)
	}
	for _, do := range work {
		did, err := do(ctx, now, busy)
		if errors.Is(err, errStale) {
			x.swept = 0
			return true, nil
		}
		if did || err != nil {
			return did, err
		}
	}
	return false, nil
}

// yieldFor is how long an indexer leaves the index to another one that has taken it over, unless it is ended before.
const yieldFor = 10 * time.Second

// claim sees to it that the index is this node's. One that led before may not have noticed yet that it does not any
// more: what it has begun is not written then, and it begins nothing.
func (x *Indexer) claim(ctx context.Context, now time.Time) (mine bool, err error) {
	e, shared := x.s.engine.(*server)
	if !shared {
		return true, nil
	}
	node := e.eventBits()
	state, err := x.look(ctx, func(db.Conn, searchState) error { return nil })
	switch {
	case err != nil:
		return false, err
	case x.owns && state.epoch%epochs == node:
		return true, nil
	case x.owns:
		x.owns, x.lost = false, now
	}
	if !x.lost.IsZero() && now.Sub(x.lost) < yieldFor {
		return false, nil
	}
	err = x.write(ctx, state.epoch, func(t *tx, state searchState) error {
		state.epoch += epochs - state.epoch%epochs + node
		return state.save(t)
	})
	if errors.Is(err, errStale) {
		return false, nil
	}
	x.owns, x.lost, x.swept = err == nil, time.Time{}, 0
	return x.owns, err
}

// look reads the state of the index, and what f wants to know beside it.
func (x *Indexer) look(ctx context.Context, f func(conn db.Conn, state searchState) error) (state searchState,
	err error) {
	err = x.s.readers.snapshot(ctx, func(conn db.Conn) error {
		if state, err = readSearchState(conn); err != nil {
			return err
		}
		return f(conn, state)
	})
	return state, err
}

// write makes a change if the index is still the one that it was. It does not press: it goes with a commit of others.
func (x *Indexer) write(ctx context.Context, epoch int64, change func(t *tx, state searchState) error) error {
	x.own++
	return x.s.writer.do(ctx, &op{lazy: true, cost: lazyRows / 2, run: func(t *tx) error {
		state, err := readSearchState(t.Conn)
		if err != nil {
			return refuse(err)
		}
		if state.epoch != epoch {
			return refuse(errStale)
		}
		return change(t, state)
	}})
}

// addNew indexes the events behind those that are indexed.
func (x *Indexer) addNew(ctx context.Context, now time.Time, busy bool) (bool, error) {
	until := int64(0)
	state, err := x.look(ctx, func(conn db.Conn, state searchState) (err error) {
		if until = state.high; state.high == state.done {
			until, err = newUntil(conn, state.done, now, busy)
		}
		return err
	})
	if err != nil || until <= state.done {
		return false, err
	}
	if err := x.raise(ctx, state, until); err != nil {
		return false, err
	}
	return x.add(ctx, state.epoch, state.done, until, func(state *searchState) { state.done = until })
}

// raise puts the upper bound further up: from now on, who inserts an event below says so. It never goes back.
func (x *Indexer) raise(ctx context.Context, state searchState, until int64) error {
	if until <= state.high {
		return nil
	}
	return x.write(ctx, state.epoch, func(t *tx, state searchState) error {
		state.high = max(state.high, until)
		return state.save(t)
	})
}

// newUntil says up to where new events are worth a batch. Those of the last moments are left: others may come yet that
// lie before them.
func newUntil(conn db.Conn, from int64, now time.Time, busy bool) (int64, error) {
	settled := now.Add(-settleFor).UnixNano()
	full, ok, err := conn.Int("SELECT n FROM event NOT INDEXED WHERE n >= ? AND n < ? ORDER BY n LIMIT 1 OFFSET ?",
		from, settled, batchEvents-1)
	if err != nil || ok {
		return full + 1, err
	}
	if busy {
		return from, nil
	}
	_, some, err := conn.Int("SELECT n FROM event NOT INDEXED WHERE n >= ? AND n < ? ORDER BY n LIMIT 1 OFFSET ?",
		from, settled, fewEvents-1)
	if err != nil {
		return 0, err
	}
	oldest, any, err := conn.Int("SELECT min(n) FROM event WHERE n >= ?", from)
	if err != nil || !some && (!any || oldest > now.Add(-fewFor).UnixNano()) {
		return from, err
	}
	last, ok, err := conn.Int("SELECT n FROM event NOT INDEXED WHERE n >= ? AND n < ? ORDER BY n DESC LIMIT 1", from,
		settled)
	if err != nil || !ok {
		return from, err
	}
	return last + 1, nil
}

// addOld indexes events that were there before the index, the newest first.
func (x *Indexer) addOld(ctx context.Context, _ time.Time, _ bool) (bool, error) {
	floor := int64(0)
	state, err := x.look(ctx, func(conn db.Conn, state searchState) (err error) {
		if floor = state.floor; state.floor < state.low {
			return nil
		}
		floor = state.low
		for row, err := range conn.Rows("SELECT n FROM event NOT INDEXED WHERE n < ? ORDER BY n DESC LIMIT ?",
			state.low, oldEvents) {
			if err != nil {
				return err
			}
			floor = row.Int(0)
		}
		return nil
	})
	if err != nil || floor >= state.low {
		return false, err
	}
	if floor < state.floor {
		if err := x.write(ctx, state.epoch, func(t *tx, state searchState) error {
			state.floor = min(state.floor, floor)
			return state.save(t)
		}); err != nil {
			return false, err
		}
	}
	return x.add(ctx, state.epoch, floor, state.low, func(state *searchState) { state.low = floor })
}

// add indexes the events of a range, and then says so. It does nothing while somebody may still insert one there who
// does not know that it is late.
func (x *Indexer) add(ctx context.Context, epoch, from, until int64, then func(*searchState)) (did bool, err error) {
	if settled, err := x.s.engine.settled(ctx); err != nil || !settled {
		return false, err
	}
	var built []*newSegment
	err = x.s.readers.read(ctx, func(conn db.Conn) (err error) {
		built, err = buildSegments(eventRows(conn,
			"SELECT n, kind, id, session, login, sender, rcpt, data FROM event NOT INDEXED WHERE n >= ? AND n < ? "+
				"ORDER BY n", from, until))
		return err
	})
	if err != nil {
		return false, err
	}
	return true, x.replace(ctx, epoch, built, nil, func(_ *tx, state *searchState) error {
		then(state)
		return nil
	})
}

// lateAtOnce is how many late events are indexed together.
const lateAtOnce = 4096

// addLate indexes events that were inserted where the index had been already.
func (x *Indexer) addLate(ctx context.Context, now time.Time, busy bool) (bool, error) {
	var built []*newSegment
	var late []int64
	state, err := x.look(ctx, func(conn db.Conn, state searchState) (err error) {
		late, err = list(conn, number, "SELECT n FROM search_late ORDER BY n LIMIT ?", lateAtOnce)
		few := len(late) < fewEvents || busy && len(late) < lateAtOnce
		if err != nil || len(late) == 0 || few && late[len(late)-1] > now.Add(-fewFor).UnixNano() {
			late = nil
			return err
		}
		built, err = buildSegments(eventsNumbered(conn, late))
		return err
	})
	if err != nil || len(late) == 0 {
		return false, err
	}
	return true, x.replace(ctx, state.epoch, built, nil, func(t *tx, _ *searchState) error {
		for _, n := range late {
			if err := t.Run("DELETE FROM search_late WHERE n = ?", n); err != nil {
				return err
			}
		}
		return nil
	})
}

func number(row db.Row) (int64, error) { return row.Int(0), nil }

// rewrite writes a segment anew of whose events some were changed.
func (x *Indexer) rewrite(ctx context.Context, now time.Time, _ bool) (bool, error) {
	var of *segment
	var built []*newSegment
	state, err := x.look(ctx, func(conn db.Conn, _ searchState) error {
		all, err := list(conn, scanSegment, "SELECT "+segmentColumns+" FROM search_segment WHERE rewrite > 0")
		if err != nil {
			return err
		}
		if of = x.settled(all, now); of == nil {
			return nil
		}
		docs, err := readDocs(conn, of)
		if err != nil {
			return err
		}
		built, err = buildSegments(eventsNumbered(conn, docs))
		return err
	})
	if err != nil || of == nil {
		return false, err
	}
	return true, x.replace(ctx, state.epoch, built, []*segment{of}, nil)
}

// settled returns a segment that nobody has asked for lately.
func (x *Indexer) settled(all []*segment, now time.Time) *segment {
	asked := map[int64]rewriting{}
	var found *segment
	for _, s := range all {
		before, known := x.asked[s.id]
		if !known || before.count != s.rewrite {
			before = rewriting{s.rewrite, now}
		}
		asked[s.id] = before
		if now.Sub(before.since) >= rewriteFor {
			found = s
		}
	}
	x.asked = asked
	return found
}

// Reindex makes the index forget everything and begin anew, as after damage. The daemon's indexer does the rest.
func (s *Store) Reindex(ctx context.Context) error {
	err := s.write(ctx, func(t *tx) error {
		next, _, err := t.Int("SELECT coalesce(max(n) + 1, 0) FROM event")
		if err != nil {
			return err
		}
		for _, q := range []string{"DELETE FROM search_segment", "DELETE FROM search_late"} {
			if err := t.Run(q); err != nil {
				return err
			}
		}
		return t.Run("INSERT INTO search_state VALUES (1, 1, ?1, ?1, ?1, ?1) ON CONFLICT (k) DO UPDATE SET "+
			"epoch = search_state.epoch + ?2, floor = ?1, low = ?1, done = ?1, high = ?1", next, epochs)
	})
	return wrap(err, "begin the index of the trace anew")
}

// indexedEvent is an event with its number.
type indexedEvent struct {
	n int64
	trace.Event
}
