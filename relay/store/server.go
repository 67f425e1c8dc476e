package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"postern/relay/store/internal/db"
	"postern/relay/store/internal/postgres"
)

// server is the engine PostgreSQL, which several nodes may share. One connection writes; when it is lost, the next
// transaction opens another one.
type server struct {
	*fuse
	log     *slog.Logger
	config  postgres.Config
	name    string // for people
	opts    Options
	told    bool          // that the schema is brought up to date
	seek    time.Duration // outcomeFor
	look    time.Duration // lookFor
	clock   clock
	readers *readers     // of mail; for what must be known of the database
	asking  *readers     // for clients who wait
	looking *readers     // one connection, by which it is found out whether the database answers
	node    atomic.Int64 // its number; 0: a command

	dropping dropping

	// Of the writer's goroutine.
	queued int64          // octets of contents, as the last batch saw them
	known  int64          // a part of content that is there
	placed eventPart      // numbers of events that have parts
	batch  int64          // the number of the last batch, as the row of counters has it
	lapsed bool           // that is not known
	conn   *postgres.Conn // nil: lost
	tried  time.Time      // when the last connection was tried without success
	wait   time.Duration  // from then until the next one

	away    atomic.Pointer[failure] // why there is no connection to write; nil: there is
	silent  atomic.Pointer[failure] // why the last look had no answer; nil: it had one
	ousted  atomic.Pointer[failure] // another node has taken over; nil: none has
	refused atomic.Pointer[refused] // the last attempt to connect, if it had no success
}

// Writes that read what they then change (accounts, keys, sessions, what operators do to the queue) wait for each other
// here, on all nodes. The lock ends with the transaction.
const writeLock = "SELECT pg_advisory_xact_lock(1347638350, 1)"

// schemaLock is held while the schema is brought up to date.
const schemaLock = "SELECT pg_advisory_xact_lock(1347638350, 2)"

const (
	connectFor  = 5 * time.Second        // how long a transaction waits for a connection
	reconnectAt = 100 * time.Millisecond // another one is tried, the first time, then twice as late each time
	reconnectBy = 2 * time.Second        // at the latest
	outcomeFor  = 10 * time.Second       // how long it is asked what became of a commit without answer
	retries     = 3                      // of a transaction that met another one's locks
)

// errDoubt: the answer to a commit was lost, and cannot be had any more.
var errDoubt = errors.New("it is not known whether this was written")

// ErrAway: the database cannot be reached, or takes no writes at present. It is tried again with each write.
var ErrAway = errors.New("the database is away")

func newServer(o Options, f *fuse) *server {
	url := o.URL.Conninfo()
	if o.Password != "" {
		url += " password='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(string(o.Password)) + "'"
	}
	config := postgres.Config{URL: url, Node: o.Node, StatementTimeout: cmp.Or(o.limits.statement, statementFor),
		LockTimeout: o.limits.lock}
	s := &server{fuse: f, log: o.Logger, config: config, name: o.Place(), opts: o,
		seek: cmp.Or(o.limits.outcome, outcomeFor), look: cmp.Or(o.limits.look, lookFor)}
	s.asking = newReaders(s.asker, s.snapshot(), maxReaders)
	s.looking = newReaders(s.looker, s.snapshot(), 1)
	return s
}

// open implements engine.
func (s *server) open(ctx context.Context) error {
	conn, err := postgres.Open(ctx, s.config)
	if err == nil {
		if err = s.prepare(ctx, conn); err != nil {
			conn.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", s.name, err)
	}
	s.conn = conn
	return nil
}

// prepare brings the schema up to date and takes the server's time.
func (s *server) prepare(ctx context.Context, conn *postgres.Conn) error {
	if conn.Server().Standby {
		return errors.New("it is a standby, or read-only: name the primary, or all hosts, in [store] url")
	}
	if err := conn.SetStatementTimeout(ctx, 0); err != nil {
		return err
	}
	stop := interruptOn(ctx, conn)
	err := s.prepareTables(conn)
	stop()
	if err = readError(ctx, err); err != nil {
		return err
	}
	if err := conn.SetStatementTimeout(ctx, s.config.StatementTimeout); err != nil {
		return err
	}
	asked := time.Now()
	now, _, err := conn.Int(serverTime)
	if err == nil {
		s.clock.set(now, asked, time.Now())
	}
	return err
}

// statementFor is how long a statement may take, but for those that change the schema.
const statementFor = 30 * time.Second

// limits are how long a statement may take, its wait for a lock, the search for the outcome of a commit without answer,
// and the first look whether the database answers; 0: as usual.
type limits struct{ statement, lock, outcome, look time.Duration }

// serverTime is the server's clock in nanoseconds since 1970.
const serverTime = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000"

// there reports whether the database has a store.
func (s *server) there(ctx context.Context) (bool, error) {
	conn, err := postgres.Open(ctx, s.config)
	if err != nil {
		return false, fmt.Errorf("open %s: %w", s.name, err)
	}
	defer conn.Close()
	found, err := tablesOrigin(conn)
	return found.schema > 0, wrap(err, "open %s", s.name)
}

// close implements engine.
func (s *server) close() error {
	err := errors.Join(s.asking.close(), s.looking.close())
	if s.conn != nil {
		err = errors.Join(err, s.conn.Close())
	}
	return err
}

// readBy implements engine.
func (s *server) readBy(r *readers) { s.readers = r }

// askFor is how long a question of a client who waits may take.
const askFor = 5 * time.Second

// asker opens a connection for questions of clients who wait, such as whether limits let a message pass.
func (s *server) asker(ctx context.Context) (db.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectFor)
	defer cancel()
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := conn.SetStatementTimeout(ctx, askFor); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// reader implements engine.
func (s *server) reader(ctx context.Context) (db.Conn, error) { return s.connect(ctx) }

// refused is why there was no connection, for all who want one until then.
type refused struct {
	error
	until time.Time
}

// connect opens a connection, within connectFor and before ctx ends.
func (s *server) connect(ctx context.Context) (*postgres.Conn, error) {
	if r := s.refused.Load(); r != nil && time.Now().Before(r.until) {
		return nil, r.error
	}
	bounded, cancel := context.WithTimeout(ctx, connectFor)
	defer cancel()
	conn, err := postgres.Open(bounded, s.config)
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil: // others may have more time
		return nil, fmt.Errorf("%w (%w)", ctx.Err(), err)
	}
	err = away(err)
	s.refused.Store(&refused{err, time.Now().Add(reconnectAt)})
	return nil, err
}

