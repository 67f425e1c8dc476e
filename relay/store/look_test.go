package store

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/relay/store/internal/db"
	"postern/relay/store/internal/postgres"
)

// stalling is a store at a server that can be made silent. Its statements may take an hour, so that whoever waits for
// one of them fails the test.
type stalling struct {
	*Store
	t    *testing.T
	e    *server
	gate *testkit.Gate
}

func newStall(t *testing.T) *stalling {
	t.Helper()
	once(t)
	pg := testkit.SharedPostgreSQL(t)
	gate := testkit.NewGate(t, pg.Address())
	o := ofServer(t, gate.URL(pg.NewDatabase(t)), "a", true)
	o.limits = limits{statement: time.Hour, look: 200 * time.Millisecond}
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	l := &stalling{s, t, s.engine.(*server), gate}
	t.Cleanup(func() {
		gate.Cut() // what waits, ends
		if err := s.Close(); err != nil && !errors.Is(err, ErrAway) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v", err)
		}
	})
	return l
}

// noticed fails the test unless the outage is noticed, and those who come then are told at once.
func (l *stalling) noticed() {
	l.t.Helper()
	looked := make(chan error, 1)
	go func() { looked <- l.Writable() }()
	select {
	case err := <-looked:
		if !errors.Is(err, ErrAway) {
			l.t.Fatalf("the database is silent, and a look says: %v", err)
		}
	case <-time.After(time.Minute):
		l.t.Fatal("a look at a database that is silent does not end")
	}
	if err := l.Add(l.t.Context(), small("new")); !errors.Is(err, ErrAway) {
		l.t.Errorf("Add: %v", err)
	}
	if err := l.e.ask(l.t.Context(), nil); !errors.Is(err, ErrAway) {
		l.t.Errorf("a client's question: %v", err)
	}
}

// A database that falls silent is noticed by a look, whatever is under way, and however long that takes.
func TestSilenceIsNoticed(t *testing.T) {
	for name, begin := range map[string]func(*stalling) (end func()){
		"idle": func(l *stalling) func() {
			if err := l.Writable(); err != nil {
				l.t.Fatal(err)
			}
			l.gate.Stall()
			return func() {}
		},
		"connecting": func(l *stalling) func() { // nobody has looked before
			l.gate.Stall()
			return func() {}
		},
		"before the end of an answer": func(l *stalling) func() {
			err := l.e.looking.read(l.t.Context(), func(conn db.Conn) error {
				for _, err := range conn.Rows("SELECT n FROM generate_series(1, 100000) AS n") {
					l.gate.Stall()
					return err
				}
				return nil
			})
			if err != nil {
				l.t.Fatal(err)
			}
			return func() {}
		},
		"all wait": func(l *stalling) func() {
			l.gate.Stall()
			var all sync.WaitGroup
			ctx, cancel := context.WithCancel(l.t.Context())
			for range 20 {
				all.Go(func() { _ = l.Add(ctx, small("")) })
				all.Go(func() { _, _ = l.Stats(ctx) })
				all.Go(func() { _ = l.e.ask(ctx, func(conn *postgres.Conn) error { return conn.Run("SELECT 1") }) })
			}
			return func() {
				cancel()
				l.gate.Cut()
				all.Wait()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newStall(t)
			defer begin(l)()
			l.noticed()
		})
	}
}

// One that answers again is not away.
func TestSilenceEnds(t *testing.T) {
	l := newStall(t)
	if err := l.Writable(); err != nil {
		t.Fatal(err)
	}
	l.gate.Stall()
	l.noticed()
	l.gate.Pass()
	l.e.look = time.Minute
	if err := l.Writable(); err != nil {
		t.Fatal(err)
	}
	if err := l.Add(t.Context(), small("new")); err != nil {
		t.Error(err)
	}
}

// A database in which all wait for others is slow, and not away: a look waits for none of them.
func TestSlowIsNotSilent(t *testing.T) {
	l := newStall(t)
	l.e.look = time.Minute
	var taken []db.Conn
	for range maxReaders {
		taken = append(taken, <-l.readers.free)
	}
	defer func() {
		for _, conn := range taken {
			l.readers.free <- conn
		}
	}()
	held, ended := make(chan struct{}), make(chan error, 1)
	release := make(chan struct{})
	go func() { // a write that does not end holds the lock of all writes
		ended <- l.write(t.Context(), func(*tx) error {
			close(held)
			<-release
			return nil
		})
	}()
	<-held
	if err := l.Writable(); err != nil {
		t.Error(err)
	}
	close(release)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// tellingConn tells of interrupts.
type tellingConn struct {
	db.Conn
	tells chan struct{}
}

func (c tellingConn) Interrupt() {
	c.Conn.Interrupt()
	select {
	case c.tells <- struct{}{}:
	default:
	}
}

// An interrupt that comes between two statements ends the next one.
func TestInterruptBetweenStatements(t *testing.T) {
	l := newStall(t)
	err := l.readers.read(t.Context(), func(conn db.Conn) error {
		ctx, cancel := context.WithCancel(t.Context())
		c := tellingConn{conn, make(chan struct{}, 1)}
		defer interruptOn(ctx, c)()
		cancel()
		<-c.tells // that one hit nothing
		return conn.Run("SELECT pg_sleep(100)")
	})
	if db.KindOf(err) != db.Interrupted {
		t.Error(err)
	}
}

// What others meet while a look is under way counts, or new mail would be taken for a moment between two refusals.
func TestLookHearsOfOthers(t *testing.T) {
	l := newStall(t)
	met := &failure{away(errors.New("the connection was lost"))}
	if err := l.e.looking.close(); err != nil {
		t.Fatal(err)
	}
	l.e.looking = newReaders(func(ctx context.Context) (db.Conn, error) {
		l.e.away.Store(met)
		return l.e.looker(ctx)
	}, l.e.snapshot(), 1)
	if err := l.Writable(); err != met.error {
		t.Errorf("a look says %v", err)
	}
	l.e.away.Store(nil)
	if err := l.Writable(); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}
