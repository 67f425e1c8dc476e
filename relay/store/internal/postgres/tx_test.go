//go:build unix

package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/relay/store/internal/db"
)

// wire carries octets between one connection and the server, until it is told to keep some back.
type wire struct {
	addr string

	mu       sync.Mutex
	requests bool // guarded by mu; kept back
	answers  bool // guarded by mu; kept back
	client   net.Conn
	server   net.Conn
	kept     chan struct{} // has one when something was kept back
	answered int           // guarded by mu; times that an answer was passed on
}

func newWire(t *testing.T, s *testServer) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	w := &wire{addr: l.Addr().String(), kept: make(chan struct{}, 1)}
	var wg sync.WaitGroup
	wg.Go(func() {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
		if err != nil {
			client.Close()
			return
		}
		w.mu.Lock()
		w.client, w.server = client, server
		w.mu.Unlock()
		wg.Go(func() { w.carry(server, client, &w.requests) })
		w.carry(client, server, &w.answers)
	})
	t.Cleanup(func() {
		l.Close()
		w.cut()
		w.mu.Lock()
		if w.server != nil {
			w.server.Close()
		}
		w.mu.Unlock()
		wg.Wait()
	})
	return w
}

func (w *wire) carry(to, from net.Conn, keep *bool) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		w.mu.Lock()
		kept := *keep
		w.mu.Unlock()
		if kept {
			select {
			case w.kept <- struct{}{}:
			default:
			}
			continue
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
		if keep == &w.answers {
			w.mu.Lock()
			w.answered++
			w.mu.Unlock()
		}
	}
}

func (w *wire) answersPassed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.answered
}

func (w *wire) keep(what *bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*what = true
}

// cut ends the connection for the client; the server does not notice.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.client != nil {
		w.client.Close()
	}
}

func (w *wire) url() string { return "postgres://postgres@" + w.addr + "/postgres?sslmode=disable" }

func outcome(t *testing.T, c *Conn, x XID, want Outcome) {
	t.Helper()
	for range 2000 {
		got, err := c.Outcome(x)
		must(t, err)
		if got == want {
			return
		}
		if got != InProgress {
			t.Fatalf("outcome %d, want %d", got, want)
		}
		must(t, c.Run("SELECT pg_sleep(0.005)"))
	}
	t.Fatal("it stays in progress")
}

func lostXID(t *testing.T, err error) XID {
	t.Helper()
	wantKind(t, err, db.Gone)
	e, _ := errors.AsType[*Error](err)
	if e.XID.ID == 0 {
		t.Fatalf("without the number of its transaction: %v", err)
	}
	return e.XID
}

// The connection is lost anywhere in an answer: what was said up to there counts.
func TestAnswerCutShort(t *testing.T) {
	gate := testkit.NewGate(t, fmt.Sprintf("127.0.0.1:%d", server(t).port))
	url := gate.URL(server(t).url())
	calls := []Call{{"SELECT 1, 'one'::text", nil}, {"SELECT 2", nil}}
	named := 0
	for octets := 1; ; octets += 5 {
		c := open(t, Config{URL: url})
		_, err := c.Pipeline(t.Context(), calls) // they are prepared then
		must(t, err)
		cut := gate.CutAfter(testkit.ToClient, octets)
		_, err = c.Pipeline(t.Context(), calls)
		if err == nil {
			gate.Pass()
			break
		}
		<-cut
		if e, ok := errors.AsType[*Error](err); !ok || e.kind != db.Gone {
			t.Fatalf("cut after %d octets: %v", octets, err)
		} else if e.XID.ID != 0 {
			named++
		}
		must(t, c.Close())
	}
	if named == 0 {
		t.Error("the number of the transaction was never heard: the test proves nothing")
	}
}

