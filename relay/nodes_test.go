package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"postern/internal/testkit"
	"postern/relay/alert"
	relaystore "postern/relay/store"
)

// Two nodes at one database take mail and hand it off. One of them does what only one is to do.
func TestTwoNodes(t *testing.T) {
	p := newProvider(t)
	a := newRigAt(t, p, testkit.SharedPostgreSQL(t).NewDatabase(t), "")
	b := a.beside("node-2", "")
	for i, r := range []*rig{a, b} {
		reply, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage)
		if err != nil || !strings.Contains(reply, "taken by") {
			t.Errorf("node %d: %q, %v", i+1, reply, err)
		}
	}
	p.wait(2)
	a.eventually("the other one", func() bool { _, of := a.server.store.Share(); return of == 2 })
	a.eventually("one that leads", func() bool { return a.server.store.Leads() != b.server.store.Leads() })
	a.close()
	b.eventually("another one that leads", b.server.store.Leads)
	if _, err := b.send("anna@example.com", []string{"bob@example.net"}, plainMessage); err != nil {
		t.Errorf("after the end of the first: %v", err)
	}
}

// The leading node makes the next part of the trace before its time comes.
func TestTraceIsPrepared(t *testing.T) {
	if onPostgreSQL() {
		t.Skip("it is run once")
	}
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	r := newRigAt(t, newProvider(t), url, "")
	const parts = "SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'event'::regclass"
	until := time.Now().Add(time.Minute).UnixNano()
	// With the lock of who makes parts: one for now, in place of all.
	testkit.SQL(t, url, fmt.Sprintf(`SELECT pg_advisory_xact_lock(1347638350, 2);
		DO $$ DECLARE part text; BEGIN
			FOR part IN %s LOOP EXECUTE 'DROP TABLE ' || part; END LOOP;
		END $$;
		CREATE TABLE event_0_%d PARTITION OF event FOR VALUES FROM (MINVALUE) TO (%[2]d)`, parts, until))
	r.eventually("a part behind that of now", func() bool {
		all := fmt.Sprint(testkit.SQL(t, url, parts))
		return strings.Contains(all, fmt.Sprintf("event_%d_", until))
	})
}

// A node that is drained takes no connections and is not ready, also after a restart; when it is not drained any more,
// it takes them again.
func TestDrainedNode(t *testing.T) {
	p := newProvider(t)
	a := newRigAt(t, p, testkit.SharedPostgreSQL(t).NewDatabase(t), "")
	b := a.beside("node-2", "")
	drain := func(on bool) {
		t.Helper()
		if err := a.store().DrainNode(t.Context(), "node-2", on); err != nil {
			t.Fatal(err)
		}
	}
	c := b.client(rigLogin)
	if err := c.Mail("anna@example.com", nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Rcpt("bob@example.net", nil); err != nil {
		t.Fatal(err)
	}
	address := b.server.Addresses()["submission"]
	drain(true)
	b.eventually("closed listeners", func() bool { return len(b.server.Addresses()) == 0 })
	b.eventually("the end of accepting", func() bool { return !answers(address) })
	if err := b.server.ready(t.Context()); !errors.Is(err, errDrained) {
		t.Errorf("readyz: %v", err)
	}
	if w, err := c.Data(); err != nil { // the transaction under way ends
		t.Errorf("DATA: %v", err)
	} else if _, err := w.Write([]byte("Subject: last\r\n\r\none\r\n")); err != nil || w.Close() != nil {
		t.Errorf("the message under way: %v", err)
	}
	p.wait(1)
	if _, err := a.send("anna@example.com", []string{"bob@example.net"}, plainMessage); err != nil {
		t.Errorf("the other node: %v", err)
	}
	if err := b.server.Reload(t.Context()); err != nil || len(b.server.Addresses()) > 0 {
		t.Errorf("a reload: %v, it listens at %q", err, b.server.Addresses())
	}
	b.close()
	b.start()
	if n := len(b.server.Addresses()); n > 0 {
		t.Errorf("after a restart %d listeners", n)
	}

	drain(false)
	b.eventually("open listeners", func() bool { return len(b.server.Addresses()) == 1 })
	b.eventually("a node that is ready", func() bool { return b.server.ready(t.Context()) == nil })
	if _, err := b.send("anna@example.com", []string{"bob@example.net"}, plainMessage); err != nil {
		t.Errorf("not drained any more: %v", err)
	}
}

func answers(address string) bool {
	conn, err := net.Dial("tcp", address)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// A node that another process has taken over from ends with the reason.
func TestOustedNodeEnds(t *testing.T) {
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	r := newRigAt(t, newProvider(t), url, "")
	testkit.SQL(t, url, "UPDATE node SET boot = 'another'")
	select {
	case err := <-r.done:
		if r.stop = nil; !errors.Is(err, relaystore.ErrNodeName) || !strings.Contains(err.Error(), "node-1") {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(patience):
		t.Error("it does not end")
	}
}

// Nodes whose settings differ say so, once.
func TestSettingsOfNodesDiffer(t *testing.T) {
	a := newRigAt(t, newProvider(t), testkit.SharedPostgreSQL(t).NewDatabase(t), "")
	b := a.beside("node-2", "listener: max_recipients = 7")
	const said = "other nodes have other settings"
	for _, r := range []*rig{a, b} {
		r.eventually("a word of it", func() bool { return strings.Contains(r.log.String(), said) })
	}
	b.write("")
	if err := b.server.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.eventually("equal settings", func() bool { return len(a.server.store.Differ()) == 0 })
	if n := strings.Count(a.log.String(), said); n != 1 {
		t.Errorf("it was said %d times", n)
	}
}

// Work of the leader ends when the term does, and begins anew with the next one.
func TestWorkOfALeader(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var leads atomic.Bool
	began, ended := make(chan bool), make(chan bool)
	go func() {
		defer close(ended)
		workWhile(ctx, leads.Load, time.Millisecond, func(term context.Context) {
			began <- true
			<-term.Done()
			ended <- true
		})
	}()
	for range 2 {
		leads.Store(true)
		<-began
		leads.Store(false)
		<-ended
	}
	cancel()
	if _, more := <-ended; more {
		t.Error("it works though nothing holds")
	}
}

// Both nodes meet a provider that refuses the login. The hook hears of it from one of them.
func TestNodesTellAnAlertOnce(t *testing.T) {
	hook, p := newReceiver(t), newProvider(t)
	p.onAuth = func(string, string) error { return refusal(535, smtp.EnhancedCode{5, 7, 8}, "wrong") }
	a := newRigAt(t, p, testkit.SharedPostgreSQL(t).NewDatabase(t), hook.block())
	b := a.beside("node-2", hook.block())
	const subject = "upstream provider as relay"
	if _, err := a.send(rigLogin, []string{"b@example.net"}, plainMessage); err != nil {
		t.Fatal(err)
	}
	hook.wait(a, alert.UpstreamPaused, subject, 1)
	if _, err := b.send(rigLogin, []string{"b@example.net"}, plainMessage); err != nil {
		t.Fatal(err)
	}
	b.eventually("one to leave the hook to the other, and one the journal", func() bool {
		return strings.Count(a.log.String()+b.log.String(), "alert told by another node") >= 2
	})
	if all := hook.about(alert.UpstreamPaused, subject); len(all) != 1 {
		t.Errorf("told %d times: %+v", len(all), all)
	}
	alerts, err := a.store().Alerts(t.Context(), relaystore.AlertQuery{Limit: 10})
	if err != nil || len(alerts) != 1 {
		t.Errorf("the journal: %+v, %v", alerts, err)
	}
}
