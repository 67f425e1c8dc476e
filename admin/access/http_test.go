package access

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"postern/operate"
)

func TestAuthenticate(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	_, cookie := r.join("anna", operate.Operator)
	token, err := r.Tokens.Add(ctx, owner, NewToken{Name: "mon", Scopes: []operate.Scope{operate.ScopeRead}})
	if err != nil {
		t.Fatal(err)
	}
	h := r.Authenticate(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok := operate.ActorOf(r.Context())
		fmt.Fprint(w, who.Name, " ", who.Channel, " ", who.Role, " ", who.Client, " ", ok, " ",
			SessionOf(r.Context()) != nil)
	}))
	type header map[string]string
	secure := header{"Cookie": "__Host-postern=" + cookie}
	with := func(h header, more header) header {
		all := header{}
		for k, v := range h {
			all[k] = v
		}
		for k, v := range more {
			all[k] = v
		}
		return all
	}
	for _, c := range []struct {
		what, method, url string
		header            header
		status            int
		says              string // in the body, or Location
	}{
		{"a session", "GET", "https://relay.example.com/queue", secure, 200,
			"anna console operator 192.0.2.1 true true"},
		{"a session at the API", "GET", "https://relay.example.com/api/v1/queue", secure, 200, "anna console"},
		{"a token", "GET", "https://relay.example.com/api/v1/queue", header{"Authorization": "Bearer " + token}, 200,
			"mon API nobody 192.0.2.1 true false"},
		{"a token, in lower case", "GET", "https://relay.example.com/api/v1/queue", header{"Authorization": "bearer " +
			token},
			200, "mon API"},
		{"nothing, page", "GET", "https://relay.example.com/queue?q=a%20b", nil, 303,
			"/login?next=%2Fqueue%3Fq%3Da%2520b"},
		{"nothing, root", "GET", "https://relay.example.com/", nil, 303, "/login"},
		{"nothing, form", "POST", "https://relay.example.com/queue", nil, 303, "/login"},
		{"nothing, htmx", "GET", "https://relay.example.com/queue", header{"HX-Request": "true"}, 401, ""},
		{"nothing, API", "GET", "https://relay.example.com/api/v1/queue", nil, 401, `"code":"session"`},
		{"a cookie of nobody", "GET", "https://relay.example.com/queue", header{"Cookie": "__Host-postern=x"}, 303,
			"/login"},
		{"a bad token", "GET", "https://relay.example.com/api/v1/queue", header{"Authorization": "Bearer pst_x"}, 401,
			`"code":"token"`},
		{"a bad token beside a session", "GET", "https://relay.example.com/queue", with(secure,
			header{"Authorization": "Bearer pst_x"}), 401, `"code":"token"`},
		{"Basic", "GET", "https://relay.example.com/api/v1/queue", header{"Authorization": "Basic eDp5"}, 401,
			"Bearer pst_"},
		{"a cookie without prefix by TLS", "GET", "https://relay.example.com/queue",
			header{"Cookie": "postern=" + cookie}, 303, "/login"},
		{"on loopback", "GET", "http://localhost:8587/queue", header{"Cookie": "postern=" + cookie}, 200,
			"anna"},
		{"on loopback, address", "GET", "http://[::1]:8587/queue", header{"Cookie": "postern=" + cookie}, 200,
			"anna"},
		{"behind a proxy", "GET", "http://relay.example.com/queue", secure, 200, "anna"},
		{"a cookie without prefix behind a proxy", "GET", "http://relay.example.com/queue",
			header{"Cookie": "postern=" + cookie}, 303, "/login"},
		{"our form", "POST", "https://relay.example.com/queue", with(secure, header{"Sec-Fetch-Site": "same-origin"}),
			200,
			"anna"},
		{"another site's form", "POST", "https://relay.example.com/queue", with(secure,
			header{"Sec-Fetch-Site": "cross-site"}), 403, "another site"},
		{"another site's form, old browser", "POST", "https://relay.example.com/queue", with(secure,
			header{"Origin": "https://evil.example"}), 403, "another site"},
		{"another site's link", "GET", "https://relay.example.com/queue", with(secure,
			header{"Sec-Fetch-Site": "cross-site"}), 200, "anna"},
		{"a token from anywhere", "POST", "https://relay.example.com/api/v1/queue", header{"Authorization": "Bearer " +
			token,
			"Sec-Fetch-Site": "cross-site"}, 200, "mon"},
	} {
		req := httptest.NewRequestWithContext(ctx, c.method, c.url, nil)
		req.RemoteAddr = "192.0.2.1:4711"
		for k, v := range c.header {
			req.Header.Set(k, v)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		body := w.Body.String() + w.Header().Get("Location")
		if w.Code != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s: %d %s, want %d and %q", c.what, w.Code, body, c.status, c.says)
		}
		problem := w.Header().Get("Content-Type") == "application/problem+json"
		if problem != (c.status == 401 && c.header["HX-Request"] == "" || c.status == 403) {
			t.Errorf("%s: %d is %s", c.what, w.Code, w.Header().Get("Content-Type"))
		}
		if c.status == 200 && w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s may be cached", c.what)
		}
	}
}

