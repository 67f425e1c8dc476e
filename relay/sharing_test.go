package relay

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"postern/internal/testkit"
	"postern/relay/status"
	"postern/relay/upstream"
)

// leasedBy returns who has leased something of the account of a rig, or wishes for it.
func leasedBy(t *testing.T, database string) string {
	t.Helper()
	var all strings.Builder
	for _, row := range testkit.SQL(t, database, "SELECT convert_from(state, 'UTF8') FROM upstream_shared") {
		all.WriteString(row[0])
	}
	return all.String()
}

// windows counts what a provider takes within a span of time.
type windows struct {
	span time.Duration
	most int

	mu   sync.Mutex // guards what follows
	took []time.Time
	over int // messages that were too many
}

func (w *windows) take(received) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.took = append(w.took, now)
	for now.Sub(w.took[0]) >= w.span {
		w.took = w.took[1:]
	}
	if len(w.took) > w.most {
		w.over++
	}
	return nil
}

// Two nodes send as one account: in sum there are never more connections, nor messages within the window of the rate,
// than are allowed; not while they have other settings for a moment, and not while one of them ends.
func TestNodesKeepToOneAccount(t *testing.T) {
	t.Parallel()
	const connections, rate, each = 3, 10, 20
	w := &windows{span: 2 * time.Second, most: rate}
	p := newProvider(t)
	p.onData = w.take
	settings := fmt.Sprintf("listener:handoff = \"0s\"\nupstream:max_connections = %d\n"+
		"upstream:rate = [\"%d messages/%s\"]\n", connections, rate, w.span)
	const retry = "[delivery]\nretry = [\"1s\"]\n" // of what the end of a node breaks off
	a := newRigAt(t, p, testkit.SharedPostgreSQL(t).NewDatabase(t), settings+retry)
	b := a.beside("node-2", settings+retry)
	send := func(r *rig, n int) {
		t.Helper()
		c := r.client(rigLogin)
		defer c.Close()
		for range n {
			if _, err := sendOn(c, "anna@example.com", []string{"bob@example.net"}, plainMessage); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(a, each)
	send(b, each)
	p.wait(each / 2)
	a.write(settings + "upstream:max_message_size = \"20MB\"\n" + retry) // the upstream is another one
	if err := a.server.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.wait(each)
	for i, r := range []*rig{a, b} {
		if !strings.Contains(r.log.String(), "msg=delivered") {
			t.Errorf("node %d sent nothing", i+1)
		}
	}
	a.close() // its mail is the other one's
	if s := leasedBy(t, a.database); strings.Contains(s, "node-1/") || !strings.Contains(s, "node-2/") {
		t.Errorf("after the end of the first: %s", s)
	}
	p.wait(2 * each)
	b.eventually("an empty queue", func() bool { return len(b.queued()) == 0 })
	b.close()
	if s := leasedBy(t, a.database); strings.Contains(s, "node-") {
		t.Errorf("after the end of both: %s", s)
	}
	if n := p.count(); n != 2*each {
		t.Errorf("%d messages arrived, %d were sent", n, 2*each)
	}
	if n := p.fake.Counts().MostOpen; n > connections {
		t.Errorf("%d connections, %d are allowed", n, connections)
	}
	if w.over > 0 {
		t.Errorf("%d messages were more than %d within %s", w.over, rate, w.span)
	}
}

// What one node meets at the provider is what the other says, without a try of its own. Whoever changes what was wrong
// and reloads one node ends the pause of both.
func TestNodesShowOnePause(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	var mu sync.Mutex
	wrong, tries := true, 0
	p.onAuth = func(string, string) error {
		mu.Lock()
		defer mu.Unlock()
		if tries++; wrong {
			return refusal(535, smtp.EnhancedCode{5, 7, 8}, "wrong password")
		}
		return nil
	}
	const retry = "[delivery]\nretry = [\"1s\"]\n"
	a := newRigAt(t, p, testkit.SharedPostgreSQL(t).NewDatabase(t), retry)
	b := a.beside("node-2", retry)
	if _, err := a.send("anna@example.com", []string{"bob@example.net"}, plainMessage); err != nil {
		t.Fatal(err)
	}
	paused := func() bool { return b.asked().Upstreams[0].State == status.Paused }
	b.eventually("a pause at the other node", paused)
	id := b.asked().Upstreams[0].Identities[0]
	if id.Identity != "relay" || !strings.Contains(id.Reply, "535 5.7.8 wrong password") || id.Failures != 1 {
		t.Errorf("it says %+v", id)
	}
	if reply, err := b.send("anna@example.com", []string{"bob@example.net"}, plainMessage); err != nil ||
		!strings.Contains(reply, "queued as") {
		t.Errorf("mail at the other node: %q, %v", reply, err)
	}
	mu.Lock()
	if tries != 1 {
		t.Errorf("%d logins were tried", tries)
	}
	wrong = false
	mu.Unlock()

	b.write("upstream:max_message_size = \"20MB\"\n" + retry)
	if err := b.server.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.wait(2)
	a.eventually("no pause any more", func() bool {
		return a.server.state.Load().routes.Upstreams[0].States()[0].Status == upstream.Ready
	})
}

// A reload that is refused leaves nothing leased, however often it is tried.
func TestRefusedReloadLeasesNothing(t *testing.T) {
	t.Parallel()
	r := newRigAt(t, newProvider(t), testkit.SharedPostgreSQL(t).NewDatabase(t), "")
	taken := r.server.Addresses()["submission"]
	for n := range 3 {
		r.write(fmt.Sprintf("upstream:max_message_size = \"%dMB\"\n", 20+n) +
			"[[listener]]\nname = \"second\"\naddress = \"" + taken + "\"\n")
		if err := r.server.Reload(t.Context()); err == nil {
			t.Fatal("a listener at an address that is taken was opened")
		}
	}
	r.eventually("one that leases", func() bool { return strings.Count(leasedBy(t, r.database), `"id"`) == 1 })
}

// While the database is away, what is leased is used, and then nothing is sent: connections are closed, mail that was
// being sent stays, and what was not is kept. When it is back, all goes on by itself, and everything arrives once.
func TestDatabaseAwayForLong(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*testkit.Gate){
		"cut": (*testkit.Gate).Cut, "stalled": (*testkit.Gate).Stall,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pg := testkit.SharedPostgreSQL(t)
			gate := testkit.NewGate(t, pg.Address())
			p := newProvider(t)
			held, free := make(chan struct{}), make(chan struct{})
			var first atomic.Bool
			p.onAuth = func(string, string) error {
				if first.CompareAndSwap(false, true) {
					close(held)
					<-free
				}
				return nil
			}
			r := newRigAt(t, p, gate.URL(pg.NewDatabase(t)),
				"listener:handoff = \"0s\"\n[delivery]\nretry = [\"1s\"]\n")
			for range 2 {
				if _, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage); err != nil {
					t.Fatal(err)
				}
			}
			<-held
			p.wait(1) // the other one, with what was leased
			leave(gate)
			r.eventually("the end of the lease", func() bool {
				return strings.Contains(r.log.String(), "the lease of an upstream account has run out")
			})
			close(free)
			r.eventually("the end of all connections", func() bool { return p.fake.Counts().Open == 0 })
			if n := p.count(); n != 1 {
				t.Errorf("%d messages while the database is away", n)
			}
			connections := p.fake.Counts().Connections
			r.server.queue.Wake()
			if s, _ := r.server.state.Load().routes.Upstreams[0].Reserve(time.Now(), ""); s != nil {
				t.Error("there is a slot that is not leased")
			}
			if n := p.fake.Counts().Connections; n != connections {
				t.Errorf("%d connections more", n-connections)
			}
			gate.Pass()
			p.wait(2)
			r.eventually("an empty queue", func() bool { return len(r.queued()) == 0 })
			if n := p.count(); n != 2 {
				t.Errorf("%d messages arrived", n)
			}
		})
	}
}
