package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	validator "github.com/pb33f/libopenapi-validator"

	"postern/admin/access"
	"postern/auth"
	"postern/internal/testkit"
	"postern/mail"
	"postern/operate"
	"postern/relay/config"
	"postern/relay/keyring"
	"postern/relay/queue"
	"postern/relay/status"
	"postern/relay/store"
	"postern/relay/trace"
)

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// Who asks in tests.
var (
	admin = operate.Actor{Name: "anna", Channel: operate.Console, Role: operate.Admin, Strong: true,
		Client: "192.0.2.9"}
	token = operate.Actor{Name: "script", Channel: operate.API, Scopes: []operate.Scope{operate.ScopeAdmin}}
)

// relayTOML is in force; nobody listens where its hook and its CA are.
const relayTOML = `hostname = "relay.example.com"
[tls.acme]
challenges = ["dns-01"]
directory_url = "https://127.0.0.1:1/dir"
[tls.acme.acmedns]
url = "https://127.0.0.1:1"
username = "u"
password = "env:NOT_READ"
full_domain = "d420.auth.example.com"
[[listener]]
address = "127.0.0.1:587"
[[listener]]
name = "devices"
address = "127.0.0.1:2525"
profile = "appliance"
networks = ["10.0.5.0/24"]
[[alert]]
url = "https://127.0.0.1:1/hook"
`

// rig is the API over a real store. Whatever it answers is held against its description by a second implementation.
type rig struct {
	access *access.Access
	t      testing.TB
	api    *server
	store  *store.Store
	log    *testkit.Log
	check  validator.Validator
	now    time.Time
}

var theirs = sync.OnceValue(func() validator.Validator { return secondOpinion(panicTB{}, newServer(Options{}).spec) })

// panicTB lets a validator be made outside of a test.
type panicTB struct{ testing.TB }

func (panicTB) Helper()           {}
func (panicTB) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func newRig(t testing.TB) *rig {
	t.Helper()
	return newRigAt(t, store.Options{Dir: t.TempDir(), Daemon: true, MinFree: -1})
}