// The answer to a commit is lost: what became of it can be known.
func TestLostCommit(t *testing.T) {
	each(t, func(t *testing.T, other *Conn) {
		table(t, other, "lost", "n INTEGER NOT NULL")
		begin := func() (*wire, *Conn) {
			w := newWire(t, server(t))
			c := open(t, Config{URL: w.url()})
			return w, c
		}
		t.Run("answer", func(t *testing.T) {
			w, c := begin()
			xid, err := c.Begin()
			must(t, err)
			must(t, c.Run("INSERT INTO lost VALUES (1)"))
			outcome(t, other, xid, InProgress)
			w.keep(&w.answers)
			done := make(chan error, 1)
			go func() { done <- c.Commit() }()
			<-w.kept
			w.cut()
			x := lostXID(t, <-done)
			if x != xid || !c.Lost() || c.InTransaction() {
				t.Errorf("%v, not %v", x, xid)
			}
			outcome(t, other, x, Committed)
			if count(t, other, "SELECT count(*) FROM lost WHERE n = 1") != 1 {
				t.Error("it is not there")
			}
		})
		t.Run("request", func(t *testing.T) {
			w, c := begin()
			_, err := c.Begin()
			must(t, err)
			must(t, c.Run("INSERT INTO lost VALUES (2)"))
			w.keep(&w.requests)
			done := make(chan error, 1)
			go func() { done <- c.Commit() }()
			<-w.kept
			w.cut()
			x := lostXID(t, <-done)
			outcome(t, other, x, InProgress) // the server waits for the client
			must(t, other.End(x))
			outcome(t, other, x, Aborted)
			if count(t, other, "SELECT count(*) FROM lost WHERE n = 2") != 0 {
				t.Error("it is there")
			}
			must(t, other.End(x))
		})
		t.Run("pipeline", func(t *testing.T) {
			w, c := begin()
			// the number of the transaction arrives before its end
			must(t, other.Run("BEGIN IMMEDIATE"))
			must(t, other.Run("LOCK TABLE lost"))
			passed := w.answersPassed()
			done := make(chan error, 1)
			go func() {
				_, err := c.Pipeline(t.Context(), []Call{{"INSERT INTO lost VALUES (3)", nil}})
				done <- err
			}()
			waitFor(t, other, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'::text")
			for w.answersPassed() == passed {
				must(t, other.Run("SELECT pg_sleep(0.001)"))
			}
			w.keep(&w.answers)
			must(t, other.Commit())
			<-w.kept
			w.cut()
			outcome(t, other, lostXID(t, <-done), Committed)
			if count(t, other, "SELECT count(*) FROM lost WHERE n = 3") != 1 {
				t.Error("it is not there")
			}
		})
	})
}

func TestOutcomeOfOthers(t *testing.T) {
	c := open(t, Config{})
	xid, err := c.Begin()
	must(t, err)
	must(t, c.Rollback())
	outcome(t, c, xid, Aborted)
	outcome(t, c, XID{}, Unknown)
	outcome(t, c, XID{ID: 1 << 50, Timeline: xid.Timeline}, Unknown) // of a server that had more transactions
	// On the timeline of a promoted standby the number may be that of another transaction.
	outcome(t, c, XID{ID: xid.ID, Timeline: "0000FFFF"}, Unknown)
}

// A server that is silent does not hold us for longer than a statement takes.
func TestSilence(t *testing.T) {
	for _, commit := range []bool{false, true} {
		w := newWire(t, server(t))
		c := open(t, Config{URL: w.url(), StatementTimeout: 50 * time.Millisecond})
		c.run.link.grace = 50 * time.Millisecond
		_, err := c.Begin()
		must(t, err)
		w.keep(&w.answers)
		if commit {
			lostXID(t, c.Commit())
		} else {
			wantKind(t, c.Run("SELECT 1"), db.Gone)
		}
		if !c.Lost() {
			t.Error("the connection is not lost")
		}
	}
}

// Where the request to cancel does not get through either, the connection is given up.
func TestInterruptOfSilence(t *testing.T) {
	w := newWire(t, server(t)) // takes one connection only
	c := open(t, Config{URL: w.url(), StatementTimeout: time.Hour})
	c.run.link.grace = 50 * time.Millisecond
	w.keep(&w.answers)
	done := make(chan error, 1)
	go func() { done <- c.Run("SELECT 1") }()
	<-w.kept
	c.Interrupt()
	wantKind(t, <-done, db.Interrupted)
	if !c.Lost() {
		t.Error("the connection is not lost")
	}
}

// A commit whose wait for the standby was canceled is not confirmed: only the primary has it.
func TestCommitWithoutStandby(t *testing.T) {
	dir := tempDir(t)
	s := newServer(t, dir, "synchronous_standby_names=ghost")
	t.Cleanup(s.stop)
	watcher := open(t, Config{URL: s.url()})
	if watcher.Server().Standbys != "ghost" {
		t.Errorf("%+v", watcher.Server())
	}
	must(t, watcher.Exec("SET synchronous_commit = local"))
	table(t, watcher, "ghostly", "n INTEGER NOT NULL")
	for name, run := range map[string]func(*Conn) error{
		"Commit": func(c *Conn) error {
			_, err := c.Begin()
			must(t, err)
			must(t, c.Run("INSERT INTO ghostly VALUES (1)"))
			return c.Commit()
		},
		"Run": func(c *Conn) error { return c.Run("INSERT INTO ghostly VALUES (1)") },
		"Pipeline": func(c *Conn) error {
			_, err := c.Pipeline(t.Context(), []Call{{"INSERT INTO ghostly VALUES (1)", nil}})
			return err
		},
		"Exec": func(c *Conn) error { return c.Exec("INSERT INTO ghostly VALUES (1)") },
	} {
		c := open(t, Config{URL: s.url()})
		done := make(chan error, 1)
		go func() { done <- run(c) }()
		waitFor(t, watcher, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'::text")
		if name == "Commit" || name == "Pipeline" {
			c.Interrupt() // does not reach a commit
			if count(t, watcher, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'::text") != 1 {
				t.Error("the commit was interrupted")
			}
		}
		must(t, watcher.Run("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'::text"))
		if err := <-done; err == nil || db.KindOf(err) != db.Other || !strings.Contains(err.Error(), "standby") {
			t.Errorf("%s: %v", name, err)
		}
		must(t, c.Run("SELECT 1"))
	}
}

// A standby is found out at once, and what it cannot do is said.
func TestStandby(t *testing.T) {
	primary := newServer(t, tempDir(t))
	t.Cleanup(primary.stop)
	dir := tempDir(t)
	standby := &testServer{dir: dir, as: primary.as}
	primary.own(t, dir)
	standby.command(t, "pg_basebackup", "-D", dir+"/data", "-R", "-X", "stream", "-d", primary.url())
	standby.start(t)
	t.Cleanup(standby.stop)
	p := open(t, Config{URL: primary.url()})
	table(t, p, "pair", "n INTEGER NOT NULL")
	x, err := p.Begin()
	must(t, err)
	must(t, p.Run("INSERT INTO pair VALUES (1)"))
	must(t, p.Commit())

	c := open(t, Config{URL: standby.url()})
	waitFor(t, c, "SELECT count(*) FROM pg_class WHERE relname = 'pair'::name")
	if !c.Server().Standby {
		t.Error("it is a standby")
	}
	wantKind(t, c.Run("INSERT INTO pair VALUES (1)"), db.ReadOnly)
	_, err = c.Begin()
	wantKind(t, err, db.ReadOnly)
	if c.InTransaction() {
		t.Error("a transaction is open")
	}
	_, err = c.Outcome(x)
	wantKind(t, err, db.ReadOnly)

	several := fmt.Sprintf("postgres://postgres@127.0.0.1:%d,127.0.0.1:%d/postgres?sslmode=disable", standby.port,
		primary.port)
	if open(t, Config{URL: several}).Server().Standby {
		t.Error("of two hosts the standby was taken")
	}
	must(t, c.Run("SELECT pg_promote()"))
	primary.halt(9)
	n := open(t, Config{URL: several})
	outcome(t, n, x, Unknown) // the timeline is another
	must(t, n.Run("INSERT INTO pair VALUES (2)"))
	_, err = Open(t.Context(), Config{URL: primary.url()})
	wantKind(t, err, db.Gone)
	wantKind(t, p.Run("SELECT 1"), db.Gone)
}

// Many connections at once, of which none disturbs another.
func TestManyConnections(t *testing.T) {
	setup := open(t, Config{})
	table(t, setup, "counted", "k INTEGER PRIMARY KEY, n INTEGER NOT NULL")
	must(t, setup.Run("INSERT INTO counted VALUES (1, 0)"))
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for range 8 {
		wg.Go(func() {
			c, err := Open(context.WithoutCancel(t.Context()), Config{URL: server(t).url()})
			if err != nil {
				errs <- err
				return
			}
			defer c.Close()
			for range 50 {
				if _, err := c.Pipeline(t.Context(), []Call{{"UPDATE counted SET n = n + ? WHERE k = 1", []any{1}},
					{"UPDATE counted SET n = n + ? WHERE k = 1", []any{1}}}); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if n := count(t, setup, "SELECT n FROM counted"); n != 800 {
		t.Errorf("%d", n)
	}
}
