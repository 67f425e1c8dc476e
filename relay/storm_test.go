package relay

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"

	"postern/auth"
	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/alert"
	"postern/relay/config"
	"postern/relay/queue"
	"postern/relay/trace"
	"postern/relay/upstream"
)

// strange refuses everything, in words that no rule knows and that are never the same, until it is over.
type strange struct {
	mu   sync.Mutex
	n    int
	over bool
}

func (s *strange) refuse(received) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil
	}
	s.n++
	return refusal(554, smtp.EnhancedCode{5, 0, 0}, fmt.Sprintf("the wind blows from the north today, ref %x-%d",
		s.n*7919, s.n))
}

func (s *strange) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
}

const office = 6

func colleague(n int) string { return fmt.Sprintf("user%d@example.com", n%office) }

// newStormRig is an office at a provider.
func newStormRig(t *testing.T, p *provider, extra string) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), provider: p, log: &testkit.Log{}}
	r.write(extra)
	for n := range office {
		r.addUser(auth.User{Login: colleague(n)})
	}
	r.start()
	t.Cleanup(r.close)
	return r
}

// sendAll submits messages of all colleagues, one after the other, and returns those that were refused and those that
// were not.
func (r *rig) sendAll(count int) (refused, taken []string) {
	r.t.Helper()
	for n := range count {
		c := r.client(colleague(n))
		subject := fmt.Sprintf("message-%d.", n)
		_, err := sendOn(c, colleague(n), []string{fmt.Sprintf("b@customer%d.example", n%7)},
			"From: "+colleague(n)+"\nSubject: "+subject+"\n\nhello\n")
		c.Close()
		switch code(err) {
		case 250:
			taken = append(taken, subject)
		case 554, 550:
			refused = append(refused, subject)
		default:
			r.t.Fatal(err)
		}
	}
	return refused, taken
}

// arrived says how often each subject did.
func (p *provider) arrived(subjects []string) map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	count := make(map[string]int)
	for _, m := range p.messages {
		for _, s := range subjects {
			if strings.Contains(m.data, "Subject: "+s) {
				count[s]++
			}
		}
	}
	return count
}

// The provider blocks the account in unknown words: at most five messages are refused, all others are kept, the
// identity pauses, and the alert has the rule to write. When the block is over every message that was kept arrives,
// once.
func TestAnUnknownBlockCostsFiveBounces(t *testing.T) {
	t.Parallel()
	hook, p, block := newReceiver(t), newProvider(t), &strange{}
	p.onData = block.refuse
	const retry = "[delivery]\nretry = [\"1s\"]\n"
	r := newStormRig(t, p, retry+hook.block())
	refused, taken := r.sendAll(30)
	if len(refused) > 5 || len(refused) == 0 || len(refused)+len(taken) != 30 {
		t.Fatalf("%d refused, %d taken", len(refused), len(taken))
	}
	d := hook.wait(r, alert.UpstreamPaused, "upstream provider as relay", 1)
	rule := d.Details["rule"]
	for _, want := range []string{"the wind blows from the north", "[[upstream.rule]]", `class = "account-fault"`,
		"the.*wind.*blows", `named "provider"`} {
		if !strings.Contains(d.Summary, want) || strings.Count(d.Text, want) == 0 {
			t.Errorf("the alert lacks %q: %s", want, d.Text)
		}
	}
	kept := r.events(trace.Deferred)
	if e := kept[0]; e.Rule != upstream.RuleStorm || e.Class != mail.AccountFault.String() ||
		!strings.Contains(e.Detail, "not believed") || e.Reply.Code != 554 {
		t.Errorf("the trace says %+v", e)
	}
	if n := len(r.events(trace.Failed)); n != len(refused) {
		t.Errorf("%d failed in the trace, %d were refused", n, len(refused))
	}

	// The rule of the alert is one that relay.toml takes, and nothing fails by it.
	r.write("upstream:max_connections = 7\n" + strings.ReplaceAll("\n"+rule, "\n", "\nupstream:") + "\n" + retry +
		hook.block())
	if _, err := config.Load(r.path()); err != nil {
		t.Errorf("%v\n%s", err, rule)
	}
	block.end()
	if err := r.server.Reload(t.Context()); err != nil { // a changed upstream is tried at once
		t.Fatal(err)
	}
	p.wait(len(taken))
	s := r.store()
	r.eventually("an empty queue", func() bool {
		left, err := s.List(t.Context(), queue.Filter{})
		return err == nil && len(left) == 0
	})
	for subject, n := range p.arrived(append(taken, refused...)) {
		if n != 1 {
			t.Errorf("%s arrived %d times", subject, n)
		}
	}
	if n := len(p.arrived(taken)); n != len(taken) || p.count() != len(taken) {
		t.Errorf("%d of %d arrived, %d messages in all", n, len(taken), p.count())
	}
	if d = hook.wait(r, alert.UpstreamPaused, "upstream provider as relay", 2); !d.Resolved {
		t.Errorf("told again: %+v", d)
	}
}

