package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"postern/auth"
	"postern/internal/testkit"
	"postern/relay/alert"
	"postern/relay/fakeprovider"
	"postern/relay/queue"
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
	r.eventually(fmt.Sprintf("alert %d of %s: %s", n, event, subject),
		func() bool { return len(h.about(event, subject)) >= n })
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
		if _, err := r.send(rigLogin, []string{"b@example.net"},
			fmt.Sprintf("From: %s\nSubject: %d\n\nhello\n", rigLogin, i)); err != nil {
			t.Fatal(err)
		}
	}
	const subject = "upstream provider as relay"
	d := hook.wait(r, alert.UpstreamPaused, subject, 1)
	if d.Resolved || d.Host != "relay.example.com" || !strings.Contains(d.Details["reply"],
		"535 5.7.8 wrong, said the provider") ||
		!strings.Contains(d.Text, "wrong, said the provider") || d.Details["next_try"] == "" ||
		!strings.Contains(d.Summary, "What to do:") {
		t.Errorf("%+v", d)
	}
	mu.Lock()
	wrong = false
	mu.Unlock()
	// a changed upstream is tried at once
	r.write("upstream:max_connections = 7\n[delivery]\nretry = [\"1s\"]\n" + hook.block())
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
	r := newOAuthRig(t, fakeprovider.SMTPOptions{Messages: 1000},
		"provider = \"microsoft365\"\nrate = [\"1000 messages/minute\"]",
		"expires = \""+time.Now().Add(10*24*time.Hour).UTC().Format(time.DateOnly)+"\"\n"+hook.block(),
		func(r *oauthRig) {
			r.smtp.Set(fakeprovider.Regime{SendAs: func(_, from string) bool { return from != denied }})
		})
	r.push(2)
	subject := "upstream m365, sender " + denied
	d := hook.wait(r.rig, alert.UpstreamPaused, subject, 1)
	if d.Details["sender"] != denied || d.Details["login"] != denied ||
		!strings.Contains(d.Details["reply"], "SendAsDenied") || d.Details["fix"] == "" ||
		!strings.Contains(d.Details["fix"], denied) {
		t.Errorf("%+v", d)
	}
	d = hook.wait(r.rig, alert.SecretExpiry, "upstream m365, client secret", 1)
	if !strings.Contains(d.Summary, "in 9 days") || !strings.Contains(d.Summary, "set client_secret and expires") ||
		d.Details["upstream"] != "m365" {
		t.Errorf("%+v", d)
	}
	for _, d := range hook.about(alert.UpstreamPaused, "upstream m365 as office@contoso.example") {
		t.Errorf("the mailbox is not paused: %+v", d)
	}
}

// Whoever guesses writes the login, which must not become a command to paste or a link to follow, also where somebody
// has it.
func TestOddLoginsInAlerts(t *testing.T) {
	t.Parallel()
	hook := newReceiver(t)
	r := newRig(t, newProvider(t), hook.block())
	for n, login := range []string{"x;reboot", "$(reboot)", "-h", "log in at https://reset.example now"} {
		if n%2 == 0 {
			if err := r.store().AddUser(t.Context(), auth.User{Login: login, Hash: "none",
				Changed: time.Now().Add(-time.Hour)}); err != nil {
				t.Fatal(err)
			}
		}
		r.server.accounts.lockedOut(auth.Lock{Login: login, Until: time.Now().Add(time.Minute), Failures: 10})
		words := strconv.Quote(strings.ReplaceAll(login, "://", ": //"))
		d := hook.wait(r, alert.LoginLocked, "login "+words, 1)
		if strings.Contains(d.Text, "postern user") || strings.Contains(d.Text, "://") ||
			!strings.Contains(d.Text, `login "`) || d.Details["login"] != login {
			t.Errorf("%+v", d)
		}
	}
}

