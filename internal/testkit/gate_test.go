//go:build unix

package testkit

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// gated is a database with a table, and a gate before it.
func gated(t *testing.T) (*Gate, kept, string) {
	t.Helper()
	pg := SharedPostgreSQL(t)
	database := pg.NewDatabase(t)
	k := kept{t, func() string { return database }}
	SQL(t, database, "CREATE TABLE kept (v text)")
	g := NewGate(t, pg.Address())
	return g, k, g.URL(database)
}

func TestGateCountsRoundTrips(t *testing.T) {
	t.Parallel()
	g, k, url := gated(t)
	conn := connect(t, url)
	if g.RoundTrips() != 0 || g.Connections() != 1 {
		t.Errorf("after the login: %d round trips, %d connections", g.RoundTrips(), g.Connections())
	}
	ctx := t.Context()
	insert := "INSERT INTO kept VALUES ($1)"
	param := func(v string) [][]byte { return [][]byte{[]byte(v)} }
	var before int
	for _, tt := range []struct {
		name     string
		do       func() error
		trips    int
		requests []string
	}{
		{"simple, of three statements", func() error {
			return do(t, conn, "BEGIN; INSERT INTO kept VALUES ('a'); COMMIT")
		}, 1, []string{"BEGIN; INSERT INTO kept VALUES ('a'); COMMIT"}},
		{"prepare", func() error {
			_, err := conn.Prepare(ctx, "s", insert, nil)
			return err
		}, 1, []string{"PREPARE " + insert}},
		{"prepared", func() error { return conn.ExecPrepared(ctx, "s", param("b"), nil, nil).Read().Err }, 1,
			[]string{insert}},
		{"with parameters", func() error { return conn.ExecParams(ctx, insert, param("c"), nil, nil, nil).Read().Err },
			1, []string{insert}},
		{"a batch", func() error {
			b := new(pgconn.Batch)
			b.ExecParams("BEGIN", nil, nil, nil, nil)
			b.ExecPrepared("s", param("d"), nil, nil)
			b.ExecPrepared("s", param("e"), nil, nil)
			b.ExecParams("COMMIT", nil, nil, nil, nil)
			_, err := conn.ExecBatch(ctx, b).ReadAll()
			return err
		}, 1, []string{"BEGIN; " + insert + "; " + insert + "; COMMIT"}},
		{"a transaction step by step", func() error {
			return errors.Join(do(t, conn, "BEGIN"), do(t, conn, "SELECT 1"), do(t, conn, "COMMIT"))
		}, 3, []string{"BEGIN", "SELECT 1", "COMMIT"}},
		{"much each way", func() error {
			return conn.ExecParams(ctx, "SELECT $1 || $1", param(strings.Repeat("x", 1<<20)), nil, nil, nil).Read().Err
		}, 1, []string{"SELECT $1 || $1"}},
		{"an error", func() error {
			if err := do(t, conn, "SELECT 1/0"); err == nil {
				return errors.New("no error")
			}
			return nil
		}, 1, []string{"SELECT 1/0"}},
		{"copy", func() error {
			_, err := conn.CopyFrom(ctx, strings.NewReader("f\ng\n"), "COPY kept FROM STDIN")
			return err
		}, 1, []string{"COPY kept FROM STDIN"}},
	} {
		if err := tt.do(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if n := g.RoundTrips() - before; n != tt.trips {
			t.Errorf("%s: %d round trips, want %d", tt.name, n, tt.trips)
		}
		if r := g.Requests()[before:]; !slices.Equal(r, tt.requests) {
			t.Errorf("%s: requests %q, want %q", tt.name, r, tt.requests)
		}
		before = g.RoundTrips()
	}
	k.want("a", "b", "c", "d", "e", "f", "g")

	t.Run("of pgx, which prepares what it does not know", func(t *testing.T) {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		for _, want := range []int{2, 1, 1} {
			before := g.RoundTrips()
			if _, err := conn.Exec(ctx, insert, "h"); err != nil {
				t.Fatal(err)
			}
			if n := g.RoundTrips() - before; n != want {
				t.Errorf("%d round trips, want %d", n, want)
			}
		}
	})
	for range keepRequests {
		if err := do(t, conn, ""); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(g.Requests()); n > keepRequests {
		t.Errorf("keeps %d requests", n)
	}
}

func TestGateFollowsNothingEncrypted(t *testing.T) {
	t.Parallel()
	pg := PostgreSQL(t)
	g := NewGate(t, pg.Address())
	probe := &recorder{TB: t}
	g.t = probe
	encryption := func(mode string) string { return strings.Replace(g.URL(pg.URL()), "sslmode=disable", mode, 1) }
	counts := func() bool {
		probe.failed = false
		probe.run(func() { g.RoundTrips() })
		return !probe.failed
	}
	if err := do(t, connect(t, encryption("sslmode=prefer")), "SELECT 1"); err != nil || !counts() {
		t.Errorf("refused encryption: %v, counts: %t", err, counts())
	}
	ca := NewCA(t)
	pg.ServeTLS(ca.Leaf(LeafOptions{}))
	conn := connect(t, encryption("sslmode=verify-full&sslrootcert="+ca.File))
	if err := do(t, conn, "SELECT repeat('x', 100000)"); err != nil || counts() {
		t.Errorf("encrypted: %v, counts: %t", err, counts())
	}
	if _, err := pgconn.Connect(t.Context(), encryption("sslmode=verify-full&sslrootcert="+NewCA(t).File)); err == nil {
		t.Error("another authority's certificate is taken")
	}
}

func TestGateStalls(t *testing.T) {
	t.Parallel()
	g, k, url := gated(t)
	conn, leaves := connect(t, url), connect(t, url)
	g.Stall()
	done := make(chan error, 2)
	go func() { done <- do(t, conn, "INSERT INTO kept VALUES ('a')") }()
	go func() { // a new one is let in, and waits
		late, err := pgconn.Connect(t.Context(), url)
		if err == nil {
			err = late.Close(t.Context())
		}
		done <- err
	}()
	eventually(t, "not both have come", func() bool { return g.Connections() == 3 && g.RoundTrips() == 1 })
	leaves.Conn().Close()
	k.want()
	select {
	case err := <-done:
		t.Errorf("went through: %v", err)
	default:
	}
	g.Pass()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	k.want("a")

	g.Stall()
	go func() { done <- do(t, conn, "INSERT INTO kept VALUES ('b')") }()
	eventually(t, "nothing has come", func() bool { return g.RoundTrips() == 2 })
	g.Cut() // what was held is lost
	if err := <-done; err == nil {
		t.Error("went through")
	}
	g.Pass()
	k.want("a")
}

func TestGateCuts(t *testing.T) {
	t.Parallel()
	g, k, url := gated(t)
	conn := connect(t, url)
	g.Cut()
	if err := do(t, conn, "INSERT INTO kept VALUES ('a')"); err == nil {
		t.Error("the connection lives")
	}
	if _, err := net.Dial("tcp", g.Address()); err == nil {
		t.Error("it takes a new one")
	}
	g.Pass()
	if err := do(t, connect(t, url), "INSERT INTO kept VALUES ('b')"); err != nil {
		t.Error(err)
	}
	k.want("b")
}

func TestGateCutsInAMessage(t *testing.T) {
	t.Parallel()
	g, k, url := gated(t)
	insert := "INSERT INTO kept VALUES ('a')"
	whole := 1 + 4 + len(insert) + 1 // a Query
	for n := range whole {
		conn := connect(t, url)
		cut := g.CutAfter(ToServer, n)
		if err := do(t, conn, insert); err == nil {
			t.Errorf("went through after %d octets", n)
		}
		<-cut
	}
	k.want()
	conn := connect(t, url)
	cut := g.CutAfter(ToServer, whole)
	if err := do(t, conn, insert); err == nil {
		t.Error("an answer came through")
	}
	<-cut

	conn = connect(t, url)
	cut = g.CutAfter(ToClient, 1000)
	result := conn.ExecParams(t.Context(), "SELECT repeat('x', 100) FROM generate_series(1, 100)", nil, nil, nil, nil)
	rows := 0
	for result.NextRow() {
		rows++
	}
	if _, err := result.Close(); err == nil || rows == 0 || rows >= 10 {
		t.Errorf("%d rows of 100 octets came whole, of 1000 octets: %v", rows, err)
	}
	<-cut
	if err := do(t, connect(t, url), "SELECT 1"); err != nil {
		t.Errorf("after the cut: %v", err)
	}
}

func TestGateLosesAnswers(t *testing.T) {
	t.Parallel()
	g, k, url := gated(t)
	insert := func(conn *pgconn.PgConn, v string) error {
		return conn.ExecPrepared(t.Context(), "s", [][]byte{[]byte(v)}, nil, nil).Read().Err
	}
	first, second := connect(t, url), connect(t, url)
	for _, conn := range []*pgconn.PgConn{first, second} {
		if _, err := conn.Prepare(t.Context(), "s", "INSERT INTO kept VALUES ($1)", nil); err != nil {
			t.Fatal(err)
		}
	}
	lost := g.LoseAnswer("INSERT INTO kept")
	if err := do(t, first, "SELECT 1"); err != nil {
		t.Errorf("an answer to something else: %v", err)
	}
	err := insert(first, "a")
	if pgErr := new(pgconn.PgError); err == nil || errors.As(err, &pgErr) {
		t.Errorf("an answer: %v", err)
	}
	<-lost
	k.want("a")
	if err := insert(second, "b"); err != nil {
		t.Errorf("the second answer: %v", err)
	}
	k.want("a", "b")

	lost = g.LoseAnswer("")
	if err := do(t, second, "SELECT repeat('x', 1000000)"); err == nil {
		t.Error("an answer")
	}
	<-lost
	g.LoseAnswer("")
	g.Pass()
	if err := do(t, connect(t, url), fmt.Sprint("SELECT ", 1)); err != nil {
		t.Error(err)
	}
}
