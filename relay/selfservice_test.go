package relay

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"postern/auth/oidc/oidctest"
	"postern/internal/testkit"
	"postern/internal/testkit/chromium"
)

// A person whom only the login provider knows logs in to the page, makes a password, sends with it and revokes it: in a
// browser, by SMTP, and with the daemon's own store, settings and lockout.
func TestSelfServiceInTheBrowser(t *testing.T) {
	issuer := oidctest.New(t)
	p := newProvider(t)
	port := testkit.FreePort(t)
	r := newRig(t, p, "")
	r.close()
	text, err := os.ReadFile(r.path())
	if err != nil {
		t.Fatal(err)
	}
	admin := fmt.Sprintf(`[self_service]
sources = ["store"]
[self_service.oidc]
issuer = %q
client_id = "passwords"
client_secret = "hunter2"
[admin]
address = "127.0.0.1:%d"`, issuer.URL, port)
	err = os.WriteFile(r.path(), []byte(strings.Replace(string(text), "[admin]\naddress = \"\"", admin, 1)), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	r.start()
	t.Cleanup(r.close)

	issuer.SignIn(map[string]any{"preferred_username": "Oda@Example.com", "sub": "4", "groups": []string{"sales"}})
	b := chromium.Start(t, fmt.Sprintf("http://localhost:%d", port), "en")
	b.Open("/me/")
	b.Leads(chromedp.Click(`a[href="/me/oidc/start"]`))
	b.Leads(chromedp.Click(`a[href="/me/new"]`))
	b.Type(`[name="name"]`, "Canon in the hall")
	b.Leads(chromedp.Click("form.form button.primary"))
	password := b.Text(".sheet .secret")
	c, err := r.loggedIn("oda@example.com", password)
	if err != nil {
		t.Fatalf("%q: %v", password, err)
	}
	defer c.Close()
	if _, err := sendOn(c, "oda@example.com", []string{"b@example.net"}, odaText); err != nil {
		t.Fatal(err)
	}
	r.eventually("the page says when it was used", func() bool {
		b.Open("/me/")
		return strings.Contains(b.Text("main table"), "from 127.0.0.1")
	})
	b.Accessible("list")
	b.Leads(chromedp.Click(`td a.button`))
	b.Leads(chromedp.Click(".confirm button"))
	r.eventually("a new login is refused", func() bool { return r.tryLogin("oda@example.com", password) != nil })
	wantCode(t, "after it was revoked", r.tryLogin("oda@example.com", password), 535)
	r.eventually("the session that it opened ends", func() bool {
		_, err := sendOn(c, "oda@example.com", []string{"b@example.net"}, odaText)
		return err != nil
	})

	// With the account's own password; an app password opens the page to nobody.
	b.Leads(chromedp.Click(".who button"))
	login := func(password string) {
		b.Type(`[name="login"]`, rigLogin)
		b.Type(`[name="password"]`, password)
		b.Leads(chromedp.Click("form.stack button"))
	}
	login(rigPassword)
	if got := b.Text("main"); !strings.Contains(got, "There is none yet.") {
		t.Errorf("logged in with a password of the store:\n%s", got)
	}
	mine := made(t, r.operations(), machineOwner, rigLogin, "printer").Password
	b.Leads(chromedp.Click(".who button"))
	login(mine)
	if got := b.Text("main"); !strings.Contains(got, "The user name or the password is wrong.") {
		t.Errorf("logged in with an app password:\n%s", got)
	}
	b.Problems() // 403

	// What a reload switches off is off; the console goes on.
	text, err = os.ReadFile(r.path())
	if err != nil {
		t.Fatal(err)
	}
	off := strings.Replace(string(text), "[self_service.oidc]", "[admin.oidc]\nroles = [\"it = admin\"]", 1)
	off = strings.Replace(off, `sources = ["store"]`, "", 1)
	if err := os.WriteFile(r.path(), []byte(off), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.server.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.Open("/me/")
	if got := b.Text("h1"); got != "Sign in" {
		t.Errorf("after it was switched off: %q", got)
	}
}

// askPage asks the page at its own address; a form makes it a POST.
func (r *rig) askPage(host, path string, form url.Values) (status int, body string, h http.Header) {
	r.t.Helper()
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots,
		ServerName: "relay.example.com"}}, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	defer c.CloseIdleConnections()
	a := testkit.Ask(r.t, c, "https://"+r.server.selfService.own.Addr().String()+path, form, "Host", host)
	return a.StatusCode, a.Text, a.Header
}