func TestLockoutsAreTold(t *testing.T) {
	t.Parallel()
	hook := newReceiver(t)
	r := newRig(t, newProvider(t), hook.block())
	s := r.store()
	if err := s.AddUser(t.Context(), auth.User{Login: "bob@example.com", Hash: "none",
		Changed: time.Now().Add(-time.Hour)}); err != nil {
		t.Fatal(err)
	}
	for i := range 20 { // as guessers make them up; those that anybody has are told of nevertheless
		r.server.accounts.lockedOut(auth.Lock{Login: fmt.Sprintf("guess%d@example.com", i),
			Until: time.Now().Add(time.Minute), Failures: 10})
	}
	if d := hook.wait(r, alert.LoginLocked, "login guess0@example.com", 1); !strings.Contains(d.Summary,
		"which nobody has here") || strings.Contains(d.Summary, "postern user") {
		t.Errorf("%+v", d)
	}
	hook.wait(r, alert.LoginLocked, "others: logins that nobody has", 1)
	for range 3 { // one condition, however often
		r.server.accounts.lockedOut(auth.Lock{Login: "bob@example.com", Until: time.Now().Add(time.Minute),
			Failures: 10})
	}
	r.server.accounts.lockedOut(auth.Lock{Client: mustPrefixes("192.0.2.9/32")[0], Until: time.Now().Add(time.Minute),
		Failures: 10})
	r.server.accounts.lockedOut(auth.Lock{Login: rigLogin, Client: mustPrefixes("2001:db8::/64")[0],
		Until: time.Now().Add(time.Minute), Failures: 10})
	r.server.accounts.Lock(t.Context(), rigLogin, "over the 1 messages/day limit")
	bob := hook.wait(r, alert.LoginLocked, "login bob@example.com", 1)
	if bob.Details["failures"] != "10" || !strings.HasSuffix(bob.Summary, "postern user password bob@example.com") {
		t.Errorf("%+v", bob)
	}
	if d := hook.wait(r, alert.LoginLocked, "address 192.0.2.9", 1); d.Details["client"] != "192.0.2.9" ||
		d.Details["login"] != "" {
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
	for _, d := range []alert.Document{hook.wait(r, alert.LoginLocked, here.Subject, 2),
		hook.wait(r, alert.LoginLocked, limit.Subject, 2)} {
		if !d.Resolved {
			t.Errorf("%+v", d)
		}
	}
	if n := len(hook.about(alert.LoginLocked, bob.Subject)); n != 1 {
		t.Errorf("told %d times", n)
	}
	if err := s.UpdateUser(t.Context(), rigLogin,
		func(u *auth.User) error { u.Locked = true; return nil }); err != nil {
		t.Fatal(err)
	}
	r.server.usersChanged(t.Context())
	if n := len(hook.about(alert.LoginLocked, limit.Subject)); n != 2 {
		t.Error("the lock of an operator is told")
	}
}

func TestHooksFollowAReload(t *testing.T) {
	t.Parallel()
	first, second := newReceiver(t), newReceiver(t)
	r := newRig(t, newProvider(t), first.block())
	r.server.accounts.lockedOut(auth.Lock{Login: "x@example.com", Until: time.Now().Add(time.Minute), Failures: 10})
	first.wait(r, alert.LoginLocked, "login x@example.com", 1)
	r.write(second.block())
	if err := r.server.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.server.accounts.lockedOut(auth.Lock{Login: "y@example.com", Until: time.Now().Add(time.Minute), Failures: 10})
	second.wait(r, alert.LoginLocked, "login y@example.com", 1)
	if n := len(first.about(alert.LoginLocked, "login y@example.com")); n != 0 {
		t.Error("who has left is told")
	}
	r.write(strings.Replace(second.block(), second.caFile, filepath.Join(r.dir, "missing.pem"), 1))
	if err := r.server.Reload(t.Context()); err == nil || strings.Contains(err.Error(), "HOOKSECRET") {
		t.Errorf("a hook without its authority: %v", err)
	}
	r.server.accounts.lockedOut(auth.Lock{Login: "z@example.com", Until: time.Now().Add(time.Minute), Failures: 10})
	second.wait(r, alert.LoginLocked, "login z@example.com", 1)
	r.eventually("three alerts are counted", func() bool { // behind the answer of the hook
		families, err := r.server.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "postern_alerts_total" && f.GetMetric()[0].GetCounter().GetValue() == 3 {
				return true
			}
		}
		return false
	})
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
	if d.Resolved || !strings.Contains(d.Summary, "452") || !strings.Contains(d.Summary, "raise max_size") ||
		d.Details["max_size"] != "256000" || d.Details["dir"] == "" {
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

// A person's change of an account ends its lockout also where the change could not be read for a while.
func TestAChangeReadLateEndsTheLockout(t *testing.T) {
	t.Parallel()
	hook := newReceiver(t)
	r := newRig(t, newProvider(t), hook.block())
	r.server.accounts.lockedOut(auth.Lock{Login: rigLogin, Until: time.Now().Add(time.Hour), Failures: 10})
	hook.wait(r, alert.LoginLocked, "login "+rigLogin, 1)

	failing, cancel := context.WithCancel(t.Context())
	cancel()
	if r.server.usersChanged(failing) {
		t.Fatal("accounts were read, though reading fails")
	}
	minuteAgo := time.Now().Add(-time.Minute) // when reading began to fail, and a person changed the account
	r.server.reloading.Lock()
	r.server.usersUnread = minuteAgo
	r.server.reloading.Unlock()
	r.change(rigLogin, func(u *auth.User) { u.Changed = minuteAgo })
	if d := hook.wait(r, alert.LoginLocked, "login "+rigLogin, 2); !d.Resolved {
		t.Errorf("%+v", d)
	}
}
