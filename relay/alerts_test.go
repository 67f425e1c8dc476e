package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"postern/auth"
	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/alert"
	"postern/relay/config"
	"postern/relay/fakeprovider"
	"postern/relay/queue"
	"postern/relay/trace"
	"postern/relay/upstream"
	"postern/relay/upstream/storm"
)

// receiver is a hook.
type receiver struct {
	url, caFile string

	mu  sync.Mutex // guards got
	got []alert.Document
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	h := &receiver{}
	ca := testkit.NewCA(t)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var d alert.Document
		if err := json.NewDecoder(r.Body).Decode(&d); err != nil || r.URL.Path != "/HOOKSECRET" {
			t.Errorf("%s: %v", r.URL, err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.got = append(h.got, d)
	}))
	s.TLS = ca.Leaf(testkit.LeafOptions{}).Server()
	s.StartTLS()
	t.Cleanup(s.Close)
	h.url, h.caFile = s.URL+"/HOOKSECRET", ca.File
	return h
}

// block is the [[alert]] of this hook.
func (h *receiver) block() string {
	return fmt.Sprintf("\n[[alert]]\nurl = %q\nca_file = %q\n", h.url, h.caFile)
}

// about returns what was told of an event and subject.
func (h *receiver) about(event alert.Event, subject string) (all []alert.Document) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.got {
		if d.Event == event && d.Subject == subject {
			all = append(all, d)
		}
	}
	return all
}

// wait returns the n-th that was told of an event and subject, counted from 1.
func (h *receiver) wait(r *rig, event alert.Event, subject string, n int) alert.Document {
	r.t.Helper()
	r.eventually(fmt.Sprintf("alert %d of %s: %s", n, event, subject), func() bool { return len(h.about(event, subject)) >= n })
	return h.about(event, subject)[n-1]
}

// An upstream refuses the login: the hook hears of it once, and of its end when the password was mended and mail flows.
func TestAPausedUpstreamIsTold(t *testing.T) {
	t.Parallel()
	hook, p := newReceiver(t), newProvider(t)
	var mu sync.Mutex
	wrong := true
	p.onAuth = func(string, string) error {
		mu.Lock()
		defer mu.Unlock()
		if wrong {
			return refusal(535, smtp.EnhancedCode{5, 7, 8}, "wrong, said the provider")
		}
		return nil
	}
	r := newRig(t, p, "[delivery]\nretry = [\"1s\"]\n"+hook.block())
	for i := range 3 {
		if _, err := r.send(rigLogin, []string{"b@example.net"}, fmt.Sprintf("From: %s\nSubject: %d\n\nhello\n", rigLogin, i)); err != nil {
			t.Fatal(err)
		}
	}
	const subject = "upstream provider as relay"
	d := hook.wait(r, alert.UpstreamPaused, subject, 1)
	if d.Resolved || d.Host != "relay.example.com" || !strings.Contains(d.Details["reply"], "535 5.7.8 wrong, said the provider") ||
		!strings.Contains(d.Text, "wrong, said the provider") || d.Details["next_try"] == "" || !strings.Contains(d.Summary, "What to do:") {
		t.Errorf("%+v", d)
	}
	mu.Lock()
	wrong = false
	mu.Unlock()
	r.write("upstream:max_connections = 7\n[delivery]\nretry = [\"1s\"]\n" + hook.block()) // a changed upstream is tried at once
	if err := r.server.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.wait(3)
	if d = hook.wait(r, alert.UpstreamPaused, subject, 2); !d.Resolved {
		t.Errorf("told again: %+v", d)
	}
	if n := len(hook.about(alert.UpstreamPaused, subject)); n != 2 {
		t.Errorf("told %d times", n)
	}
	if log := r.log.String(); strings.Contains(log, "HOOKSECRET") {
		t.Errorf("the log has the address of the hook: %s", log)
	}
}