func TestProblem(t *testing.T) {
	w := httptest.NewRecorder()
	Forbid(w, fmt.Errorf("raw: %w", operate.ErrStrong))
	var p map[string]any
	if err := json.NewDecoder(w.Body).Decode(&p); err != nil || w.Code != 403 || p["status"] != 403.0 || p["code"] !=
		"second-factor" || p["type"] != "urn:postern:problem:second-factor" || p["title"] == "" {
		t.Errorf("%d %v, %v", w.Code, p, err)
	}
	for _, c := range []struct {
		status   int
		code, is string
	}{
		{401, "token-expired", "urn:postern:problem:unauthenticated"},
		{401, "session", "urn:postern:problem:unauthenticated"},
		{403, "token-network", "urn:postern:problem:forbidden"},
		{403, "cross-origin", "urn:postern:problem:cross-origin"},
		{503, "unavailable", "urn:postern:problem:busy"}, {429, "locked-out", "about:blank"},
	} {
		w := httptest.NewRecorder()
		Problem(w, c.status, c.code, "why")
		var p map[string]any
		if err := json.NewDecoder(w.Body).Decode(&p); err != nil || p["type"] != c.is || p["code"] != c.code ||
			p["title"] == "" || p["detail"] != "why" {
			t.Errorf("%d %s: %v, %v", c.status, c.code, p, err)
		}
	}
}

func TestCookies(t *testing.T) {
	for url, want := range map[string]string{
		"https://relay.example.com/": "__Host-postern=x; Path=/; Max-Age=43200; HttpOnly; Secure; SameSite=Lax",
		"http://relay.example.com/":  "__Host-postern=x; Path=/; Max-Age=43200; HttpOnly; Secure; SameSite=Lax",
		"http://127.0.0.1:8587/":     "postern=x; Path=/; Max-Age=43200; HttpOnly; SameSite=Lax",
		"http://LOCALHOST/":          "postern=x; Path=/; Max-Age=43200; HttpOnly; SameSite=Lax",
	} {
		r, w := httptest.NewRequest("GET", url, nil), httptest.NewRecorder()
		SetSession(w, r, "x")
		if got := w.Header().Get("Set-Cookie"); got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
		w = httptest.NewRecorder()
		SetFlow(w, r, "y")
		back := httptest.NewRequest("GET", url, nil)
		for _, c := range w.Result().Cookies() {
			back.AddCookie(c)
		}
		if FlowOf(back) != "y" || FlowOf(r) != "" {
			t.Errorf("%s: the cookie of a step does not come back", url)
		}
		w = httptest.NewRecorder()
		SetSession(w, r, "")
		if !strings.Contains(w.Header().Get("Set-Cookie"), "Max-Age=0") {
			t.Errorf("%s: %s does not take the cookie away", url, w.Header().Get("Set-Cookie"))
		}
	}
}

