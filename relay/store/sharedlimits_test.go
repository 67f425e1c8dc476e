package store

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/mail"
	"postern/policy"
	"postern/policy/policytest"
	"postern/relay/store/internal/postgres"
)

// openServer returns how to ask a database of its own over n connections, as n nodes have them.
func openServer(t *testing.T, n int) askServer {
	return openTables(t, n, sharedTables+schemaSharedLimits)
}

// openTables is openServer with other tables.
func openTables(t *testing.T, n int, schema string) askServer {
	t.Helper()
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	conns := make(chan *postgres.Conn, n)
	for range n {
		c, err := postgres.Open(t.Context(), postgres.Config{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		conns <- c
	}
	c := <-conns
	if err := c.Exec(schema); err != nil {
		t.Fatal(err)
	}
	conns <- c
	return func(ctx context.Context, f func(*postgres.Conn) error) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := <-conns
		defer func() {
			if !c.Lost() {
				conns <- c
			}
		}()
		return f(c)
	}
}

const sharedTables = `
CREATE TABLE limit_state (
	login BLOB NOT NULL, lim BLOB NOT NULL, tokens REAL NOT NULL, at INTEGER NOT NULL,
	full_at INTEGER NOT NULL, PRIMARY KEY (login, lim));
CREATE INDEX limit_state_full ON limit_state (full_at);
CREATE TABLE known (login BLOB NOT NULL, addr BLOB NOT NULL, used INTEGER NOT NULL, PRIMARY KEY (login, addr));
CREATE INDEX known_login_used ON known (login, used);
CREATE INDEX known_used ON known (used);
CREATE TABLE known_count (login BLOB PRIMARY KEY, n INTEGER NOT NULL);
`

func TestSharedLimits(t *testing.T) {
	once(t)
	policytest.RunSharedLimits(t, func(t *testing.T, now func() time.Time) policy.SharedLimits {
		s := newSharedLimits(openServer(t, 4), 1_000_000)
		s.at = func() int64 { return now().UnixNano() }
		return s
	})
	for name, test := range map[string]func(*testing.T){
		"by the clock of the server":      testSharedLimitsByTheServersClock,
		"recipients in bounds":            testSharedLimitsKeepRecipientsInBounds,
		"two nodes":                       testSharedLimitsOfTwoNodes,
		"while recipients are forgotten":  testSharedLimitsWhileRecipientsAreForgotten,
		"while a login is deleted":        testSharedLimitsWhileALoginIsDeleted,
		"a connection that ends too soon": testSharedLimitsLost,
	} {
		t.Run(name, test)
	}
}

// testSharedLimitsWhileALoginIsDeleted: who deletes a login's limits takes its lock first, and nobody waits for ever.
func testSharedLimitsWhileALoginIsDeleted(t *testing.T) {
	ask := openServer(t, 3)
	s := newSharedLimits(ask, 1_000_000)
	one := []policy.Demand{{Login: "anna", Recipients: []string{"a", "b"}, Charges: []policy.Charge{
		{Limit: parsed(t, "10 messages/day"), N: 1}, {Limit: parsed(t, "20 messages/week"), N: 1},
		{Limit: parsed(t, "5 new recipients/day")}}}}
	var wg sync.WaitGroup
	var done atomic.Bool
	wg.Go(func() {
		for !done.Load() {
			if _, err := s.CountLimits(context.Background(), one); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 100 {
		err := ask(t.Context(), func(conn *postgres.Conn) error {
			for _, query := range []string{"BEGIN IMMEDIATE", "SELECT limit_lock(ARRAY['anna'::bytea])",
				"DELETE FROM limit_state WHERE login = 'anna'", "DELETE FROM known WHERE login = 'anna'",
				"DELETE FROM known_count WHERE login = 'anna'", "COMMIT"} {
				if err := conn.Run(query); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	done.Store(true)
	wg.Wait()
}

func parsed(t *testing.T, text string) policy.Limit {
	t.Helper()
	l, err := policy.ParseLimit(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// numbers runs a query of one row of numbers.
func numbers(t *testing.T, ask askServer, columns int, query string, args ...any) (all []int64) {
	t.Helper()
	err := ask(t.Context(), func(conn *postgres.Conn) error {
		for row, err := range conn.Rows(query, args...) {
			if err != nil {
				return err
			}
			for i := range columns {
				all = append(all, row.Int(i))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// testSharedLimitsByTheServersClock: what is kept reads as with SQLite.
func testSharedLimitsByTheServersClock(t *testing.T) {
	ask := openServer(t, 2)
	s := newSharedLimits(ask, 1000)
	ten := parsed(t, "10 messages/hour")
	seven := []policy.Demand{{Login: "anna", Charges: []policy.Charge{{Limit: ten, N: 7}}}}
	before := time.Now()
	got, err := s.CountLimits(t.Context(), seven)
	if err != nil || !got[0].OK || got[0].Full[0] != 42*time.Minute {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := s.DropFullLimits(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := numbers(t, ask, 3, "SELECT tokens::bigint, at, full_at FROM limit_state WHERE login = 'anna' AND lim = "+
		"'10 messages/hour'")
	if len(n) != 3 || n[0] != 3 || n[2] != n[1]+int64(42*time.Minute) || fromNano(n[1]).Before(before.Truncate(
		time.Microsecond)) || fromNano(n[1]).After(time.Now()) {
		t.Fatalf("state: %v", n)
	}
	left := ten.LeftOf(policy.State{Tokens: float64(n[0]), At: fromNano(n[1]), Full: fromNano(n[2])}, fromNano(n[1]))
	if left.Left != 3 || left.Used != 7 {
		t.Errorf("left: %+v", left)
	}
	got, err = s.CountLimits(t.Context(), seven)
	if err != nil || got[0].OK || got[0].Wait > 24*time.Minute || got[0].Wait < 23*time.Minute {
		t.Errorf("again: %+v, %v", got, err)
	}
	numbers(t, ask, 0, "UPDATE limit_state SET full_at = at - 1")
	if err := s.DropFullLimits(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := numbers(t, ask, 1, "SELECT count(*) FROM limit_state"); n[0] != 0 {
		t.Errorf("%d full limits are kept", n[0])
	}
}

// testSharedLimitsKeepRecipientsInBounds: those used last are kept, and their number is known.
func testSharedLimitsKeepRecipientsInBounds(t *testing.T) {
	ask := openServer(t, 1)
	s := newSharedLimits(ask, 10)
	at := time.Now()
	s.at = func() int64 { return at.UnixNano() }
	fresh := policy.Charge{Limit: parsed(t, "100 new recipients/second")}
	to := func(from, to int) int64 {
		d := policy.Demand{Login: "anna", Charges: []policy.Charge{fresh}}
		for i := from; i < to; i++ {
			d.Recipients = append(d.Recipients, strconv.Itoa(i))
		}
		at = at.Add(25 * time.Hour)
		got, err := s.CountLimits(t.Context(), []policy.Demand{d})
		if err != nil || !got[0].OK {
			t.Fatalf("%+v, %v", got, err)
		}
		return got[0].New
	}
	for _, c := range []struct {
		from, to  int
		new, kept int64
	}{{0, 8, 8, 8}, {0, 3, 0, 8}, {8, 13, 5, 10}, {0, 3, 0, 10}, {6, 7, 0, 10}, {3, 4, 1, 10}, {100, 150, 50, 10}} {
		if n := to(c.from, c.to); n != c.new {
			t.Errorf("%+v: %d new", c, n)
		}
		n := numbers(t, ask, 2, "SELECT n, (SELECT count(*) FROM known) FROM known_count WHERE login = 'anna'")
		if n[0] != c.kept || n[1] != c.kept {
			t.Errorf("%+v: %d counted, %d kept", c, n[0], n[1])
		}
	}
}

// testSharedLimitsOfTwoNodes: two limiters on connections of their own, each asked by many at once.
func testSharedLimitsOfTwoNodes(t *testing.T) {
	ask := openServer(t, 3)
	limits := []policy.Limit{parsed(t, "200 messages/day"), parsed(t, "100 new recipients/day"), parsed(t, "2GB/day")}
	var passed, refunded atomic.Int64
	var wg sync.WaitGroup
	for node := range 2 {
		l := policy.NewSharedLimiter(newSharedLimits(ask, 1_000_000), policy.SharedOptions{}, time.Now(), nil)
		for g := range 10 {
			wg.Go(func() {
				for i := range 20 {
					v, err := l.Take(t.Context(), time.Now(), "anna", limits, policy.Usage{Messages: 1, Bytes: 1000,
						Recipients: []mail.Address{{Local: strconv.Itoa((node + g + i) % 50), Domain: "example.com"}}})
					switch {
					case err != nil:
						t.Error(err)
					case v.OK && i%7 == 0:
						v.Refund()
						refunded.Add(1)
					case v.OK:
						passed.Add(1)
					}
				}
			})
		}
	}
	wg.Wait()
	l := policy.NewSharedLimiter(newSharedLimits(ask, 1_000_000), policy.SharedOptions{}, time.Now(), nil)
	for {
		v, err := l.Take(t.Context(), time.Now(), "anna", limits[:1], policy.Usage{Messages: 1})
		if err != nil {
			t.Fatal(err)
		}
		if !v.OK {
			break
		}
		passed.Add(1)
	}
	if n := passed.Load(); n != 200 || refunded.Load() == 0 {
		t.Errorf("%d passed and %d were given back, want 200 and some", n, refunded.Load())
	}
}

// testSharedLimitsWhileRecipientsAreForgotten: who writes to somebody who is being forgotten waits for nobody for ever.
func testSharedLimitsWhileRecipientsAreForgotten(t *testing.T) {
	ask := openServer(t, 3)
	s := newSharedLimits(ask, 1_000_000)
	at := time.Now()
	s.at = func() int64 { return at.UnixNano() }
	d := policy.Demand{Login: "anna", Recipients: []string{"a", "b", "c"},
		Charges: []policy.Charge{{Limit: parsed(t, "100 new recipients/day")}}}
	if _, err := s.CountLimits(t.Context(), []policy.Demand{d}); err != nil {
		t.Fatal(err)
	}
	at = at.Add(48 * time.Hour)
	d.Recipients = append(d.Recipients, "d")
	counted := make(chan error, 1)
	err := ask(t.Context(), func(conn *postgres.Conn) error {
		for _, query := range []string{"BEGIN IMMEDIATE", "DELETE FROM known WHERE addr = 'b'",
			"UPDATE known_count SET n = n - 1 WHERE login = 'anna'"} {
			if err := conn.Run(query); err != nil {
				return err
			}
		}
		go func() {
			_, err := s.CountLimits(t.Context(), []policy.Demand{d})
			counted <- err
		}()
		for waits := int64(0); waits == 0; { // until it waits for the number
			waits = numbers(t, ask, 1, "SELECT count(*) FROM pg_locks WHERE NOT granted")[0]
		}
		return errors.Join(conn.Run("DELETE FROM known WHERE addr = 'a'"),
			conn.Run("UPDATE known_count SET n = n - 1 WHERE login = 'anna'"), conn.Run("COMMIT"))
	})
	if err = errors.Join(err, <-counted); err != nil {
		t.Fatal(err)
	}
	if n := numbers(t, ask, 2, "SELECT n, (SELECT count(*) FROM known) FROM known_count"); n[0] != 2 || n[1] != 2 {
		t.Errorf("%d counted, %d kept, want 2", n[0], n[1])
	}
}

// testSharedLimitsLost: when the connection ends before the answer, nobody knows whether it was counted.
func testSharedLimitsLost(t *testing.T) {
	ask := openServer(t, 3)
	s := newSharedLimits(ask, 1_000_000)
	one := []policy.Demand{{Login: "anna", Charges: []policy.Charge{{Limit: parsed(t, "1 message/day"), N: 1}}}}
	counted := make(chan error, 1)
	err := ask(t.Context(), func(conn *postgres.Conn) error {
		err := errors.Join(conn.Run("BEGIN IMMEDIATE"), conn.Run("SELECT limit_lock(ARRAY['anna'::bytea])"))
		if err != nil {
			return err
		}
		go func() {
			_, err := s.CountLimits(t.Context(), one)
			counted <- err
		}()
		for ended := int64(0); ended == 0; {
			ended = numbers(t, ask, 1, "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE NOT granted")[0]
		}
		return conn.Run("ROLLBACK")
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-counted; !errors.Is(err, policy.ErrUnsure) {
		t.Errorf("the connection was lost: %v", err)
	}
	if got, err := s.CountLimits(t.Context(), one); err != nil || !got[0].OK {
		t.Errorf("afterwards: %+v, %v", got, err)
	}
	numbers(t, ask, 0, "DROP FUNCTION count_limits")
	if _, err := s.CountLimits(t.Context(), one); err == nil || errors.Is(err, policy.ErrUnsure) {
		t.Errorf("a statement that was refused: %v", err)
	}
	nobody := newSharedLimits(func(context.Context, func(*postgres.Conn) error) error { return io.EOF }, 1)
	if _, err := nobody.CountLimits(t.Context(), one); !errors.Is(err, io.EOF) || errors.Is(err, policy.ErrUnsure) {
		t.Errorf("no connection: %v", err)
	}
}
