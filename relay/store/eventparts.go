package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"postern/relay/store/internal/db"
	"postern/relay/store/internal/postgres"
)

// Events at a server are in parts by time, tables of their own, so that what is too old, or too much, goes with its
// table: removed row by row it costs several times what it cost to write it, and leaves its room to vacuum. There are
// few parts, for who looks for a message looks into each: of a history of 30 days a part is a day, and less where a day
// would be more than a sixteenth of what there may be. The leading node makes a part before its time comes; an event
// that finds none makes that of its hour.
//
// The first part has no beginning. It has what was there before there were parts, and what was moved here. From it, and
// from any that is too large to go as a whole, events go one by one.
const (
	partsByAge  = 30
	partsBySize = 16
	partsMost   = 128 // from then on, as when none can be dropped for days, parts are long
	partLong    = 24 * time.Hour
	partLeast   = time.Minute
	partFirst   = time.Hour       // where nothing is known of the one before
	partGrows   = 8               // times as long as the one before, at most
	partSeen    = time.Minute     // at that age it shows how much comes
	partAhead   = 2 * time.Minute // so long before it begins it is made
)

// Who drops a part needs the whole trace for a moment, and mail waits behind who waits for it. So it does not wait for
// long, and a while passes before it tries again: what is in its way may be a backup.
const (
	partLock  = 50 * time.Millisecond
	partRetry = time.Minute
	partStuck = time.Hour   // where something depends on it
	apartFor  = time.Minute // a statement may take so long
	countRate = 10 << 20    // octets a second that are counted at least
)

// eventPart is a part of event: numbers from, up to but without until.
type eventPart struct {
	from, until int64 // from is math.MinInt64 of the first part
	octets      int64 // that it takes, about
}

// first reports whether it has no beginning.
func (p eventPart) first() bool { return p.from == math.MinInt64 }

func (p eventPart) table() string { return fmt.Sprintf("event_%d_%d", max(p.from, 0), p.until) }

func (p eventPart) has(n int64) bool { return p.from <= n && n < p.until }

func (p eventPart) is(q eventPart) bool { return p.from == q.from && p.until == q.until }

// readEventParts lists them, the oldest first. Indexes take about as much as their table.
func readEventParts(conn db.Conn) ([]eventPart, error) {
	return list(conn, func(row db.Row) (eventPart, error) {
		p := eventPart{row.Int(0), row.Int(1), row.Int(2)}
		if p.from == 0 {
			p.from = math.MinInt64
		}
		return p, nil
	}, `SELECT split_part(c.relname::text, '_'::text, 2)::bigint AS n,
		split_part(c.relname::text, '_'::text, 3)::bigint, 2 * coalesce(pg_relation_size(c.oid), 0)
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'event'::regclass
			AND pg_table_is_visible(c.oid) ORDER BY n`)
}

// without returns the parts that are missing for events with these numbers: of an hour, or what is left of it between
// two others. What is older than all parts goes into one.
func without(parts []eventPart, numbers []int64) (missing []eventPart) {
	parts = slices.Clone(parts)
	for _, n := range numbers {
		i, _ := slices.BinarySearchFunc(parts, n, func(p eventPart, n int64) int { return cmp.Compare(p.until-1, n) })
		if i < len(parts) && parts[i].from <= n {
			continue
		}
		hour := n - n%int64(time.Hour)
		p := eventPart{from: hour, until: hour + min(int64(time.Hour), math.MaxInt64-hour)}
		if i < len(parts) {
			p.until = min(p.until, parts[i].from)
		}
		switch {
		case i > 0:
			p.from = max(p.from, parts[i-1].until)
		case len(parts) > 0:
			p.from, p.until = math.MinInt64, parts[0].from
		case n < 0:
			p.from, p.until = math.MinInt64, 0
		}
		parts = slices.Insert(parts, i, p)
		missing = append(missing, p)
	}
	return missing
}

// around is what parts without a gap have, to both sides of a number.
func around(parts []eventPart, n int64) (run eventPart) {
	for _, p := range parts {
		if p.from != run.until {
			if run.has(n) {
				return run
			}
			run.from = p.from
		}
		run.until = p.until
	}
	return run
}

// placeEvents implements engine: it makes the parts that are missing, within a transaction.
func (s *server) placeEvents(conn db.Conn, numbers []int64) error {
	parts, err := readEventParts(conn)
	if err != nil || len(without(parts, numbers)) == 0 {
		return err
	}
	// Mail waits for it here, as behind an ANALYZE of the trace.
	if err := conn.Exec("SET LOCAL lock_timeout = 1000; " + schemaLock); err != nil {
		return err
	}
	if parts, err = readEventParts(conn); err != nil { // another node may have made them meanwhile
		return err
	}
	for _, p := range without(parts, numbers) {
		if err := p.make(conn); err != nil {
			return err
		}
	}
	return nil
}