// The same where every message is queued first: no more than five reports of failure are made.
func TestAnUnknownBlockOfTheQueueCostsFiveReports(t *testing.T) {
	t.Parallel()
	p, block := newProvider(t), &strange{}
	p.onData = block.refuse
	r := newStormRig(t, p, "listener:handoff = \"0s\"\n")
	if refused, _ := r.sendAll(30); len(refused) > 0 {
		t.Fatalf("%d refused", len(refused))
	}
	r.eventually("a pause", func() bool {
		return r.server.state.Load().routes.Upstreams[0].States()[0].Status == upstream.Paused
	})
	s := r.store()
	var kept, failed int
	r.eventually("an end of all attempts", func() bool {
		left, err := s.List(t.Context(), queue.Filter{})
		kept, failed = 0, 0
		for _, m := range left {
			if m.Login != "" { // no report
				kept++
			}
		}
		for _, e := range r.events(trace.Failed) {
			if e.Login != "" {
				failed++
			}
		}
		return err == nil && r.server.state.Load().routes.Upstreams[0].States()[0].InUse == 0 && kept+failed == 30
	})
	if kept < 25 {
		t.Errorf("only %d of 30 are kept", kept)
	}
}

// A person says that the messages are to blame after all, by a rule: what was kept goes back.
func TestARuleSendsBackWhatWasKept(t *testing.T) {
	t.Parallel()
	p, block := newProvider(t), &strange{}
	p.onData = block.refuse
	const retry = "[delivery]\nretry = [\"1s\"]\n"
	r := newStormRig(t, p, retry)
	_, taken := r.sendAll(10)
	r.write("upstream:[[upstream.rule]]\nupstream:name = \"mine\"\nupstream:stages = [\"dot\"]\nupstream:text = " +
		"\"wind\"\nupstream:class = \"message-fault\"\n" + retry)
	if err := r.server.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.eventually("reports about all that was kept", func() bool {
		failed := 0
		for _, e := range r.events(trace.Failed) {
			if e.Rule == "mine" && e.Login != "" {
				failed++
			}
		}
		return failed == len(taken)
	})
	if len(taken) < 5 {
		t.Errorf("only %d were kept", len(taken))
	}
}

// A newsletter, a third of whose addresses are gone: each is refused in the session, and nobody waits.
func TestANewsletterIsNoStorm(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	p.onRcpt = func(to string) error {
		if strings.HasPrefix(to, "gone") {
			return refusal(550, smtp.EnhancedCode{5, 1, 1}, "<"+to+">: Recipient address rejected: User unknown")
		}
		return nil
	}
	r := newRig(t, p, "")
	c := r.client(rigLogin)
	for n := range 60 {
		local, want := "reader", 250
		if n%3 == 0 || n > 40 { // and many at its end
			local, want = "gone", 550
		}
		_, err := sendOn(c, rigLogin, []string{fmt.Sprintf("%s%d@customer%d.example", local, n, n%9)},
			fmt.Sprintf("From: %s\nSubject: %d\n\nnews\n", rigLogin, n))
		if code(err) != want {
			t.Fatalf("message %d: %v, want %d", n, err, want)
		}
		if err := c.Reset(); err != nil {
			t.Fatal(err)
		}
	}
	if st := r.server.state.Load().routes.Upstreams[0].States()[0]; st.Status != upstream.Ready {
		t.Errorf("%+v", st)
	}
}

// One message to many is one refusal, and one that is taken for somebody is none.
func TestOneMessageIsOneRefusal(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	p.onRcpt = func(to string) error {
		if strings.HasPrefix(to, "no") {
			return refusal(550, smtp.EnhancedCode{5, 0, 0}, "the wind blows from the north")
		}
		return nil
	}
	r := newStormRig(t, p, "upstream:max_recipients = 100\n")
	to := func(local string) (all []string) {
		for n := range 30 {
			all = append(all, fmt.Sprintf("%s%d@customer%d.example", local, n, n))
		}
		return all
	}
	send := func(n int, to []string) int {
		c := r.client(colleague(n))
		defer c.Close()
		_, err := sendOn(c, colleague(n), to, "From: "+colleague(n)+"\nSubject: x\n\nhello\n")
		return code(err)
	}
	for n := range 4 {
		if got := send(n, to("no")); got != 550 {
			t.Fatalf("message %d: %d", n, got)
		}
	}
	if got := send(4, to("no")); got != 250 {
		t.Errorf("the fifth: %d", got)
	}
}
