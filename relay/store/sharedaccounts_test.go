package store

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/relay/store/internal/postgres"
	"postern/relay/upstream"
	"postern/relay/upstream/account"
	"postern/relay/upstream/account/accounttest"
)

func TestSharedAccounts(t *testing.T) {
	once(t)
	accounttest.Run(t, func(t *testing.T) (a, b account.Shared) {
		ask := openTables(t, 4, schemaSharedAccounts)
		return &SharedAccounts{ask}, &SharedAccounts{ask}
	})
	t.Run("forgotten", testSharedAccountsForgotten)
	t.Run("lost", testSharedAccountsLost)
	t.Run("one statement", testSharedAccountsOneStatement)
	t.Run("two nodes", testSharedAccountsOfTwoNodes)
}

// swap1 replaces one row, or looks.
func swap1(t *testing.T, s *SharedAccounts, name string, version int64, state string, forget int64) account.Answer {
	t.Helper()
	answers, _, err := s.Swap(t.Context(), []account.Row{{Upstream: "up", Account: name, Version: version,
		State: []byte(state), Forget: forget}})
	if err != nil {
		t.Fatal(err)
	}
	return answers[0]
}

// testSharedAccountsForgotten: a row goes a day after its time, and what replaces it is never taken for it.
func testSharedAccountsForgotten(t *testing.T) {
	s := &SharedAccounts{openTables(t, 2, schemaSharedAccounts)}
	now, day := time.Now().UnixNano(), int64(24*time.Hour)
	old := swap1(t, s, "old", 0, "x", now-day-int64(time.Minute))
	swap1(t, s, "kept", 0, "x", now-day+int64(time.Hour))
	swap1(t, s, "future", 0, "x", now+day)
	if more, err := s.Forget(t.Context()); more || err != nil {
		t.Error(more, err)
	}
	if a := swap1(t, s, "kept", 0, "", 0); a.Version == 0 {
		t.Error("a row was forgotten too soon")
	}
	if a := swap1(t, s, "old", old.Version, "", 0); a.Version != 0 {
		t.Errorf("a row is still there: %+v", a)
	}
	if a := swap1(t, s, "old", 0, "y", now); !a.Swapped || a.Version <= old.Version {
		t.Errorf("version %d after %d: %+v", a.Version, old.Version, a)
	}
	for i := range forgetAtOnce + 1 {
		swap1(t, s, fmt.Sprint(i), 0, "x", 1)
	}
	for _, want := range []bool{true, false} {
		if more, err := s.Forget(t.Context()); more != want || err != nil {
			t.Errorf("more %v, want %v, %v", more, want, err)
		}
	}
}

// testSharedAccountsLost: an answer that does not come is an error, and the row is as it was or as it was to be.
func testSharedAccountsLost(t *testing.T) {
	ask := openTables(t, 3, schemaSharedAccounts)
	s := &SharedAccounts{ask}
	first := swap1(t, s, "x", 0, "one", 1)
	err := ask(t.Context(), func(conn *postgres.Conn) error {
		pid, _, err := conn.Int("SELECT pg_backend_pid()")
		if err != nil {
			return err
		}
		if err := ask(t.Context(), func(other *postgres.Conn) error {
			return other.Run("SELECT pg_terminate_backend(?::int)", pid)
		}); err != nil {
			return err
		}
		broken := &SharedAccounts{func(_ context.Context, f func(*postgres.Conn) error) error { return f(conn) }}
		_, _, err = broken.Swap(t.Context(), []account.Row{{Upstream: "up", Account: "x", Version: first.Version,
			State: []byte("two"), Forget: 1}})
		if err == nil {
			t.Error("no error from a connection that was ended")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if a := swap1(t, s, "x", first.Version, "three", 1); !a.Swapped && string(a.State) != "two" {
		t.Errorf("%+v", a)
	}
}

// testSharedAccountsOneStatement: all accounts of a node are one statement, and looking writes nothing.
func testSharedAccountsOneStatement(t *testing.T) {
	ask := openTables(t, 1, schemaSharedAccounts)
	var rows []account.Row
	for i := range 500 {
		rows = append(rows, account.Row{Upstream: "up", Account: fmt.Sprint(i), State: []byte("x"), Forget: 1})
	}
	asked := 0
	counted := &SharedAccounts{func(ctx context.Context, f func(*postgres.Conn) error) error {
		asked++
		return ask(ctx, f)
	}}
	answers, _, err := counted.Swap(t.Context(), rows)
	if err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		if !answers[i].Swapped {
			t.Fatalf("row %d was not made", i)
		}
		rows[i].Version, rows[i].State = answers[i].Version, nil
	}
	locked := func() (n int64) {
		if err := ask(t.Context(), func(conn *postgres.Conn) (err error) {
			n, _, err = conn.Int("SELECT count(*) FROM upstream_shared WHERE xmax <> 0::text::xid")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if _, _, err := counted.Swap(t.Context(), rows); err != nil || asked != 2 {
		t.Errorf("asked %d times, %v", asked, err)
	}
	if n := locked(); n != 0 {
		t.Errorf("looking has locked %d rows", n)
	}
}

// noConnections is what a protocol without connections has for an account.
type noConnections struct{}

func (noConnections) Connections() (idle, closing int) { return 0, 0 }
func (noConnections) Blank() bool                      { return true }
func (noConnections) Shed(int)                         {}

// testSharedAccountsOfTwoNodes: two nodes that send as fast as they can never have more slots than one may have, and
// both get on. When they end nothing is left that a third would have to wait for.
func testSharedAccountsOfTwoNodes(t *testing.T) {
	shared := &SharedAccounts{openTables(t, 2, schemaSharedAccounts)}
	var open atomic.Int64
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b"} {
		wg.Go(func() { sendAsNode(t, shared, name, &open) })
	}
	wg.Wait()
	state := string(swap1(t, shared, "office@example.com", 0, "", 0).State)
	if !strings.Contains(state, "cells") || strings.Contains(state, "holders") ||
		strings.Contains(state, `parts":{"`) {
		t.Errorf("what is left: %s", state)
	}
}

// sendAsNode sends a hundred messages as one of two nodes that may send two hundred in an hour, three at once.
func sendAsNode(t *testing.T, shared account.Shared, name string, open *atomic.Int64) {
	const slots, each = 3, 100
	log := slog.New(slog.DiscardHandler)
	sharing := account.NewSharing(shared, name, log)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	wg.Go(func() { sharing.Run(ctx) })
	set := &upstream.Settings{Name: "up", Username: "office@example.com", MaxConnections: slots, MaxRecipients: 1,
		Jitter: func() float64 { return 0.5 },
		Rates:  []upstream.Rate{{Count: 2 * each, Unit: upstream.Messages, Per: time.Hour}}}
	table := account.New(set, account.Options{Sharing: sharing, Log: log},
		func() noConnections { return noConnections{} })
	changed := make(chan struct{}, 1)
	table.OnChange(func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	for sent := 0; sent < each; {
		s, until := table.Reserve(time.Now(), "", nil)
		switch {
		case !until.IsZero():
			t.Errorf("node %s waits until %v", name, until)
			return
		case s == nil:
			<-changed
			continue
		}
		if n := open.Add(1); n > slots {
			t.Errorf("%d slots are used", n)
		}
		s.Charge(1)
		s.Record(account.News{Verdict: account.Works})
		open.Add(-1)
		s.Release(nil)
		sent++
	}
	table.Shut()
	if err := table.Wait(ctx); err != nil {
		t.Error(err)
	}
}
