package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"

	"postern/internal/testkit"
)

// hook is what an administrator has somewhere: an HTTPS server that keeps what it is told.
type hook struct {
	url string

	mu     sync.Mutex // guards what follows
	told   []alertSeen
	status int // instead of 200
}

type alertSeen struct {
	Event, Host, Subject, Summary, Text string
	Resolved, Repeated                  bool
	Details                             map[string]string
}

func newHook(t *testing.T, o *office) *hook {
	t.Helper()
	h := &hook{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var seen alertSeen
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &seen)
		}
		if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %v: %v in %s", r.Method, r.Header, err, body)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.status != 0 {
			w.WriteHeader(h.status)
			fmt.Fprintf(w, "no such hook: %s", r.URL)
			return
		}
		h.told = append(h.told, seen)
	}))
	s.TLS = o.ca.Leaf(testkit.LeafOptions{}).Server()
	s.StartTLS()
	t.Cleanup(s.Close)
	h.url = s.URL + "/T0KENINPATH?key=T0KENINQUERY"
	return h
}

func (h *hook) about(subject string) (all []alertSeen) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.told {
		if a.Subject == subject {
			all = append(all, a)
		}
	}
	return all
}

// alerting is an office with a hook. extra is added behind the upstream's block.
func alerting(t *testing.T, extra string) (*office, *hook) {
	o := newOffice(t, extra)
	h := newHook(t, o)
	o.write("hook.url", h.url+"\n")
	o.edit("[[listener]]", fmt.Sprintf("[[alert]]\nurl = \"file:hook.url\"\nca_file = %q\n[[listener]]", o.ca.File))
	o.postern("a chosen password\n", "user", "add", "anna@example.com", "--password-stdin")
	return o, h
}

func noToken(t *testing.T, text string) {
	t.Helper()
	if strings.Contains(text, "T0KEN") {
		t.Errorf("the address of the hook is told: %s", text)
	}
}

// The provider answers 535: the hook hears of it once, whatever is tried and over a restart, and then of the recovery.
func TestAlertOfARefusedUpstreamAndItsRecovery(t *testing.T) {
	t.Parallel()
	o, h := alerting(t, "[delivery]\nretry = [\"1s\"]\n")
	o.write("upstream.secret", "not the secret\n")
	p := o.serveWatchful()
	for i := range 3 {
		if out := testkit.Smtplib(t, o.submission(fmt.Sprint("waits ", i))); !out.OK {
			t.Fatalf("%s\n%s", out.Text, p.Log())
		}
	}
	const subject = "upstream provider as relay"
	o.until("the hook hears of it", func() bool { return len(h.about(subject)) > 0 })
	p.WaitLog("alert sent")
	p.Stop()
	noToken(t, p.Log())
	p = o.serveWatchful()
	if out := testkit.Smtplib(t, o.submission("waits 3")); !out.OK {
		t.Fatal(out.Text)
	}
	p.WaitLog(`535`) // refused again
	o.write("upstream.secret", "upstream secret\n")
	p.Signal(syscall.SIGHUP)
	for range 4 {
		if _, err := o.upstream.WaitMessage(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, p.Log())
		}
	}
	o.until("the hook hears of the recovery", func() bool { return len(h.about(subject)) > 1 })
	p.Stop()
	noToken(t, p.Log())
	told := h.about(subject)
	if len(told) != 2 || told[0].Resolved || told[0].Repeated || !told[1].Resolved {
		t.Fatalf("%+v", told)
	}
	first := told[0]
	if first.Event != "upstream-paused" || first.Host != "localhost" || !strings.HasPrefix(first.Details["reply"],
		"535") {
		t.Errorf("%+v", first)
	}
	if !strings.Contains(first.Summary, first.Details["reply"]) || !strings.Contains(first.Text, first.Subject) ||
		!strings.Contains(told[1].Text, "RESOLVED upstream-paused") {
		t.Errorf("%+v", told)
	}
}

