package door

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/prometheus/client_golang/prometheus"

	"postern/admin"
	"postern/admin/access"
	"postern/admin/console"
	"postern/auth"
	"postern/internal/testkit"
	"postern/operate"
	"postern/relay/config"
	"postern/relay/status"
	"postern/relay/store"
)

const password = "correct horse battery"

var owner = operate.Actor{Name: "root", Channel: operate.CommandLine}

// rig is the whole admin address on loopback, with a store and a clock that tests move.
type rig struct {
	*access.Access
	t    testing.TB
	base string // http://localhost:PORT
	log  testkit.Log
	http *http.Client // a browser's cookies; it follows no redirect

	mu    sync.Mutex // guards ahead
	ahead time.Duration
}

func newRig(t testing.TB, change ...func(*access.Options)) *rig {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{Dir: filepath.Join(t.TempDir(), "data")})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t}
	server := httptest.NewUnstartedServer(nil)
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	base := &url.URL{Scheme: "http", Host: net.JoinHostPort("localhost", port)}
	r.base = base.String()
	logger := slog.New(slog.NewTextHandler(&r.log, nil))
	o := access.Options{Store: s, URL: base, Logger: logger, Now: r.now,
		Lockout: auth.Lockout{Failures: 5, Window: time.Hour, Duration: time.Hour}}
	for _, f := range change {
		f(&o)
	}
	if r.Access, err = access.New(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	ops := operate.New(operate.Options{Store: s, Config: func() *config.Config { return &config.Config{} },
		Status: func(context.Context) (*status.Report, error) {
			report := &status.Report{Running: true, Phase: status.Serving, Time: r.now(), Hostname: "relay.example.com"}
			report.Summarize()
			return report, nil
		}})
	api := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		who, _ := operate.ActorOf(q.Context())
		_, _ = io.WriteString(w, "API for "+who.Name)
	})
	server.Config.Handler = admin.Handler(admin.Options{Ready: func(context.Context) error { return nil },
		Gatherer: prometheus.NewRegistry(), Logger: logger,
		Names: func() []string { return []string{"relay.example.com"} },
		Rest: Handler(Options{Access: r.Access, API: api, Logger: logger, Console: console.Options{Operations: ops,
			Logger: logger, Site: func() string { return "relay.example.com" }, Now: r.now}})})
	server.Start()
	t.Cleanup(func() {
		server.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	r.http = r.browser()
	return r
}

// browser is another client, without cookies.
func (r *rig) browser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &http.Client{Jar: jar, CheckRedirect: stay}
}

func (r *rig) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Add(r.ahead)
}

func (r *rig) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ahead += d
}

// link is a new invitation's path.
func (r *rig) link(name string, role operate.Role) string {
	r.t.Helper()
	link, err := r.Users.Invite(r.t.Context(), owner, name, role)
	if err != nil {
		r.t.Fatal(err)
	}
	path, ok := strings.CutPrefix(link.URL, r.base)
	if !ok {
		r.t.Fatalf("the link is %s", link.URL)
	}
	return path
}

// code is what an authenticator shows now.
func (r *rig) code(secret string) string {
	r.t.Helper()
	code, err := totp.GenerateCode(strings.ReplaceAll(secret, " ", ""), r.now())
	if err != nil {
		r.t.Fatal(err)
	}
	return code
}

// secretOf is the authenticator's secret behind a link.
func (r *rig) secretOf(path string) string {
	r.t.Helper()
	i, err := r.Invitations.Get(r.t.Context(), strings.TrimPrefix(path, access.InvitePath))
	if err != nil {
		r.t.Fatal(err)
	}
	return i.Secret
}

// answer is what came back, read whole.
type answer struct {
	*http.Response
	body string
}

// ask makes a request; a form makes it a POST. Header fields are pairs.
func (r *rig) ask(path string, form url.Values, header ...string) answer {
	r.t.Helper()
	a := testkit.Ask(r.t, r.http, r.base+path, form, header...)
	return answer{a.Response, a.Text}
}

// want asks and expects a status, and a text in the body or in Location.
func (r *rig) want(what, path string, form url.Values, status int, text string, header ...string) answer {
	r.t.Helper()
	a := r.ask(path, form, header...)
	testkit.Answer{Response: a.Response, Text: a.body}.Want(r.t, what, status, text)
	return a
}

// join accepts an invitation and leaves the browser signed in. It returns the authenticator's secret.
func (r *rig) join(name string, role operate.Role) (secret string) {
	r.t.Helper()
	path := r.link(name, role)
	secret = r.secretOf(path)
	r.want("join", path, url.Values{"password": {password}, "repeat": {password}, "code": {r.code(secret)}}, 303, "/")
	r.pass(time.Minute) // the code was used
	return secret
}

// login is the form of a login.
func (r *rig) login(name, secret string) url.Values {
	return url.Values{"name": {name}, "password": {password}, "code": {r.code(secret)}}
}