// snapshot implements engine.
func (s *server) snapshot() string { return "BEGIN" }

// time implements engine.
func (s *server) time() *clock { return &s.clock }

// layout implements engine.
func (s *server) layout() *layout { return serverLayout }

// transact implements transactor.
func (s *server) transact(ops []*op) (did outcome, err error) {
	run := s.try
	if ops[0].bulk != nil {
		run = s.together
	}
	for range retries {
		if did, err = run(ops); !s.passing(err) {
			break
		}
	}
	return did, err
}

// passing reports whether a transaction that failed, and of which nothing is stored, may do better at once: it met the
// locks of another one, or its connection was lost and there may be another.
func (s *server) passing(err error) bool {
	switch {
	case err == nil, errors.Is(err, errDoubt), postgres.TimedOut(err):
		return false
	case errors.Is(err, ErrAway):
		return s.away.Load() == nil
	}
	return db.KindOf(err) == db.Busy || postgres.CodeOf(err) == noPart
}

// noPart is the code of an error: a row is in no part of its table, which another node may have dropped a moment ago.
const noPart = "23514"

// ofOne reports whether an error may be the fault of one write of several. For a lock that is not free all of them
// would wait as long again, each.
func ofOne(conn *postgres.Conn, err error) bool {
	return !conn.Lost() && db.KindOf(err) != db.ReadOnly && !postgres.LockTimedOut(err)
}

func (s *server) try(ops []*op) (did outcome, err error) {
	conn, err := s.writing()
	if err != nil {
		return outcome{}, err
	}
	if _, err = conn.Begin(); err == nil {
		err = conn.Run(writeLock)
	}
	if err != nil {
		return outcome{}, s.over(conn, errors.Join(err, conn.Rollback()))
	}
	before := conn.TotalChanges()
	t := &tx{Conn: conn, engine: s, clock: &s.clock, layout: serverLayout, counter: s.node.Load()}
	if did.results, err = runAll(t, ops, s.log); err != nil {
		did.alone = ofOne(conn, err)
		return did, s.over(conn, errors.Join(err, conn.Rollback()))
	}
	did.wrote = conn.TotalChanges() != before
	if err = conn.Commit(); conn.Lost() {
		err = s.resolve(s.over(conn, err))
	}
	return did, err
}

// writing returns the connection that writes, a new one where it is lost.
func (s *server) writing() (*postgres.Conn, error) {
	if s.conn != nil {
		if s.conn.Alive() {
			return s.conn, nil
		}
		s.conn.Close()
		s.conn = nil
	}
	if f := s.away.Load(); f != nil && time.Since(s.tried) < s.wait {
		return nil, f.error
	}
	conn, err := s.connect(context.Background())
	if err == nil && conn.Server().Standby {
		err = errors.Join(fmt.Errorf("%w: %s is a standby, or read-only", ErrAway, s.name), conn.Close())
	}
	if err != nil {
		s.gone(err)
		return nil, err
	}
	s.conn, s.wait = conn, 0
	if s.away.Swap(nil) != nil {
		s.log.Info("the database is back", "database", s.name)
	}
	return conn, nil
}

// gone notes that there is no connection, and when the next one is tried.
func (s *server) gone(err error) {
	s.tried = time.Now()
	s.wait = min(max(2*s.wait, reconnectAt), reconnectBy)
	s.wait += rand.N(s.wait / 4)
	if s.away.Swap(&failure{err}) == nil {
		s.log.Error("the database is away: it is tried again", "database", s.name, "err", err)
	}
}