func TestAlertOfALockout(t *testing.T) {
	t.Parallel()
	o, h := alerting(t, "[auth.lockout]\nfailures = 3\n")
	base := o.withAdmin()
	p := o.serveWatchful()
	defer p.Stop()
	for i := range 5 {
		s := o.submission("guess")
		s.Password = fmt.Sprint("guess ", i)
		if out := testkit.Smtplib(t, s); out.OK {
			t.Fatal(out.Text)
		}
	}
	// One address locks itself out, and no login for others.
	subject, client := "address 127.0.0.1", "127.0.0.1"
	o.until("the hook hears of the address", func() bool {
		if len(h.about("address ::/64")) > 0 {
			subject, client = "address ::/64", "::1"
		}
		return len(h.about(subject)) > 0
	})
	a := h.about(subject)
	if len(a) != 1 || a[0].Event != "login-locked" || a[0].Details["failures"] != "3" ||
		len(h.about("login anna@example.com")) != 0 {
		t.Errorf("%+v", a)
	}
	o.until("the alert is counted", func() bool {
		_, metrics := get(t, base+"/metrics")
		return strings.Contains(metrics, `postern_alerts_total{event="login-locked",outcome="sent"} 1`)
	})
	o.until("the lock is on record and lifted", func() bool {
		return testkit.Run(t, "", "user", "unlock", client, "--config", o.config).OK
	})
	o.until("the hook hears of the end", func() bool { a := h.about(subject); return len(a) == 2 && a[1].Resolved })
	noToken(t, p.Log())
}

// A hook that is down holds up neither mail nor the end.
func TestAlertToAHookThatIsDown(t *testing.T) {
	t.Parallel()
	o, h := alerting(t, "[auth.lockout]\nfailures = 3\n")
	h.status = 503
	p := o.serve()
	for i := range 3 {
		s := o.submission("guess")
		s.Login, s.Password = "bob@example.com", fmt.Sprint("guess ", i)
		testkit.Smtplib(t, s)
	}
	p.WaitLog("alert not taken, will retry.*503")
	p.Stop()
	noToken(t, p.Log())
}

func TestAlertTest(t *testing.T) {
	t.Parallel()
	o, h := alerting(t, "")
	o.edit("[[listener]]", "[[alert]]\nurl = \"http://127.0.0.1:1/T0KEN\"\n[[listener]]")
	run := func(args ...string) testkit.Output {
		out := testkit.Run(t, "", append(args, "--config", o.config)...)
		noToken(t, out.Text)
		return out
	}
	if out := run("alert", "test", "1"); !out.OK || !strings.Contains(out.Text, "alert[1]") ||
		!strings.Contains(out.Text, "sent") {
		t.Errorf("%s", out.Text)
	}
	if told := h.about("alert[1]"); len(told) != 1 || told[0].Event != "test" {
		t.Errorf("%+v", told)
	}
	for _, args := range [][]string{{"alert", "test"}, {"alert", "test", "all"}, {"alert", "test", "2"}} {
		if out := run(args...); out.OK || !strings.Contains(out.Text, "alert[2]") ||
			!strings.Contains(out.Text, "refused") {
			t.Errorf("%v: %s", args, out.Text)
		}
	}
	if out := run("alert", "test", "3"); out.OK || !strings.Contains(out.Text, "there is no alert[3]") {
		t.Errorf("%s", out.Text)
	}
	if out := run("alert", "test", "first"); out.OK || !strings.Contains(out.Text, "is not the number") {
		t.Errorf("%s", out.Text)
	}
	h.mu.Lock()
	h.status = 404
	h.mu.Unlock()
	var views []struct {
		Hook, Host, Error string
		OK                bool
	}
	out := run("alert", "test", "1", "--json")
	if err := json.Unmarshal([]byte(out.Text), &views); err != nil || out.OK || len(views) != 1 || views[0].OK ||
		!strings.Contains(views[0].Error, "404 Not Found: no such hook:") {
		t.Errorf("%v %s", err, out.Text)
	}
	if out := run("check"); !out.OK {
		t.Errorf("check: %s", out.Text)
	}
	o.write("hook.url", "http://hooks.example.com/T0KEN\n")
	if out := run("check"); out.OK || !strings.Contains(out.Text, "alert[1].url: is not the address of a hook") {
		t.Errorf("check: %s", out.Text)
	}
}