// A sender that the provider denies is told of, though the upstream is not paused.
func TestADeniedSenderIsTold(t *testing.T) {
	t.Parallel()
	hook, denied := newReceiver(t), people[3]
	r := newOAuthRig(t, fakeprovider.SMTPOptions{Messages: 1000}, "provider = \"microsoft365\"\nrate = [\"1000 messages/minute\"]",
		"expires = \""+time.Now().Add(10*24*time.Hour).UTC().Format(time.DateOnly)+"\"\n"+hook.block(),
		func(r *oauthRig) {
			r.smtp.Set(fakeprovider.Regime{SendAs: func(_, from string) bool { return from != denied }})
		})
	r.push(2)
	subject := "upstream m365, sender " + denied
	d := hook.wait(r.rig, alert.UpstreamPaused, subject, 1)
	if d.Details["sender"] != denied || d.Details["login"] != denied || !strings.Contains(d.Details["reply"], "SendAsDenied") || d.Details["fix"] == "" || !strings.Contains(d.Details["fix"], denied) {
		t.Errorf("%+v", d)
	}
	d = hook.wait(r.rig, alert.SecretExpiry, "upstream m365, client secret", 1)
	if !strings.Contains(d.Summary, "in 9 days") || !strings.Contains(d.Summary, "set client_secret and expires") || d.Details["upstream"] != "m365" {
		t.Errorf("%+v", d)
	}
	for _, d := range hook.about(alert.UpstreamPaused, "upstream m365 as office@contoso.example") {
		t.Errorf("the mailbox is not paused: %+v", d)
	}
}

// Whoever guesses writes the login, which must not become a command to paste or a link to follow, also where somebody has it.
func TestOddLoginsInAlerts(t *testing.T) {
	t.Parallel()
	hook := newReceiver(t)
	r := newRig(t, newProvider(t), hook.block())
	for n, login := range []string{"x;reboot", "$(reboot)", "-h", "log in at https://reset.example now"} {
		if n%2 == 0 {
			if err := r.store().AddUser(t.Context(), auth.User{Login: login, Hash: "none", Changed: time.Now().Add(-time.Hour)}); err != nil {
				t.Fatal(err)
			}
		}
		r.server.lockedOut(auth.Lock{Login: login, Until: time.Now().Add(time.Minute), Failures: 10})
		words, _ := loginInWords(login)
		d := hook.wait(r, alert.LoginLocked, "login "+words, 1)
		if strings.Contains(d.Text, "postern user") || strings.Contains(d.Text, "://") || !strings.Contains(d.Text, `login "`) || d.Details["login"] != login {
			t.Errorf("%+v", d)
		}
	}
}

func TestLockoutsAreTold(t *testing.T) {
	t.Parallel()
	hook := newReceiver(t)
	r := newRig(t, newProvider(t), hook.block())
	s := r.store()
	if err := s.AddUser(t.Context(), auth.User{Login: "bob@example.com", Hash: "none", Changed: time.Now().Add(-time.Hour)}); err != nil {
		t.Fatal(err)
	}
	for i := range 20 { // as guessers make them up; those that anybody has are told of nevertheless
		r.server.lockedOut(auth.Lock{Login: fmt.Sprintf("guess%d@example.com", i), Until: time.Now().Add(time.Minute), Failures: 10})
	}
	if d := hook.wait(r, alert.LoginLocked, "login guess0@example.com", 1); !strings.Contains(d.Summary, "which nobody has here") || strings.Contains(d.Summary, "postern user") {
		t.Errorf("%+v", d)
	}
	hook.wait(r, alert.LoginLocked, "others: logins that nobody has", 1)
	for range 3 { // one condition, however often
		r.server.lockedOut(auth.Lock{Login: "bob@example.com", Until: time.Now().Add(time.Minute), Failures: 10})
	}
	r.server.lockedOut(auth.Lock{Client: mustPrefixes("192.0.2.9/32")[0], Until: time.Now().Add(time.Minute), Failures: 10})
	r.server.lockedOut(auth.Lock{Login: rigLogin, Client: mustPrefixes("2001:db8::/64")[0], Until: time.Now().Add(time.Minute), Failures: 10})
	r.server.lock(t.Context(), rigLogin, "over the 1 messages/day limit")
	bob := hook.wait(r, alert.LoginLocked, "login bob@example.com", 1)
	if bob.Details["failures"] != "10" || !strings.HasSuffix(bob.Summary, "postern user password bob@example.com") {
		t.Errorf("%+v", bob)
	}
	if d := hook.wait(r, alert.LoginLocked, "address 192.0.2.9", 1); d.Details["client"] != "192.0.2.9" || d.Details["login"] != "" {
		t.Errorf("%+v", d)
	}
	here := hook.wait(r, alert.LoginLocked, "login "+rigLogin+" from 2001:db8::/64", 1)
	limit := hook.wait(r, alert.LoginLocked, "login "+rigLogin+", over a limit", 1)
	if here.Resolved || limit.Resolved || limit.Details["reason"] != "over the 1 messages/day limit" {
		t.Errorf("%+v %+v", here, limit)
	}
	err := s.UpdateUser(t.Context(), rigLogin, func(u *auth.User) error {
		u.Locked, u.LockReason, u.Changed = false, "", time.Now()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []alert.Document{hook.wait(r, alert.LoginLocked, here.Subject, 2), hook.wait(r, alert.LoginLocked, limit.Subject, 2)} {
		if !d.Resolved {
			t.Errorf("%+v", d)
		}
	}
	if n := len(hook.about(alert.LoginLocked, bob.Subject)); n != 1 {
		t.Errorf("told %d times", n)
	}
	if err := s.UpdateUser(t.Context(), rigLogin, func(u *auth.User) error { u.Locked = true; return nil }); err != nil {
		t.Fatal(err)
	}
	r.server.usersChanged(t.Context())
	if n := len(hook.about(alert.LoginLocked, limit.Subject)); n != 2 {
		t.Error("the lock of an operator is told")
	}
}

// alertsOfItsOwn are alerts of a relay that has none, which look only when they are told to.
func (r *rig) alertsOfItsOwn(hook *receiver, keys string) *alerts {
	r.t.Helper()
	r.write(hook.block() + keys)
	c, err := r.load()
	if err != nil {
		r.t.Fatal(err)
	}
	a, err := r.server.newAlerts(c)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); a.alerter.Run(ctx) }()
	r.t.Cleanup(func() { cancel(); <-done })
	return a
}

