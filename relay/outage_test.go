package relay

import (
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"postern/auth"
	"postern/internal/testkit"
	"postern/relay/queue"
	"postern/relay/trace"
)

// outage is a relay with degraded = "handoff" that can be cut off from its database.
type outage struct {
	*rig
	gate *testkit.Gate
}

func newOutage(t *testing.T, p *provider, extra string) *outage {
	t.Helper()
	pg := testkit.SharedPostgreSQL(t)
	gate := testkit.NewGate(t, pg.Address())
	o := &outage{newRigAt(t, p, gate.URL(pg.NewDatabase(t)), extra+"\n[store]\ndegraded = \"handoff\"\n"), gate}
	t.Cleanup(o.comeBack) // or the shutdown would miss it
	return o
}

// leave takes the database away, and waits until the relay knows.
func (o *outage) leave(how func(*testkit.Gate)) {
	o.t.Helper()
	how(o.gate)
	o.eventually("a database that is away", func() bool { return o.server.room.Away() != nil })
}

// comeBack gives the database back, and waits until the relay knows.
func (o *outage) comeBack() {
	o.t.Helper()
	o.gate.Pass()
	o.eventually("a database that is back", func() bool { return o.server.room.Full() == nil })
}

// login tries to log in anew.
func (o *outage) login(name, password string) error {
	o.t.Helper()
	c, err := smtp.DialStartTLS(o.server.Addresses()["submission"], o.tls())
	if err != nil {
		o.t.Fatal(err)
	}
	defer c.Close()
	return c.Auth(sasl.NewPlainClient("", name, password))
}

// refuse makes a provider answer MAIL with this while it is set.
func (p *provider) refuse(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onMail = func(string) error { return err }
}

// While the database is away, who was let in lately sends what the provider takes at once, and nothing else is taken;
// then all goes on by itself, and the trace knows what happened.
func TestHandOffWhileDatabaseIsAway(t *testing.T) {
	for name, how := range map[string]func(*testkit.Gate){
		"cut": (*testkit.Gate).Cut, "stalled": (*testkit.Gate).Stall,
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t)
			p.onRcpt = func(to string) error {
				if strings.HasPrefix(to, "nobody") {
					return refusal(550, smtp.EnhancedCode{5, 1, 1}, "no such user")
				}
				return nil
			}
			o := newOutage(t, p, "")
			o.adopts(func() { o.addUser(auth.User{Login: "bea@example.com"}) })
			open := o.client(rigLogin)
			if _, err := sendOn(open, rigLogin, []string{"bob@example.net"}, plainMessage); err != nil {
				t.Fatal(err)
			}
			o.leave(how)
			if err := o.server.ready(t.Context()); err != nil {
				t.Errorf("readyz: %v", err)
			}
			for what, try := range map[string]func() (string, error){
				"an open session": func() (string, error) {
					return sendOn(open, rigLogin, []string{"carl@example.net"}, plainMessage)
				},
				"a new session": func() (string, error) {
					return o.send(rigLogin, []string{"dora@example.net", "emil@example.net"}, plainMessage)
				},
			} {
				if reply, err := try(); err != nil || !strings.Contains(reply, "taken by provider") {
					t.Errorf("%s: %q, %v", what, reply, err)
				}
			}
			for who, want := range map[string]int{"bea@example.com": 454, "nobody@example.com": 454, rigLogin: 250} {
				if err := o.login(who, rigPassword); code(err) != want {
					t.Errorf("login of %s: %v, want %d", who, err, want)
				}
			}
			if err := o.login(rigLogin, "a guess"); code(err) != 454 {
				t.Errorf("a guess: %v", err)
			}
			refused := func(what string, want int, to ...string) {
				t.Helper()
				if _, err := o.send(rigLogin, to, plainMessage); code(err) != want {
					t.Errorf("%s: %v, want %d", what, err, want)
				}
			}
			refused("for one the provider refuses", 550, "nobody@example.net")
			refused("for one of two", 451, "fred@example.net", "nobody@example.net")
			p.refuse(refusal(451, smtp.EnhancedCode{4, 3, 0}, "not now"))
			refused("that the provider defers", 451, "gina@example.net")
			p.refuse(nil)
			if n := p.count(); n != 3 {
				t.Errorf("%d messages, want 3", n)
			}

			o.comeBack()
			if q := o.queued(); len(q) != 0 {
				t.Errorf("in the queue: %+v", q)
			}
			o.eventually("the login of somebody else", func() bool {
				return o.login("bea@example.com", rigPassword) == nil
			})
			p.refuse(refusal(451, smtp.EnhancedCode{4, 3, 0}, "not now"))
			o.eventually("mail that is queued", func() bool { // the limits are counted there within seconds
				reply, err := sendOn(open, rigLogin, []string{"hans@example.net"}, plainMessage)
				return err == nil && strings.Contains(reply, "queued as")
			})
			p.refuse(nil)
			if _, err := o.store().Retry(t.Context(), queue.Filter{}, time.Now()); err != nil {
				t.Fatal(err)
			}
			p.wait(4)
			o.eventually("an empty queue", func() bool { return len(o.queued()) == 0 })
			o.eventually("the deliveries in the trace", func() bool { // one of four messages has two recipients
				return len(o.events(trace.Delivered)) == 5
			})
			if n := p.count(); n != 4 {
				t.Errorf("%d messages at the end, want 4", n)
			}
		})
	}
}