func newRigAt(t testing.TB, at store.Options) *rig {
	t.Helper()
	s, err := store.Open(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.AnswerEvents(t.Context(), math.MaxInt64); err != nil { // nobody keeps any back
		t.Fatal(err)
	}
	r := &rig{t: t, store: s, log: &testkit.Log{}, check: theirs(), now: noon}
	file := filepath.Join(t.TempDir(), "relay.toml")
	if err := os.WriteFile(file, []byte(relayTOML), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Read(file)
	if c == nil {
		t.Fatal(err)
	}
	report := func(context.Context) (*status.Report, error) {
		return &status.Report{Running: true, Time: noon, Upstreams: []status.Upstream{{Name: "m365"}},
			Queue: status.Queue{Waiting: 7}}, nil
	}
	r.access, err = access.New(t.Context(), access.Options{Store: s, Now: func() time.Time { return r.now },
		URL: &url.URL{Scheme: "https", Host: "relay.example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	r.api = newServer(Options{
		Access: r.access,
		Operations: operate.New(operate.Options{Config: func() *config.Config { return c }, Store: s, Status: report,
			DNS: silentDNS{}}),
		Answers: s, Logger: slog.New(slog.NewTextHandler(r.log, nil)), Now: func() time.Time { return r.now },
	})
	return r
}

// answer is what the API said.
type answer struct {
	*http.Response
	body []byte
}

// json reads the answer.
func (a answer) json(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
}

// problem is the last part of the problem's type; "" is none.
func (a answer) problem() string {
	var p Problem
	if a.Header.Get("Content-Type") != problemJSON || json.Unmarshal(a.body, &p) != nil {
		return ""
	}
	return strings.TrimPrefix(p.Type, problemType)
}

// request makes a request with the usual fields.
func request(method, path, body string) *http.Request {
	req := httptest.NewRequest(method, Prefix+path, strings.NewReader(body))
	if method == http.MethodPost || method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/json")
	}
	return req
}

// do asks as somebody.
func (r *rig) do(by operate.Actor, req *http.Request) answer {
	r.t.Helper()
	return r.serve(req.WithContext(operate.WithActor(req.Context(), by)))
}

func (r *rig) serve(req *http.Request) answer {
	r.t.Helper()
	w := httptest.NewRecorder()
	r.api.ServeHTTP(w, req)
	res := w.Result()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	if _, pattern := r.api.mux.Handler(req); pattern != "" && res.Header.Get("Content-Type") != "message/rfc822" {
		req.Body = io.NopCloser(strings.NewReader("{}"))
		if ok, errs := r.check.ValidateHttpResponse(req, res); !ok {
			for _, e := range errs {
				r.t.Errorf("%s %s: the answer does not fit the description: %v %s\n%s", req.Method, req.URL, e,
					e.Reason,
					mail.Cut(string(body), 600))
			}
		}
	}
	for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
		"Access-Control-Allow-Origin": ""} {
		if got := res.Header.Get(name); got != want {
			r.t.Errorf("%s %s: %s: %q", req.Method, req.URL, name, got)
		}
	}
	if res.StatusCode == http.StatusInternalServerError {
		r.t.Logf("the log: %.3000s", r.log)
	}
	return answer{res, body}
}

// get asks as the admin and wants 200.
func (r *rig) get(path string, v any) answer {
	r.t.Helper()
	a := r.do(admin, request(http.MethodGet, path, ""))
	if a.StatusCode != http.StatusOK {
		r.t.Fatalf("GET %s: %d %s", path, a.StatusCode, a.body)
	}
	a.json(r.t, v)
	return a
}

// post asks as the admin and wants this status.
func (r *rig) post(path, body string, want int, v any) answer {
	r.t.Helper()
	return r.send(http.MethodPost, path, body, want, v)
}

func (r *rig) send(method, path, body string, want int, v any) answer {
	r.t.Helper()
	a := r.do(admin, request(method, path, body))
	if a.StatusCode != want {
		r.t.Fatalf("%s %s: %d %s", method, path, a.StatusCode, a.body)
	}
	if v != nil {
		a.json(r.t, v)
	}
	return a
}

// queued puts a message into the queue.
func (r *rig) queued(id string, change func(*queue.Message)) {
	r.t.Helper()
	if err := r.store.Add(r.t.Context(), r.message(id, change)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) message(id string, change func(*queue.Message)) queue.NewMessage {
	r.t.Helper()
	to := address(r.t, "bob@example.org")
	content := mail.BytesContent("Subject: x\r\n\r\nhello\r\n")
	m := &queue.Message{ID: id, Login: "anna", Envelope: mail.Envelope{From: address(r.t, "anna@example.com")},
		Recipients: []queue.Recipient{{Recipient: mail.Recipient{To: to}, Status: queue.Pending}}, Size: content.Size(),
		Received: noon, Expires: noon.Add(time.Hour), NextAttempt: noon}
	if change != nil {
		change(m)
	}
	return queue.NewMessage{Message: m, Content: content}
}

func address(t testing.TB, text string) mail.Address {
	t.Helper()
	a, err := mail.ParseAddress(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// happened writes events into the trace, a second apart.
func (r *rig) happened(events ...trace.Event) {
	r.t.Helper()
	for i := range events {
		if events[i].Time.IsZero() {
			events[i].Time = noon.Add(time.Duration(i) * time.Second)
		}
	}
	if err := r.store.AppendEventsNow(r.t.Context(), events); err != nil {
		r.t.Fatal(err)
	}
}

// account adds one with a password that nobody knows.
func (r *rig) account(login string, device bool) {
	r.t.Helper()
	if err := r.store.AddUser(r.t.Context(), auth.User{Login: login, Device: device, Hash: "x", Created: noon,
		Changed: noon}); err != nil {
		r.t.Fatal(err)
	}
}

// locked locks an address or a login out.
func (r *rig) locked(locks ...auth.Lock) {
	r.t.Helper()
	if err := r.store.LoginLockout().Save(r.t.Context(), time.Now(), auth.Unsaved{Locks: locks}); err != nil {
		r.t.Fatal(err)
	}
}

func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

// pages follows next to the end and returns the keys of all rows.
func pages[T any](r *rig, path string, rows func([]byte) ([]T, string), between func(page int)) (all []T) {
	r.t.Helper()
	u, err := url.Parse(path)
	if err != nil {
		r.t.Fatal(err)
	}
	for n := 1; ; n++ {
		a := r.do(admin, request(http.MethodGet, u.String(), ""))
		if a.StatusCode != http.StatusOK {
			r.t.Fatalf("page %d: %d %s", n, a.StatusCode, a.body)
		}
		some, next := rows(a.body)
		all = append(all, some...)
		link := a.Header.Get("Link")
		if next == "" {
			if link != "" {
				r.t.Errorf("the last page names a next one: %s", link)
			}
			return all
		}
		query := u.Query()
		query.Set("cursor", next)
		u.RawQuery = query.Encode()
		if want := "<" + Prefix + u.String() + `>; rel="next"`; link != want {
			r.t.Fatalf("Link is %s, want %s", link, want)
		}
		if between != nil {
			between(n)
		}
	}
}

func scopes(list ...operate.Scope) operate.Actor {
	return operate.Actor{Name: "t", Channel: operate.API, Scopes: slices.Clone(list)}
}

// silentDNS answers nothing.
type silentDNS struct{}

func (silentDNS) DKIM(context.Context, string, string) (keyring.Answer, error) {
	return keyring.Answer{}, errors.New("no answer")
}