func TestAnOldQueueIsTold(t *testing.T) {
	t.Parallel()
	hook, p := newReceiver(t), newProvider(t)
	p.onMail = func(string) error { return refusal(451, smtp.EnhancedCode{4, 3, 0}, "not now") }
	r := newRig(t, p, "[delivery]\nretry = [\"1h\"]\n")
	if _, err := r.send(rigLogin, []string{"b@example.net"}, "From: "+rigLogin+"\n\nhello\n"); err != nil {
		t.Fatal(err)
	}
	r.eventually("a message in the queue", func() bool { q, err := r.server.store.Stats(t.Context()); return err == nil && q.Messages == 1 })
	a := r.alertsOfItsOwn(hook, "queue_age = \"2h\"")
	look := func(age time.Duration) int {
		a.queueAge(t.Context(), time.Now().Add(age))
		return len(a.alerter.Open(alert.QueueAge))
	}
	for _, c := range []struct {
		age  time.Duration
		want int
	}{{119 * time.Minute, 0}, {121 * time.Minute, 1}, {119 * time.Minute, 1}, {61 * time.Minute, 1}, {59 * time.Minute, 0}, {119 * time.Minute, 0}, {3 * time.Hour, 1}} {
		if got := look(c.age); got != c.want {
			t.Errorf("%d conditions at an age of %s, want %d", got, c.age, c.want)
		}
	}
	d := hook.wait(r, alert.QueueAge, "queue", 1)
	if d.Details["messages"] != "1" || d.Details["threshold"] != "2h0m0s" || !strings.Contains(d.Summary, "the oldest message for 2h") {
		t.Errorf("%+v", d)
	}
}

func TestCertificatesThatEndAreTold(t *testing.T) {
	t.Parallel()
	hook := newReceiver(t)
	ca := testkit.NewCA(t)
	soon, later := ca.Leaf(testkit.LeafOptions{NotAfter: time.Now().Add(20 * 24 * time.Hour)}), ca.Leaf(testkit.LeafOptions{NotAfter: time.Now().Add(100 * 24 * time.Hour)})
	r := &rig{t: t, dir: t.TempDir(), provider: newProvider(t), log: &logBuffer{}}
	r.write(fmt.Sprintf("upstream:cert_file = %q\nupstream:key_file = %q\n", soon.CertFile, soon.KeyFile))
	r.addUser(auth.User{Login: rigLogin})
	r.start()
	t.Cleanup(r.close)
	a := r.alertsOfItsOwn(hook, "")
	a.certificates(time.Now())
	d := hook.wait(r, alert.CertificateExpiry, soon.CertFile, 1)
	if !strings.Contains(d.Summary, "in 19 days") || d.Details["used_by"] != "upstream provider" {
		t.Errorf("%+v", d)
	}
	subjects := func(now time.Time) (all []string) {
		a.certificates(now)
		for _, c := range a.alerter.Open(alert.CertificateExpiry) {
			all = append(all, c.Subject)
		}
		return all
	}
	own := filepath.Join(r.dir, "data", "tls", "self-signed.crt")
	end := r.server.certs.Info()[0].NotAfter
	for _, c := range []struct {
		now  time.Time
		want bool
	}{{end.Add(-30 * 24 * time.Hour), false}, {end.Add(-28 * 24 * time.Hour), true}, {end.Add(time.Hour), true}} {
		if got := subjects(c.now); slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, filepath.Dir(own)) }) != c.want {
			t.Errorf("%s before the end of a self-signed certificate: %q", end.Sub(c.now), got)
		}
	}
	if err := os.WriteFile(soon.CertFile, later.CertPEM, 0o644); err != nil {
		t.Fatal(err)
	}
	subjects(time.Now())
	if d = hook.wait(r, alert.CertificateExpiry, soon.CertFile, 2); !d.Resolved {
		t.Errorf("%+v", d)
	}
}

