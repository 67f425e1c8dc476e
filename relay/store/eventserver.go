package store

import (
	"context"
	"maps"
	"math"
	"slices"
	"time"

	"postern/internal/periodic"
	"postern/relay/store/internal/db"
	"postern/relay/store/internal/postgres"
)

// nodeNumbers is how many nodes have event numbers that no other node has, and how many nanoseconds apart those of one
// node are.
const nodeNumbers = 64

// maxEvent is the last number that has a part: some of 2262.
const maxEvent = math.MaxInt64 - int64(2*time.Hour)

// number implements engine. Its time is by the clock of the database, so that what nodes do stands in the order in
// which they did it, and the last bits are the node's, so that no two write one number. Who reads gets it by their own.
func (s *server) number(t time.Time) (n, step int64) {
	return min(s.clock.nano(t), maxEvent)&^(nodeNumbers-1) | s.eventBits(), nodeNumbers
}

// eventBits are those of the node; 0: of commands.
func (s *server) eventBits() int64 { return s.node.Load() & (nodeNumbers - 1) }

// eventBulk appends events to the trace.
type eventBulk struct{ rows []eventRow }

func (e eventBulk) join(b *batch, answer answers) bool {
	for i := range e.rows {
		r := &e.rows[i]
		var step int64
		for r.n, step = b.number(r.Time); b.events[r.n]; r.n += step {
		}
		b.events[r.n] = true
		b.row(bulkEvents, r.n, string(r.Kind), r.ID, r.Session, r.Login, r.sender, r.rcpt, r.data)
		b.row(bulkShare)
		b.row(bulkLate, r.n)
		b.adds.events++
		b.adds.history += r.octets()
		if r.Kind.IsRefusal() {
			b.adds.refusals += r.octets()
		}
	}
	b.owed = append(b.owed, answer)
	answer.say(nil)
	return true
}

// withoutEvents takes events out of the batch: mail is not to fail with them.
func (b *batch) withoutEvents(err error) {
	for _, answer := range b.owed {
		answer.say(err)
	}
	b.owed = nil
	b.order = slices.DeleteFunc(b.order, func(query string) bool {
		return query == bulkEvents || query == bulkShare || query == bulkLate
	})
	b.adds.events, b.adds.history, b.adds.refusals = 0, 0, 0
}

// ensureEvents makes the parts of the trace that are missing.
func (b *batch) ensureEvents(conn *postgres.Conn) error {
	numbers := slices.Sorted(maps.Keys(b.events))
	if len(numbers) == 0 || b.placed.has(numbers[0]) && b.placed.has(numbers[len(numbers)-1]) {
		return nil
	}
	parts, err := readEventParts(conn)
	if err == nil && len(without(parts, numbers)) > 0 {
		if err = inTransaction(conn, func() error { return b.placeEvents(conn, numbers) }); err == nil {
			parts, err = readEventParts(conn)
		}
	}
	b.placed = around(parts, numbers[len(numbers)-1])
	return err
}

// Batches of events do not wait for the lock of all writes. They read the bounds of the index (bulkLate) with the lock
// of bulkShare, which all of them share until they have ended. Nobody takes it alone: others would wait for who waits
// for it. The indexer looks who has it instead.
const eventWriters = `SELECT virtualtransaction FROM pg_locks
	WHERE locktype = 'advisory'::text AND classid = 1347638350 AND objid = 3 AND objsubid = 2
	AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`

// How long the indexer waits for them before it does something else, and how often it looks meanwhile.
const (
	settledFor   = 200 * time.Millisecond
	settledEvery = 5 * time.Millisecond
)

// settled implements engine. A bound that is committed before is seen by all who begin later.
func (s *server) settled(ctx context.Context) (bool, error) {
	began := time.Now()
	before, err := s.eventWriters(ctx)
	for err == nil && len(before) > 0 {
		if time.Since(began) >= settledFor {
			return false, nil
		}
		if err := periodic.Sleep(ctx, settledEvery); err != nil {
			return false, err
		}
		var now []string
		now, err = s.eventWriters(ctx)
		before = slices.DeleteFunc(before, func(who string) bool { return !slices.Contains(now, who) })
	}
	return err == nil, err
}

func (s *server) eventWriters(ctx context.Context) ([]string, error) {
	return readAll(ctx, s.readers, func(row db.Row) (string, error) { return row.Text(0), nil }, eventWriters)
}