// make makes a part. It is attached when it is ready, which waits for nobody who reads or writes. vacuum has nothing to
// do in it while only events come.
func (p eventPart) make(conn db.Conn) error {
	from := "MINVALUE"
	if !p.first() {
		from = fmt.Sprint(p.from)
	}
	return conn.Exec(fmt.Sprintf("CREATE TABLE %s (LIKE event INCLUDING ALL) WITH "+
		"(autovacuum_vacuum_insert_threshold = -1); ALTER TABLE event ATTACH PARTITION %[1]s FOR VALUES FROM (%s) "+
		"TO (%d)", p.table(), from, p.until))
}

// PrepareEvents makes, at a server, the part of the trace that comes next, before its time comes. keep is how long
// events are kept, and most how many octets of them.
func (s *Store) PrepareEvents(ctx context.Context, keep time.Duration, most int64) error {
	e, ok := s.engine.(*server)
	if !ok {
		return nil
	}
	var next eventPart
	look := func(conn db.Conn) error {
		parts, err := readEventParts(conn)
		next = nextPart(parts, s.clock.nano(time.Now()), keep, most)
		return err
	}
	err := s.readers.read(ctx, look)
	if err == nil && next.until > 0 {
		err = e.apart(ctx, apartFor, func(conn *postgres.Conn) error {
			if err := conn.Run(schemaLock); err != nil {
				return err
			}
			if err := look(conn); err != nil || next.until == 0 { // somebody was faster
				return err
			}
			return next.make(conn)
		})
	}
	return wrap(err, "prepare %s for events", e.name)
}

// apart runs a transaction by a connection of its own, so that mail does not wait for what it waits for. Each statement
// may take so long.
func (s *server) apart(ctx context.Context, long time.Duration, run func(*postgres.Conn) error) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetStatementTimeout(ctx, long); err != nil {
		return err
	}
	defer interruptOn(ctx, conn)()
	return readError(ctx, inTransaction(conn, func() error { return run(conn) }))
}

// nextPart is the part that is to be made now, if any. Parts of a time to come, as after a clock that was wrong, are
// none that go on from here.
func nextPart(parts []eventPart, now int64, keep time.Duration, most int64) (next eventPart) {
	next.from = now - now%int64(time.Hour) // the last moments may be missing
	if run := around(parts, now); run.has(now) {
		next.from = run.until
	}
	if next.from > now+int64(partAhead) {
		return eventPart{}
	}
	next.until = next.from + int64(partWidth(parts, now, keep, most))
	for _, p := range parts {
		switch {
		case p.until <= now:
			next.from = max(next.from, p.until)
		case p.from >= next.from:
			next.until = min(next.until, p.from)
		}
	}
	return next
}

// partWidth is how long a part is to be so that it will have its share of the history if as much comes as of late.
func partWidth(parts []eventPart, now int64, keep time.Duration, most int64) time.Duration {
	if len(parts) >= partsMost {
		return partLong
	}
	width := partFirst
	for _, p := range slices.Backward(parts) {
		if p.until > now && p.from > now-int64(partSeen) { // it shows nothing yet
			continue
		}
		if !p.first() {
			seen := min(now, p.until) - p.from
			share := float64(most) / partsBySize / float64(max(p.octets, 1))
			width = min(partGrows*time.Duration(p.until-p.from), time.Duration(min(share*float64(seen), 1<<62)))
		}
		break
	}
	return max(min(width, keep/partsByAge), partLeast).Round(time.Second)
}

// dropping is what is known of parts that are to be dropped.
type dropping struct {
	mu    sync.Mutex
	part  eventPart           // guarded by mu; the oldest that may go; octets is what its events have at most
	after time.Time           // guarded by mu; when one may be tried
	since time.Time           // guarded by mu; from when on none could be; zero: one could
	told  bool                // guarded by mu; so for long
	stuck map[int64]time.Time // guarded by mu; those that something depends on, by their end, until when
}

// oldest returns the first part of those that may go, if any; octets is what its events have at most.
func (d *dropping) oldest(parts []eventPart) (p eventPart, found bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(d.stuck, func(_ int64, until time.Time) bool { return now.After(until) })
	for _, p := range parts {
		if _, is := d.stuck[p.until]; is {
			continue
		}
		if !d.part.is(p) {
			d.part = p
		}
		return d.part, !now.Before(d.after)
	}
	return p, false
}

// removed implements engine.
func (s *server) removed(n, octets int64, oldest bool) { s.dropping.removed(n, octets, oldest) }

