package selfservice

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/admin/access"
	"postern/auth"
	"postern/auth/oidc/oidctest"
	"postern/internal/testkit"
	"postern/operate"
	"postern/relay/config"
	"postern/relay/store"
)

// password is that of everybody who has one.
const password = "correct horse battery"

// directory is a source of logins that others run: whoever is in it has password.
type directory struct {
	mu     sync.Mutex
	people map[string]auth.Identity
	down   bool
	asked  int
}

func (d *directory) Name() string                { return "directory" }
func (d *directory) Probe(context.Context) error { return nil }
func (d *directory) StaleOK() time.Duration      { return 0 }

func (d *directory) Lookup(_ context.Context, login string) (auth.Identity, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id, ok := d.people[login]
	switch {
	case d.down:
		return auth.Identity{}, errors.New("connection refused")
	case !ok:
		return auth.Identity{}, auth.ErrUnknownLogin
	}
	return id, nil
}

func (d *directory) Verify(ctx context.Context, login, given string) (auth.Identity, error) {
	d.mu.Lock()
	d.asked++
	d.mu.Unlock()
	id, err := d.Lookup(ctx, login)
	if err == nil && given != password {
		err = auth.ErrWrongPassword
	}
	return id, err
}

func (d *directory) change(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// rig is the page on a real store, with real logins and an issuer.
type rig struct {
	t         testing.TB
	store     *store.Store
	directory *directory
	logins    *auth.Authenticator
	issuer    *oidctest.Issuer
	page      *Server
	base      string
	http      *http.Client
	log       testkit.Log

	ahead atomic.Int64 // nanoseconds

	mu   sync.Mutex // guards what follows
	conf *config.Config
}

// block is a [self_service] with everything; %s is the issuer, twice the server's own address.
const block = `hostname = "relay.example.com"

[[listener]]
address = ":587"
[[listener]]
address = ":465"
tls = "implicit"

[self_service]
sources = ["directory"]
max_age = "400d"
max_passwords = 3
%s

[self_service.oidc]
issuer = "%s"
client_id = "passwords"
client_secret = "hunter2"
redirect_url = "%s/me/oidc"
`

func newRig(t testing.TB, keys string) *rig {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{Dir: t.TempDir(), MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	r := &rig{t: t, store: s, issuer: oidctest.New(t), directory: &directory{people: map[string]auth.Identity{
		"anna@example.com": {Login: "anna@example.com", Groups: []string{"staff"}},
		"ben@example.com":  {Login: "ben@example.com"}}}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.page.Handler().ServeHTTP(w, q)
	}))
	t.Cleanup(server.Close)
	r.base = server.URL
	r.configure(keys)
	pepper, err := s.Secret(t.Context(), auth.PepperName, auth.PepperSize)
	if err != nil {
		t.Fatal(err)
	}
	r.logins = auth.New(auth.Options{Sources: []auth.Source{auth.NewStoreSource(s, pepper), r.directory},
		Lockout: auth.Lockout{Failures: 5, Window: time.Hour, Duration: time.Hour}, Apps: s, Pepper: pepper, Locks: s})
	visitors, err := access.NewVisitors(bytes.Repeat([]byte{7}, 32), s, r.now)
	if err != nil {
		t.Fatal(err)
	}
	visitors.Use(&access.Provider{Issuer: r.issuer.URL, ClientID: "passwords", ClientSecret: "hunter2",
		RedirectURL: r.base + "/me/oidc"})
	logger := slog.New(slog.NewTextHandler(&r.log, nil))
	r.page = New(Options{Config: r.config, Store: s, Logins: r.logins, OIDC: visitors, Logger: logger, Now: r.now,
		Operations: operate.New(operate.Options{Config: r.config, Store: s, Lookup: r.logins.Lookup})})
	r.http = r.browser()
	return r
}

// configure takes over [self_service] with further keys.
func (r *rig) configure(keys string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conf = config.Parse("relay.toml", fmt.Appendf(nil, block, keys, r.issuer.URL, r.base))
}

func (r *rig) change(f func(c *config.Config)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := *r.conf
	f(&c)
	r.conf = &c
}

func (r *rig) config() *config.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conf
}

func (r *rig) now() time.Time { return time.Now().Add(time.Duration(r.ahead.Load())) }

func (r *rig) pass(d time.Duration) { r.ahead.Add(int64(d)) }

// browser is one that has been nowhere.
func (r *rig) browser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

// ask is testkit.Ask; a target with a scheme is somebody else's.
func (r *rig) ask(target string, form url.Values, header ...string) testkit.Answer {
	r.t.Helper()
	if strings.HasPrefix(target, "/") {
		target = r.base + target
	}
	return testkit.Ask(r.t, r.http, target, form, header...)
}

// want asks and expects a status, and a text in the body or in Location.
func (r *rig) want(what, target string, form url.Values, status int, text string, header ...string) testkit.Answer {
	r.t.Helper()
	a := r.ask(target, form, header...)
	a.Want(r.t, what, status, text)
	return a
}

func credentials(login, password string) url.Values {
	return url.Values{"login": {login}, "password": {password}}
}

// enter logs in by password.
func (r *rig) enter(login string) {
	r.t.Helper()
	r.want("login of "+login, loginPath, credentials(login, password), 303, home)
}

// claims are those of a person at the provider.
func claims(login, sub string, more ...string) map[string]any {
	c := map[string]any{"preferred_username": login, "sub": sub, "name": "Anna", "groups": []string{"staff"}}
	for i := 0; i+1 < len(more); i += 2 {
		c[more[i]] = more[i+1]
	}
	return c
}

// toProvider begins a login by OpenID Connect and returns where the provider sends the browser back to.
func (r *rig) toProvider(claims map[string]any) string {
	r.t.Helper()
	r.issuer.SignIn(claims)
	a := r.want("begin", startPath, nil, 303, r.issuer.URL+"/auth?")
	back := r.ask(a.Header.Get("Location"), nil)
	return back.Header.Get("Location")
}

// form is that of a new password.
func formOf(name string, more ...string) url.Values {
	v := url.Values{"name": {name}, "where": {"anywhere"}, "lasts": {"7776000"}}
	for i := 0; i+1 < len(more); i += 2 {
		v.Set(more[i], more[i+1])
	}
	return v
}

// idOf is the ID of somebody's password.
func (r *rig) idOf(login, name string) string {
	r.t.Helper()
	list, err := r.store.AppPasswords(r.t.Context(), login)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, k := range list {
		if k.Name == name {
			return k.ID
		}
	}
	r.t.Fatalf("%s has no password %s, but %+v", login, name, list)
	return ""
}

// here is where tests come from.
var here = netip.MustParseAddr("127.0.0.1")

func digestOf(cookie string) [32]byte { return sha256.Sum256([]byte(cookie)) }

// kept is the value of a cookie that the browser has, "" for none.
func (r *rig) kept(name access.Cookie) string {
	u, _ := url.Parse(r.base)
	for _, c := range r.http.Jar.Cookies(u) {
		if c.Name == string(name) {
			return c.Value
		}
	}
	return ""
}
