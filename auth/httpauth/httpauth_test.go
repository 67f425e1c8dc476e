package httpauth

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/auth/authtest"
	"postern/internal/testkit"
)

func source(t *testing.T, o Options) *Source {
	t.Helper()
	o.Name = "http"
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// program is what an office might write.
func program(w http.ResponseWriter, r *http.Request) {
	var q struct{ Login, Password string }
	data, err := io.ReadAll(r.Body)
	if r.Method != http.MethodPost || r.Header.Get("Authorization") != "Bearer token" || err != nil ||
		json.Unmarshal(data, &q) != nil {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	known := q.Login == "anna" || q.Login == "gone"
	switch {
	case !known:
		io.WriteString(w, `{"result": "unknown"}`)
	case q.Login == "gone":
		io.WriteString(w, `{"result": "locked", "reason": "left in May"}`)
	case q.Password != "right":
		io.WriteString(w, `{"result": "wrong"}`)
	default:
		io.WriteString(w, `{"result": "ok", "login": "Anna@Example.com", "groups": ["staff"], "senders":
			["anna@example.com", "*@example.org"], "networks": ["192.0.2.0/24", "2001:db8::1"], "later": 1}`)
	}
}

func TestProgram(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(program))
	defer server.Close()
	s := source(t, Options{URL: server.URL, Token: "token"})
	authtest.RunSource(t, s, authtest.Fixture{Login: "anna", Password: "right", LockedLogin: "gone",
		LockedPassword: "right"})
	id, err := s.Verify(t.Context(), "anna", "right")
	want := auth.Identity{Login: "anna@example.com", Groups: []string{"staff"},
		Senders:  []string{"anna@example.com", "*@example.org"},
		Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::1/128")}}
	if err != nil || !reflect.DeepEqual(id, want) {
		t.Errorf("%+v, %v", id, err)
	}
	if err := s.Probe(t.Context()); err != nil {
		t.Error(err)
	}
	if err := source(t, Options{URL: server.URL}).Probe(t.Context()); err == nil {
		t.Error("without the token it answers")
	}
}

func TestTLS(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(program))
	defer server.Close()
	server.Config.ErrorLog = nil
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	if _, err := source(t, Options{URL: server.URL, RootCAs: roots, Token: "token"}).Verify(t.Context(), "anna",
		"right"); err != nil {
		t.Error(err)
	}
	other := x509.NewCertPool()
	other.AppendCertsFromPEM(testkit.NewCA(t).PEM)
	_, err := source(t, Options{URL: server.URL, RootCAs: other}).Verify(t.Context(), "anna", "right")
	if err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("another CA: %v", err)
	}
}

func TestProgramsThatMisbehave(t *testing.T) {
	answer := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	const js = "application/json"
	ok := `{"result": "ok"}`
	stolen := make(chan string, 1)
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		stolen <- string(body)
	}))
	defer thief.Close()
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"500":          {answer(500, js, ok), "status 500"},
		"401":          {answer(401, js, `{"result": "wrong"}`), "status 401"},
		"204":          {answer(204, js, ""), "status 204"},
		"redirect":     {http.RedirectHandler(thief.URL, http.StatusTemporaryRedirect).ServeHTTP, "status 307"},
		"a login page": {answer(200, "text/html", "<html>ok"), "text/html"},
		"no JSON":      {answer(200, js, "ok"), "not the JSON"},
		"two values":   {answer(200, js, ok+ok), "not the JSON"},
		"null":         {answer(200, js, "null"), "not known"},
		"a list":       {answer(200, js, "[]"), "not the JSON"},
		"no result":    {answer(200, js, `{"login": "anna"}`), "not known"},
		"true":         {answer(200, js, `{"result": true}`), "not the JSON"},
		"unheard of":   {answer(200, js, "{\"result\": \"yes\\u001b[2J\"}"), "not known"},
		"huge":         {answer(200, js, `{"result": "ok", "x": "`+strings.Repeat("x", maxAnswer)+`"}`), "longer than"},
		"bad senders":  {answer(200, js, `{"result": "ok", "senders": ["nonsense"]}`), "its answer"},
		"all senders":  {answer(200, js, `{"result": "ok", "senders": [""]}`), "its answer"},
		"bad networks": {answer(200, js, `{"result": "ok", "networks": ["here"]}`), "no network"},
		"no networks":  {answer(200, js, `{"result": "ok", "networks": []}`), "networks is empty"},
		"bad groups":   {answer(200, js, `{"result": "ok", "groups": ["a\nb"]}`), "no name of a group"},
		"bad login":    {answer(200, js, `{"result": "ok", "login": " "}`), "login that cannot be"},
		"later":        {answer(200, js, `{"result": "later"}`), "cannot decide"},
		"huge header": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 2*maxAnswer))
			answer(200, js, ok)(w, r)
		}, ""},
		"hangs up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ""},
		"silence": {func(_ http.ResponseWriter, r *http.Request) {
			io.ReadAll(r.Body)
			<-r.Context().Done()
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(c.handler)
			defer server.Close()
			timeout := time.Minute
			if name == "silence" {
				timeout = 100 * time.Millisecond
			}
			id, err := source(t, Options{URL: server.URL, Timeout: timeout}).Verify(t.Context(), "anna", "hunter2")
			if err == nil || errors.Is(err, auth.ErrWrongPassword) || errors.Is(err, auth.ErrUnknownLogin) ||
				!strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v, %v; want %q", id, err, c.want)
			}
			if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\x1b")) {
				t.Errorf("%q", err)
			}
		})
	}
	select {
	case body := <-stolen:
		t.Errorf("a redirect took away %q", body)
	default:
	}
	yes := httptest.NewServer(answer(200, js, ok))
	defer yes.Close()
	if err := source(t, Options{URL: yes.URL}).Probe(t.Context()); err == nil {
		t.Error("a program that says yes to everything is taken for a good one")
	}
}

func TestCheckURL(t *testing.T) {
	for url, right := range map[string]bool{
		"https://accounts.example.com/check": true, "http://127.0.0.1:8080/": true, "http://localhost/x": true,
		"http://[::1]:1/": true, "http://accounts.example.com/": false, "http://127.0.0.1.example.com/": false,
		"http://localhost.example.com/": false, "ftp://x.example/": false, "https://": false, "x": false,
		"https://a:b@x.example/": false, "": false, "http://0.0.0.0/": false,
	} {
		if err := CheckURL(url); (err == nil) != right {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func FuzzParseAnswer(f *testing.F) {
	for _, s := range []string{
		`{"result":"ok","login":"a","groups":["x"],"senders":["*@x.example"],"networks":["::1"]}`,
		`{"result":"locked","reason":"\u001b"}`, `{"result":"unknown"}`, "null", `{"RESULT":"ok"}`, "[[[["} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		id, err := parseAnswer(data, "anna")
		if err != nil && !reflect.DeepEqual(id, auth.Identity{}) {
			t.Errorf("%q: refused, and is %+v", data, id)
		}
		if n, ok := auth.NormalizeLogin(id.Login); err == nil && (!ok || n != id.Login) {
			t.Errorf("%q let %q in", data, id.Login)
		}
	})
}