// People of a real directory log in with their password; while it is gone nobody does, and nobody is locked out.
func TestSelfServiceOfADirectory(t *testing.T) {
	ca := testkit.NewCA(t)
	slapd := testkit.NewSlapd(t, ca, directory)
	r := newRig(t, newProvider(t), officeSource(slapd, ca)+`
		[self_service]
		address = "127.0.0.1:0"
		sources = ["office"]
		groups = ["outer"]`)
	login := func(what, login, password string, want int, text string) http.Header {
		t.Helper()
		status, body, h := r.askPage("relay.example.com", "/me/login", url.Values{"login": {login},
			"password": {password}})
		if status != want || !strings.Contains(body, text) {
			t.Errorf("%s: %d\n%s", what, status, body)
		}
		return h
	}
	if h := login("right", "bert@example.com", "right", 303, ""); h.Get("Set-Cookie") == "" {
		t.Error("there is no session")
	}
	login("wrong", "bert@example.com", "wrong", 403, "The user name or the password is wrong.")
	login("in no group", "dora@example.com", "right", 403, "you belong to no group")
	login("an account of the store", rigLogin, rigPassword, 403, "The user name or the password is wrong.")
	slapd.Kill()
	for range 6 {
		login("while it is gone", "bert@example.com", "other", 503, "does not answer")
	}
	list, err := r.store().Lockouts(t.Context(), time.Now())
	if err != nil || len(list) > 0 {
		t.Errorf("locked out: %+v, %v", list, err)
	}
}

// At its own address the page is by HTTPS, under our names, and nothing else is there.
func TestSelfServiceAtItsOwnAddress(t *testing.T) {
	r := newRig(t, newProvider(t), `[self_service]
		address = "127.0.0.1:0"
		url = "https://me.example.org"
		sources = ["store"]`)
	for _, q := range []struct {
		host, path string
		want       int
	}{
		{"relay.example.com", "/", 303}, {"me.example.org", "/me/login", 200}, {"evil.example", "/me/login", 421},
		{"relay.example.com", "/login", 404}, {"relay.example.com", "/api/v1/status", 404},
		{"relay.example.com", "/metrics", 404}, {"relay.example.com", "/queue", 404},
	} {
		if got, body, _ := r.askPage(q.host, q.path, nil); got != q.want {
			t.Errorf("%s%s: %d %s", q.host, q.path, got, body)
		}
	}
	_, page, _ := r.askPage("relay.example.com", "/me/login", nil)
	_, style, found := strings.Cut(page, `<link rel="stylesheet" href="`)
	if path, _, _ := strings.Cut(style, `"`); found {
		if got, _, _ := r.askPage("relay.example.com", path, nil); got != 200 {
			t.Errorf("the style sheet %s: %d", path, got)
		}
	}
	code, _, h := r.askPage("relay.example.com", "/me/login", url.Values{"login": {rigLogin},
		"password": {rigPassword}})
	if cookie := h.Get("Set-Cookie"); code != 303 || !strings.HasPrefix(cookie, "__Host-postern-me=") ||
		!strings.Contains(cookie, "Secure") {
		t.Errorf("%d %q", code, cookie)
	}
}

// An address that is taken is said at the start.
func TestSelfServiceAddressTaken(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	s := &selfService{}
	if err := s.bind(r.server.Addresses()["submission"]); err == nil ||
		!strings.Contains(err.Error(), "self_service.address: ") {
		t.Errorf("%v", err)
	}
}