func TestHooksFollowAReload(t *testing.T) {
	t.Parallel()
	first, second := newReceiver(t), newReceiver(t)
	r := newRig(t, newProvider(t), first.block())
	r.server.lockedOut(auth.Lock{Login: "x@example.com", Until: time.Now().Add(time.Minute), Failures: 10})
	first.wait(r, alert.LoginLocked, "login x@example.com", 1)
	r.write(second.block())
	if err := r.server.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.server.lockedOut(auth.Lock{Login: "y@example.com", Until: time.Now().Add(time.Minute), Failures: 10})
	second.wait(r, alert.LoginLocked, "login y@example.com", 1)
	if n := len(first.about(alert.LoginLocked, "login y@example.com")); n != 0 {
		t.Error("who has left is told")
	}
	r.write(strings.Replace(second.block(), second.caFile, filepath.Join(r.dir, "missing.pem"), 1))
	if err := r.server.Reload(t.Context()); err == nil || strings.Contains(err.Error(), "HOOKSECRET") {
		t.Errorf("a hook without its authority: %v", err)
	}
	r.server.lockedOut(auth.Lock{Login: "z@example.com", Until: time.Now().Add(time.Minute), Failures: 10})
	second.wait(r, alert.LoginLocked, "login z@example.com", 1)
	families, err := r.server.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "postern_alerts_total" && f.GetMetric()[0].GetCounter().GetValue() == 3 {
			return
		}
	}
	t.Error("three alerts are not counted")
}

// What is known to help stands in the alert.
func TestAPausedUpstreamIsToldWithAdvice(t *testing.T) {
	u := config.Upstream{Name: "office", Provider: "microsoft365", Host: "smtp.office365.com", Username: "scan@contoso.example"}
	st := upstream.State{Identity: u.Username, Status: upstream.Paused, Until: time.Date(2026, 11, 22, 10, 5, 0, 0, time.UTC),
		Reply: mail.R(535, "5.7.139", "Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.")}
	c := pausedCondition(u, st)
	for _, want := range []string{"535 5.7.139", "tried again at 10:05 UTC", "switched off for the whole Microsoft 365 tenant", "Set-CASMailbox -Identity scan@contoso.example"} {
		if !strings.Contains(c.Summary, want) {
			t.Errorf("no %q in %s", want, c.Summary)
		}
	}
	u.Provider, st.Reply = "generic", mail.R(535, "5.7.8", "no")
	if c = pausedCondition(u, st); !strings.Contains(c.Summary, "What to do: ") {
		t.Errorf("%s", c.Summary)
	}
}

// Only what an upstream took proves that it works.
func TestWhatEndsAPause(t *testing.T) {
	t.Parallel()
	hook := newReceiver(t)
	r := newRig(t, newProvider(t), "")
	a := r.alertsOfItsOwn(hook, "")
	st := r.server.state.Load()
	up := st.upstreams[0]
	holds := func(want bool, what string) {
		t.Helper()
		if open := a.alerter.Open(alert.UpstreamPaused); (len(open) > 0) != want {
			t.Errorf("%s: %+v", what, open)
		}
	}
	begin := func(u config.Upstream) {
		a.alerter.Begin(pausedCondition(u, upstream.State{Identity: "relay", Reply: mail.R(535, "5.7.8", "no")}))
		a.upstreams(st, time.Now())
	}
	begin(up.config)
	holds(true, "an identity that was not tried, as after a restart")
	a.result(trace.Event{Kind: trace.Deferred, Class: mail.Deferral.String(), Upstream: "provider", Identity: "relay"})
	a.result(trace.Event{Kind: trace.Delivered, Upstream: "other", Identity: "relay"})
	a.result(trace.Event{Kind: trace.Delivered, Upstream: "provider", Identity: "another"})
	a.upstreams(st, time.Now())
	holds(true, "what proves nothing")
	a.result(trace.Event{Kind: trace.Delivered, Upstream: "provider", Identity: "relay"})
	a.upstreams(st, time.Now())
	holds(false, "a delivery")
	refused := trace.Event{Kind: trace.Deferred, Class: mail.AccountFault.String(), Stage: string(mail.StageDot), Upstream: "provider", Identity: "relay", From: "a@example.com"}
	delivered := refused
	delivered.Kind, delivered.Class = trace.Delivered, mail.Delivered.String()
	a.result(refused)
	a.upstreams(st, time.Now())
	holds(true, "a sender that is refused")
	a.result(refused)
	a.result(delivered)
	a.upstreams(st, time.Now())
	holds(false, "a sender whose mail was taken last")
	a.result(delivered)
	a.result(refused)
	a.upstreams(st, time.Now())
	holds(true, "a sender whose mail was refused last")
	a.result(delivered)
	a.upstreams(st, time.Now())
	holds(false, "the end of it")
	begin(up.config)
	a.paused = map[*configured]map[string]bool{up: {"relay": true}}
	a.upstreams(st, time.Now())
	holds(false, "what was seen paused and works")
	begin(up.config)
	a.paused = map[*configured]map[string]bool{up: {"relay": true}}
	a.result(delivered)
	a.attempts(st, time.Now())
	holds(true, "a delivery that was under way when the others were refused")
	a.upstreams(st, time.Now())
	gone := up.config
	gone.Name = "gone"
	begin(gone)
	holds(false, "an upstream that left the configuration")
}