// An account that was locked, removed or edited before the database went away does not get in.
func TestHandOffForgetsChangedAccounts(t *testing.T) {
	o := newOutage(t, newProvider(t), "")
	for _, login := range []string{"locked@example.com", "removed@example.com", "edited@example.com"} {
		o.adopts(func() { o.addUser(auth.User{Login: login}) })
		if err := o.login(login, rigPassword); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.login(rigLogin, rigPassword); err != nil {
		t.Fatal(err)
	}
	s := o.store()
	for login, change := range map[string]func(*auth.User){
		"locked@example.com": func(u *auth.User) { u.Locked, u.Changed = true, time.Now() },
		"edited@example.com": func(u *auth.User) { u.Senders = []string{"else@example.com"} },
	} {
		o.adopts(func() {
			if err := s.UpdateUser(t.Context(), login, func(u *auth.User) error { change(u); return nil }); err != nil {
				t.Fatal(err)
			}
		})
	}
	o.adopts(func() {
		if err := s.DeleteUser(t.Context(), "removed@example.com", nil); err != nil {
			t.Fatal(err)
		}
	})
	o.eventually("accounts that were read", func() bool { return !o.server.accounts.unread.Load() })
	o.leave((*testkit.Gate).Cut)
	for who, want := range map[string]int{"locked@example.com": 454, "removed@example.com": 454,
		"edited@example.com": 454, rigLogin: 250} {
		if err := o.login(who, rigPassword); code(err) != want {
			t.Errorf("login of %s: %v, want %d", who, err, want)
		}
	}
}

// A node lets pass its share of the limits alone, and what passed counts when the database is back.
func TestHandOffKeepsToLimits(t *testing.T) {
	p := newProvider(t)
	o := newOutage(t, p, "[[policy]]\nlimits = [\"20 messages/day\"]\n")
	c := o.client(rigLogin)
	send := func() error {
		_, err := sendOn(c, rigLogin, []string{"bob@example.net"}, plainMessage)
		return err
	}
	if err := send(); err != nil {
		t.Fatal(err)
	}
	o.leave((*testkit.Gate).Cut)
	for i, want := range []int{250, 250, 451, 451} { // a tenth
		if err := send(); code(err) != want {
			t.Errorf("message %d: %v, want %d", i, err, want)
		}
	}
	o.comeBack()
	passed := 3
	o.eventually("the refusal of the limit", func() bool {
		err := send()
		if err == nil {
			passed++
		}
		return err != nil && strings.Contains(err.Error(), "20 messages/day")
	})
	if n := p.count(); n != 20 || passed != 20 {
		t.Errorf("the provider has %d messages, %d were taken, and 20 a day are allowed", n, passed)
	}
}
