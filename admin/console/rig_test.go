package console

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/operate"
	"postern/relay/config"
	"postern/relay/status"
	"postern/relay/store"
)

// rig is a console on a real store.
type rig struct {
	keepsakes  Keepsakes // nil: none
	t          testing.TB
	store      *store.Store
	mu         sync.Mutex // guards report while a browser reads it
	report     *status.Report
	now        time.Time
	server     http.Handler // who is served comes by rig.ask
	log        bytes.Buffer
	config     *config.Config
	look       operate.LookOptions
	operations *operate.Operations
}

func newRig(t testing.TB, change ...func(*rig)) *rig {
	t.Helper()
	return newRigAt(t, store.Options{Dir: t.TempDir(), MinFree: -1}, change...)
}

func newRigAt(t testing.TB, at store.Options, change ...func(*rig)) *rig {
	t.Helper()
	s, err := store.Open(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	r := &rig{t: t, store: s, now: time.Now(), report: &status.Report{Running: true, Phase: status.Serving,
		Time: time.Now(), Hostname: "relay.example.com"}, config: config.Parse("relay.toml",
		[]byte("hostname = \"relay.example.com\"\n"))}
	for _, each := range change {
		each(r)
	}
	if r.look.Lookup == nil {
		r.look.Lookup = func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("192.0.2.5")}, nil
		}
	}
	ops := operate.New(operate.Options{Store: s, Config: func() *config.Config { return r.config },
		Status: func(context.Context) (*status.Report, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.report.Summarize()
			return r.report, nil
		}})
	r.operations = ops
	r.server = Handler(Options{Operations: ops, Logger: slog.New(slog.NewTextHandler(&r.log, nil)),
		Site: func() string { return "relay.example.com" }, SignIn: "/login", SignOut: "/logout", Strong: "/again",
		Now: func() time.Time { return r.now }, Look: r.look, Keepsakes: r.keepsakes})
	return r
}

// person is somebody with a role.
func person(role operate.Role) *operate.Actor {
	return &operate.Actor{Name: "anna", Channel: operate.Console, Client: "192.0.2.7", Role: role}
}

// asking changes a request.
type asking func(*http.Request)

func in(language string) asking {
	return func(r *http.Request) { r.Header.Set("Accept-Language", language) }
}

func field1(name, value string) asking { return func(r *http.Request) { r.Header.Set(name, value) } }

// ask makes a request as somebody, nil for nobody. A POST has a form.
func (r *rig) ask(who *operate.Actor, method, target string, form url.Values,
	more ...asking) *httptest.ResponseRecorder {
	r.t.Helper()
	req := httptest.NewRequest(method, target, strings.NewReader(form.Encode()))
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, change := range more {
		change(req)
	}
	if who != nil {
		req = req.WithContext(operate.WithActor(req.Context(), *who))
	}
	w := httptest.NewRecorder()
	r.server.ServeHTTP(w, req)
	return w
}

// page gets a page as an admin, which must be there.
func (r *rig) page(target string, more ...asking) string {
	r.t.Helper()
	w := r.ask(person(operate.Admin), "GET", target, nil, more...)
	if w.Code != http.StatusOK {
		r.t.Fatalf("GET %s: %d\n%s\n%s", target, w.Code, w.Body, &r.log)
	}
	return w.Body.String()
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// visit is a visit of an admin to the console, outside of a request.
func (r *rig) visit(language string) *visit {
	c := &console{Options: Options{Operations: r.operations, Logger: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return r.now }}, pages: registry(), assets: loadAssets()}
	c.sheets = loadSheets(c, c.pages)
	req := httptest.NewRequest("GET", "/", nil)
	return &visit{Request: req, words: wordsFor(language), w: httptest.NewRecorder(), console: c,
		actor: *person(operate.Admin), known: true, now: r.now}
}

// drawn is what a template makes of a body.
func (r *rig) drawn(name string, body any) string {
	v := r.visit("en")
	v.render(http.StatusOK, nil, name, name, body)
	return v.w.(*httptest.ResponseRecorder).Body.String()
}