func TestLocalPath(t *testing.T) {
	for next, want := range map[string]string{
		"/queue?x=1": "/queue?x=1", "": "/", "queue": "/", "//evil.example": "/", "/\\evil.example": "/",
		"https://evil.example/": "/", "javascript:alert(1)": "/", "/a\r\nSet-Cookie: x": "/", "/\t/evil.example": "/",
		"/" + strings.Repeat("x", 1000): "/", "/%2f/evil.example": "/%2f/evil.example",
	} {
		if got := LocalPath(next); got != want {
			t.Errorf("%q: %q, want %q", next, got, want)
		}
	}
}

func TestBoundLogins(t *testing.T) {
	r := newRig(t)
	answer := func(status int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
	}
	h := r.BoundLogins(answer(http.StatusNoContent), answer(http.StatusTooManyRequests))
	do := func(method, path, client string) *httptest.ResponseRecorder {
		req, w := httptest.NewRequestWithContext(t.Context(), method, "https://relay.example.com"+path, nil),
			httptest.NewRecorder()
		req.RemoteAddr = client
		h.ServeHTTP(w, req)
		return w
	}
	for i := range loginsAtOnce {
		if w := do("POST", "/login", fmt.Sprintf("[2001:db8::%x]:1", i)); w.Code != http.StatusNoContent {
			t.Fatalf("login %d: %d", i, w.Code)
		}
	}
	for path, want := range map[string]int{"/login": 429, OIDCPath: 429} {
		method := map[string]string{"/login": "POST", OIDCPath: "GET"}[path]
		if w := do(method, path, "[2001:db8::ffff]:1"); w.Code != want || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if w := do("GET", "/login", "[2001:db8::1]:1"); w.Code != http.StatusNoContent {
		t.Errorf("the page itself: %d", w.Code)
	}
	if w := do("POST", "/login", "[2001:db8:1::1]:1"); w.Code != http.StatusNoContent {
		t.Errorf("somebody else: %d", w.Code)
	}
	r.clock.pass(loginsEvery)
	if w := do("POST", "/login", "[2001:db8::1]:1"); w.Code != http.StatusNoContent {
		t.Errorf("later: %d", w.Code)
	}
}

// TestOverHTTP logs in through real HTTPS with a browser's cookie rules.
func TestOverHTTP(t *testing.T) {
	r := newRig(t)
	secret, _ := r.join("anna", operate.Viewer)
	mux := http.NewServeMux()
	mux.Handle("POST /login", r.BoundLogins(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		cookie, err := r.Logins.Login(q.Context(), Credentials{q.FormValue("name"), q.FormValue("password"),
			q.FormValue("code")},
			ClientOf(q))
		if err != nil {
			Problem(w, http.StatusUnauthorized, string(ReasonOf(err)), err.Error())
			return
		}
		SetSession(w, q, cookie)
	}), http.NotFoundHandler()))
	mux.Handle("GET /api/v1/me", r.Authenticate(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		who, _ := operate.ActorOf(q.Context())
		fmt.Fprint(w, who.Name)
	})))
	server := httptest.NewTLSServer(mux)
	defer server.Close()
	c := server.Client()
	c.Transport.(*http.Transport).TLSClientConfig.MinVersion = tls.VersionTLS12
	form := fmt.Sprintf("name=anna&password=%s&code=%s", strings.ReplaceAll(password, " ", "+"), r.code(secret))
	resp, err := c.Post(server.URL+"/login", "application/x-www-form-urlencoded", strings.NewReader(form))
	if err != nil || resp.StatusCode != 200 || len(resp.Cookies()) != 1 {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
	req, _ := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/api/v1/me", nil)
	req.AddCookie(resp.Cookies()[0])
	resp, err = c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "anna" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}