// fixed is a transport that says what it is told to.
type fixed struct {
	transport
	states []upstream.State
}

func (f *fixed) States() []upstream.State { return f.states }

func TestWhichPausesAreTold(t *testing.T) {
	t.Parallel()
	r := newRig(t, newProvider(t), "")
	a := r.alertsOfItsOwn(newReceiver(t), "")
	says := &fixed{}
	up := &configured{transport: says, config: config.Upstream{Name: "office", Username: "relay"}, homeless: newHomeless(), storms: storm.New(false)}
	st := &state{upstreams: []*configured{up}}
	now := time.Now()
	look := func(identity string, status upstream.Status, since time.Duration, want bool) {
		t.Helper()
		says.states = nil
		if status != "" {
			says.states = []upstream.State{{Identity: identity, Status: status, Since: now.Add(-since)}}
		}
		a.upstreams(st, now)
		if open := a.alerter.Open(alert.UpstreamPaused); (len(open) > 0) != want {
			t.Errorf("%s %s since %s: %+v", identity, status, since, open)
		}
	}
	look("relay", upstream.BackingOff, time.Hour, false) // it cannot be reached: nobody's account
	look("relay", upstream.Paused, 0, true)
	look("relay", upstream.BackingOff, time.Hour, true) // that proves nothing
	look("relay", upstream.Ready, 0, false)
	look("relay", upstream.Paused, 0, true)
	look("relay", "", 0, false) // only what works is forgotten
	const person = "anna@contoso.example"
	look(person, upstream.Paused, time.Second, false) // it may have no mailbox, then its mail goes as relay
	look(person, upstream.Paused, identityGrace, true)
	up.homeless.add(person, now)
	look(person, upstream.Paused, time.Hour, false)
}

// A queue at its bound refuses mail: the hook hears of it, and of the end when there is ample room again.
func TestAFullStoreIsTold(t *testing.T) {
	t.Parallel()
	hook, p := newReceiver(t), newProvider(t)
	p.onAuth = func(string, string) error { return refusal(535, smtp.EnhancedCode{5, 7, 8}, "wrong") }
	r := newRig(t, p, "listener:max_message_size = \"64KB\"\n[store]\nmax_size = \"256KB\"\n"+hook.block())
	body := strings.Repeat(strings.Repeat("x", 70)+"\n", 700)
	refused := func() bool {
		_, err := r.send(rigLogin, []string{"b@example.net"}, "From: "+rigLogin+"\n\n"+body)
		return code(err) == 452
	}
	r.eventually("452", refused)
	d := hook.wait(r, alert.DiskFull, "store", 1)
	if d.Resolved || !strings.Contains(d.Summary, "452") || !strings.Contains(d.Summary, "raise max_size") || d.Details["max_size"] != "256000" || d.Details["dir"] == "" {
		t.Errorf("%+v", d)
	}
	s := r.store()
	if _, err := s.Delete(t.Context(), queue.Filter{}); err != nil {
		t.Fatal(err)
	}
	if d = hook.wait(r, alert.DiskFull, "store", 2); !d.Resolved {
		t.Errorf("%+v", d)
	}
	if n := len(hook.about(alert.DiskFull, "store")); n != 2 {
		t.Errorf("told %d times", n)
	}
}
