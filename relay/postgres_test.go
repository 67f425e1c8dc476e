package relay

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"postern/auth"
	"postern/internal/testkit"
	"postern/relay/queue"
	"postern/relay/trace"
)

// The main job with a store at PostgreSQL: mail that is handed off, that waits, that is tried again, that comes back,
// and that is there after a restart; what commands see and do; and what they change of accounts.
func TestOnPostgreSQL(t *testing.T) {
	p := newProvider(t)
	var down bool // guarded by p.mu
	setDown := func(v bool) { p.mu.Lock(); defer p.mu.Unlock(); down = v }
	p.onMail = func(string) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if down {
			return refusal(451, smtp.EnhancedCode{4, 3, 0}, "not now")
		}
		return nil
	}
	p.onRcpt = func(to string) error {
		if to == "nobody@example.net" {
			return refusal(550, smtp.EnhancedCode{5, 1, 1}, "no such user")
		}
		return nil
	}
	r := newRigAt(t, p, testkit.SharedPostgreSQL(t).NewDatabase(t), "")
	send := func(to ...string) string {
		reply, err := r.send("anna@example.com", to, plainMessage)
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	if reply := send("bob@example.net"); !strings.Contains(reply, "taken by") {
		t.Errorf("handed off: %q", reply)
	}
	send("carol@example.net", "nobody@example.net") // one is refused, and reported
	if got := p.wait(3); got[2].from != "" || got[2].to[0] != "anna@example.com" {
		t.Errorf("the report: %+v", got[2])
	}

	// Mail that waits is seen by commands, survives a restart, and leaves.
	setDown(true)
	if reply := send("dave@example.net"); !strings.Contains(reply, "queued as") {
		t.Errorf("queued: %q", reply)
	}
	send("erin@example.net")
	r.eventually("two that wait", func() bool { return len(r.queued()) == 2 })
	waits := r.queued()
	s := r.store()
	if n, err := s.Hold(t.Context(), queue.Filter{IDs: []string{waits[1].ID}}, "looks odd"); n != 1 || err != nil {
		t.Fatalf("hold: %d, %v", n, err)
	}
	r.close()
	setDown(false)
	r.start()
	if _, err := s.Retry(t.Context(), queue.Filter{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := p.wait(4); got[3].to[0] != waits[0].Recipients[0].To.String() {
		t.Errorf("after the restart: %+v, first waited %+v", got[3], waits[0])
	}
	r.eventually("the held one alone", func() bool { q := r.queued(); return len(q) == 1 && q[0].Held })
	if _, err := s.Release(t.Context(), queue.Filter{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	p.wait(5)
	r.eventually("an empty queue", func() bool { return len(r.queued()) == 0 })
	if n := p.count(); n != 5 {
		t.Errorf("%d messages", n)
	}
	if !s.AwaitEvents(t.Context()) {
		t.Error("the daemon did not write down what it saw")
	}
	all, err := s.Events(t.Context(), trace.Query{Kinds: []trace.Kind{trace.Delivered}})
	if err != nil || len(all) < 5 {
		t.Errorf("%d deliveries in the trace, %v", len(all), err)
	}

	// An account that a command makes is known, and one that it locks is not any more.
	r.adopts(func() { r.addUser(auth.User{Login: "bea@example.com"}) })
	c := r.client("bea@example.com")
	r.adopts(func() {
		if err := s.UpdateUser(t.Context(), "bea@example.com", func(u *auth.User) error {
			u.Locked = true
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := sendOn(c, "bea@example.com", []string{"bob@example.net"}, plainMessage); code(err) != 421 {
		t.Errorf("a locked account: %v", err)
	}
}

// While the database is away, clients are told to come back, and whoever balances load is told; then all goes on by
// itself.
func TestDatabaseAway(t *testing.T) {
	for name, leave := range map[string]func(*testkit.Gate){
		"cut": (*testkit.Gate).Cut, "stalled": (*testkit.Gate).Stall,
	} {
		t.Run(name, func(t *testing.T) {
			pg := testkit.SharedPostgreSQL(t)
			gate := testkit.NewGate(t, pg.Address())
			p := newProvider(t)
			r := newRigAt(t, p, gate.URL(pg.NewDatabase(t)), "")
			c := r.client(rigLogin)
			leave(gate)
			r.eventually("one that is not ready", func() bool { return r.server.ready(t.Context()) != nil })
			err := c.Mail("anna@example.com", nil)
			if e, ok := errors.AsType[*smtp.SMTPError](err); !ok || e.Code != 451 ||
				e.EnhancedCode != (smtp.EnhancedCode{4, 3, 0}) || !strings.Contains(e.Message, "try again later") {
				t.Errorf("MAIL while it is away: %v", err)
			}
			if err := r.server.ready(t.Context()); err == nil || !strings.Contains(err.Error(), "away") {
				t.Errorf("readyz: %v", err)
			}
			gate.Pass()
			r.eventually("one that is ready", func() bool { return r.server.ready(t.Context()) == nil })
			if _, err := sendOn(c, "anna@example.com", []string{"bob@example.net"}, plainMessage); err != nil {
				t.Errorf("the same session afterwards: %v", err)
			}
			p.wait(1)
			for _, line := range []string{"no new mail is taken", "new mail is taken again"} {
				if n := strings.Count(r.log.String(), line); n != 1 {
					t.Errorf("%q was said %d times", line, n)
				}
			}
		})
	}
}

// A node that takes over presents the self-signed certificate that the one before presented: clients were told to trust
// it.
func TestNodesPresentOneCertificate(t *testing.T) {
	r := newRigAt(t, newProvider(t), testkit.SharedPostgreSQL(t).NewDatabase(t), "")
	first := r.server.certs.Info()[0]
	r.close()
	if err := os.RemoveAll(filepath.Join(r.dir, "data", "tls")); err != nil { // as in another data directory
		t.Fatal(err)
	}
	r.start()
	if second := r.server.certs.Info()[0]; !second.SelfSigned || second.Fingerprint != first.Fingerprint {
		t.Errorf("%s, and %s before", second.Fingerprint, first.Fingerprint)
	}
}