// over lets go of a connection that an error has ended, or that may be to the wrong server, and returns the error.
func (s *server) over(conn *postgres.Conn, err error) error {
	switch db.KindOf(err) {
	case db.ReadOnly, db.Refused: // the next connection may find another server of the URL
	default:
		if !conn.Lost() {
			return err
		}
	}
	conn.Close()
	s.conn = nil
	return away(err)
}

// away says once that the database is away.
func away(err error) error {
	if errors.Is(err, ErrAway) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrAway, err)
}

// resolve finds out what became of a transaction whose commit had no answer: nil, or an error of it.
func (s *server) resolve(cause error) error {
	e, ok := errors.AsType[*postgres.Error](cause)
	if !ok || e.XID == (postgres.XID{}) {
		return fmt.Errorf("%w: %w", errDoubt, cause)
	}
	return s.settle(cause, func(conn *postgres.Conn) (postgres.Outcome, error) {
		what, err := conn.Outcome(e.XID)
		if what == postgres.InProgress {
			_ = conn.End(e.XID)
		}
		return what, err
	})
}

// confirm is a commit that changes nothing. Where a synchronous standby has it, it has all commits before: one may be
// there, and seen, but on the primary alone, if what ended the connection ended the wait for the standby.
const confirm = "UPDATE counter SET batch = batch WHERE k = 0"

// settle asks what became of a transaction until there is an answer.
func (s *server) settle(cause error, look func(*postgres.Conn) (postgres.Outcome, error)) error {
	for until := time.Now().Add(s.seek); time.Now().Before(until); time.Sleep(reconnectAt) {
		conn, err := s.writing()
		if err != nil {
			continue
		}
		what, err := look(conn)
		if err == nil && what == postgres.Committed {
			if err = conn.Run(confirm); err == nil {
				return nil
			}
		}
		switch {
		case err != nil:
			cause = s.over(conn, errors.Join(cause, err))
		case what == postgres.Aborted:
			return cause
		case what != postgres.InProgress:
			return fmt.Errorf("%w: %w", errDoubt, cause)
		}
	}
	return fmt.Errorf("%w: %w", errDoubt, cause)
}

// between implements transactor.
func (s *server) between() {}

// makeRoom implements transactor: that is for the server's administrator.
func (s *server) makeRoom() {}

// rest implements transactor: while the database is away no mail is taken, and nobody else would try again.
func (s *server) rest() (time.Duration, bool) { return s.wait, s.away.Load() != nil }

// tidy implements transactor.
func (s *server) tidy() { _, _ = s.writing() }

// partOf is the part of content that holds what is received at a time: an hour.
func partOf(n int64) int64 { return n / int64(time.Hour) }

// place implements engine: a partition by the hour.
func (s *server) place(conn db.Conn, received time.Time) (int64, error) {
	part := partOf(s.clock.nano(received))
	return part, s.makePart(conn, part)
}

func partTable(part int64) string { return fmt.Sprintf("content_%d", part) }

// makePart makes a part of content where it is missing. It is made beside the table and attached then, which waits for
// nobody who reads or writes.
func (s *server) makePart(conn db.Conn, part int64) error {
	table := partTable(part)
	there := func() (bool, error) {
		n, _, err := conn.Int("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND "+
			"tablename = convert_from(?, 'UTF8'::name)", table)
		return n > 0, err
	}
	if is, err := there(); is || err != nil {
		return err
	}
	if err := conn.Run(schemaLock); err != nil {
		return err
	}
	if is, err := there(); is || err != nil { // another node may have made it meanwhile
		return err
	}
	return conn.Exec(fmt.Sprintf("CREATE TABLE %s (LIKE content INCLUDING ALL); "+
		"ALTER TABLE content ATTACH PARTITION %s FOR VALUES IN (%d)", table, table, part))
}

// claim implements engine: a full disk is met when it is written to.
func (s *server) claim(db.Conn, int, int64) error { return nil }

// room implements engine.
func (s *server) room(context.Context) error {
	return reason(&s.ousted, &s.away, &s.silent)
}

// reason is the first of those why there is no database.
func reason(reasons ...*atomic.Pointer[failure]) error {
	for _, why := range reasons {
		if f := why.Load(); f != nil {
			return f.error
		}
	}
	return nil
}

// lack implements engine.
func (s *server) lack(context.Context) (int64, error) { return 0, nil }

// measure implements engine.
func (s *server) measure(ctx context.Context, r *Room) (err error) {
	r.File, err = s.size(ctx)
	return err
}

// size is that of the database, in octets.
func (s *server) size(ctx context.Context) (n int64, err error) {
	err = s.readers.read(ctx, func(conn db.Conn) error {
		n, _, err = conn.Int("SELECT pg_database_size(current_database())")
		return err
	})
	return n, err
}

// examine implements engine. Looking for damage is for pg_amcheck.
func (s *server) examine(ctx context.Context, h *Health) (err error) {
	h.File, err = s.size(context.WithoutCancel(ctx))
	return errors.Join(err, ctx.Err())
}