func (d *dropping) removed(n, octets int64, oldest bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.part.has(n):
		d.part.octets -= octets
	case oldest && n >= d.part.until: // it was thought to have more than it had
		d.part.octets = 0
	}
}

// counted is told how many octets events of a part have.
func (d *dropping) counted(p eventPart, octets int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.part.is(p) {
		d.part.octets = octets
	}
}

// failed is told why a part could not be dropped, and reports whether people are to know: not of who reads for a while.
func (d *dropping) failed(p eventPart, err error) (tell bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if kind := db.KindOf(err); kind != db.Busy && !errors.Is(err, ErrAway) {
		if d.stuck == nil {
			d.stuck = map[int64]time.Time{}
		}
		d.stuck[p.until] = now.Add(partStuck)
		return true
	}
	d.after = now.Add(partRetry)
	if d.since.IsZero() {
		d.since = now
	}
	tell = !d.told && now.Sub(d.since) >= partStuck
	d.told = d.told || tell
	return tell
}

func (d *dropping) succeeded() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.since, d.told = time.Time{}, false
}

// dropEvents implements engine.
func (s *server) dropEvents(ctx context.Context, before, octets int64) (events int64, dropped bool, err error) {
	var parts []eventPart
	err = s.readers.read(ctx, func(conn db.Conn) error {
		parts, err = readEventParts(conn)
		return err
	})
	if err != nil {
		return 0, false, err
	}
	oldest, ready := s.dropping.oldest(parts)
	// Events of a moment ago may still be written.
	if !ready || oldest.until > s.clock.nano(time.Now())-int64(partAhead) {
		return 0, false, nil
	}
	if oldest.until <= before {
		octets = math.MaxInt64
	}
	if oldest.octets > octets {
		return 0, false, nil
	}
	events, err = s.dropEventPart(ctx, oldest, octets)
	switch {
	case err == nil:
		s.dropping.succeeded()
		return events, true, nil
	case postgres.CodeOf(err) == noSuchTable: // a node that led before was faster
		return 0, true, nil
	case ctx.Err() != nil:
		return 0, false, err
	case errors.Is(err, errLargePart):
	case s.dropping.failed(oldest, err):
		s.log.Warn("a part of the trace cannot be dropped: it is tried again, and its events go one by one", "part",
			oldest.table(), "err", err)
	default:
		s.log.Debug("a part of the trace is in use", "part", oldest.table(), "err", err)
	}
	return 0, false, nil
}

// noSuchTable is the code of an error.
const noSuchTable = "42P01"

// errLargePart: a part has more than may go at once.
var errLargePart = errors.New("too large a part")

// dropEventPart drops a part that has so many octets of events at most. It counts what goes while nobody but who writes
// there has to wait, and locks the whole trace when all else is done.
func (s *server) dropEventPart(ctx context.Context, p eventPart, octets int64) (events int64, err error) {
	long := apartFor + time.Duration(p.octets/countRate)*time.Second
	err = s.apart(ctx, long, func(conn *postgres.Conn) error {
		if err := conn.Exec(fmt.Sprintf("SET LOCAL lock_timeout = %d; LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE",
			partLock.Milliseconds(), p.table())); err != nil {
			return err
		}
		c, err := sumEvents(conn, p.from, p.until-1)
		if err != nil {
			return err
		}
		s.dropping.counted(p, c.history)
		if c.history > octets {
			return errLargePart
		}
		// The row of commands: nodes do not wait for it.
		if err := conn.Run("UPDATE counter SET events = events - ?, history = history - ?, refusals = refusals - ? "+
			"WHERE k = 0", c.events, c.history, c.refusals); err != nil {
			return err
		}
		events = c.events
		return conn.Exec("DROP TABLE " + p.table())
	})
	return events, err
}

// oneByOne implements engine: parts go as a whole, but for one that is longer than parts are, or that should have gone
// an hour ago and could not.
func (s *server) oneByOne(ctx context.Context, before int64) (is bool, err error) {
	err = s.readers.read(ctx, func(conn db.Conn) error {
		parts, err := readEventParts(conn)
		if err != nil || len(parts) == 0 {
			return err
		}
		oldest, kept := parts[0], s.clock.nano(time.Now())-before
		is = oldest.first() || oldest.until-oldest.from > max(kept/partsByAge, int64(partLeast))+int64(time.Second) ||
			oldest.until <= before-int64(time.Hour)
		return nil
	})
	return is, err
}

// renewEvents makes the trace one first part, up to now, in place of all parts, for what is moved here.
func (s *server) renewEvents(conn db.Conn) error {
	parts, err := readEventParts(conn)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err := conn.Exec("DROP TABLE " + p.table()); err != nil {
			return err
		}
	}
	return eventPart{from: math.MinInt64, until: s.clock.nano(time.Now())}.make(conn)
}
