package fakeprovider

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/testkit"
)

const (
	client  = "app"
	mailbox = "ann@example.com"
	base    = "https://login.example.com/tenant/oauth2/v2.0/"
)

// ask posts a form and returns the answer; an error is its "error" member.
func ask(t *testing.T, a *OAuth, path string, pairs ...string) map[string]any {
	t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Add(pairs[i], pairs[i+1])
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := testkit.Transport(a).RoundTrip(r)
	if err != nil {
		return map[string]any{"error": err.Error()}
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	answer := map[string]any{}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return map[string]any{"error": resp.Status}
	}
	if _, failed := answer["error"]; failed != (resp.StatusCode >= 400) {
		t.Fatalf("%d %s", resp.StatusCode, raw)
	}
	return answer
}

func server(o OAuthOptions) *OAuth {
	a := NewOAuth(o)
	a.AddClient(Client{ID: client})
	a.AddClient(Client{ID: "office", Secret: "secret"})
	return a
}

func wantError(t *testing.T, answer map[string]any, want string) {
	t.Helper()
	if answer["error"] != want {
		t.Fatalf("answer %v, want error %s", answer, want)
	}
}

func text(t *testing.T, answer map[string]any, key string) string {
	t.Helper()
	s, ok := answer[key].(string)
	if !ok {
		t.Fatalf("no %s in %v", key, answer)
	}
	return s
}

func TestClientsProveThemselves(t *testing.T) {
	a := server(OAuthOptions{})
	for _, tc := range []struct {
		want  string
		pairs []string
	}{
		{"", []string{"client_id", "office", "client_secret", "secret"}},
		{"invalid_client", []string{"client_id", "office", "client_secret", "guess"}},
		{"invalid_client", []string{"client_id", "office"}},
		{"invalid_client", []string{"client_id", client, "client_secret", "x"}},
		{"unauthorized_client", []string{"client_id", client}},
		{"unauthorized_client", []string{"client_id", "nobody", "client_secret", "x"}},
		{"invalid_client", []string{"client_id", "office", "client_assertion_type", assertionType, "client_assertion",
			"a.b.c"}},
		{"invalid_request", []string{"client_id", "office", "client_id", "office"}},
		{"invalid_scope", []string{"client_id", "office", "client_secret", "secret", "no", "scope"}},
	} {
		pairs := slices.Concat([]string{"grant_type", "client_credentials"}, tc.pairs)
		if tc.want != "invalid_scope" {
			pairs = append(pairs, "scope", "s")
		}
		answer := ask(t, a, "token", pairs...)
		if tc.want != "" {
			wantError(t, answer, tc.want)
			continue
		}
		if who, scopes, ok := a.Valid(text(t, answer, "access_token")); !ok || who != AnyMailbox || scopes[0] != "s" {
			t.Errorf("%q %q %t", who, scopes, ok)
		}
	}
	wantError(t, ask(t, a, "token", "client_id", client, "grant_type", "password"), "unsupported_grant_type")
}

func TestRotationAndReuse(t *testing.T) {
	a := server(OAuthOptions{})
	refresh := func(token string) map[string]any {
		return ask(t, a, "token", "client_id", client, "grant_type", "refresh_token", "refresh_token", token)
	}
	first := a.Consent(client, mailbox, "s")
	answer := refresh(first)
	second, access := text(t, answer, "refresh_token"), text(t, answer, "access_token")
	if who, _, ok := a.Valid(access); !ok || who != mailbox || second == first {
		t.Fatal("no rotation")
	}
	wantError(t, refresh(first), "invalid_grant")
	if a.Requests("reuse") != 1 {
		t.Error("reuse is not counted")
	}
	wantError(t, refresh(second), "invalid_grant")
	if _, _, ok := a.Valid(access); ok {
		t.Error("reuse does not revoke")
	}

	a.Set(func(o *OAuthOptions) { o.KeepRefresh = true })
	kept := a.Consent(client, mailbox, "s")
	for range 3 {
		if _, ok := refresh(kept)["refresh_token"]; ok {
			t.Error("rotates")
		}
	}
	a.RevokeConsents(mailbox)
	wantError(t, refresh(kept), "invalid_grant")
}

func TestClockDrivesLifetimes(t *testing.T) {
	a := server(OAuthOptions{Lifetime: time.Minute, RefreshLifetime: time.Hour})
	answer := ask(t, a, "token", "client_id", client, "grant_type", "refresh_token", "refresh_token",
		a.Consent(client, mailbox, "s"))
	access, refresh := text(t, answer, "access_token"), text(t, answer, "refresh_token")
	a.Advance(59 * time.Second)
	if _, _, ok := a.Valid(access); !ok {
		t.Error("ended early")
	}
	a.Advance(2 * time.Second)
	if _, _, ok := a.Valid(access); ok {
		t.Error("does not end")
	}
	a.Advance(time.Hour)
	wantError(t, ask(t, a, "token", "client_id", client, "grant_type", "refresh_token", "refresh_token", refresh),
		"invalid_grant")
}

func TestDeviceFlow(t *testing.T) {
	a := server(OAuthOptions{})
	d := ask(t, a, "devicecode", "client_id", client, "scope", "s")
	poll := func() map[string]any {
		return ask(t, a, "token", "client_id", client, "grant_type", "urn:ietf:params:oauth:grant-type:device_code",
			"device_code", text(t, d, "device_code"))
	}
	wantError(t, poll(), "slow_down")
	a.Advance(5 * time.Second)
	wantError(t, poll(), "slow_down") // 10 s now
	a.Advance(15 * time.Second)
	wantError(t, poll(), "authorization_pending")
	if !a.ConsentDevice(text(t, d, "user_code"), mailbox) {
		t.Fatal("the code is unknown")
	}
	a.Advance(15 * time.Second)
	answer := poll()
	if who, _, ok := a.Valid(text(t, answer, "access_token")); !ok || who != mailbox ||
		text(t, answer, "refresh_token") == "" {
		t.Errorf("for %q", who)
	}
	a.Advance(15 * time.Second)
	wantError(t, poll(), "invalid_grant")

	d = ask(t, a, "devicecode", "client_id", client, "scope", "s")
	a.Advance(15 * time.Minute)
	wantError(t, poll(), "expired_token")
	if a.ConsentDevice(text(t, d, "user_code"), mailbox) {
		t.Error("consent to a code that has ended")
	}
}

func TestCodeNeedsItsVerifier(t *testing.T) {
	a := server(OAuthOptions{Consenter: mailbox})
	sum := sha256.Sum256([]byte("verifier"))
	authorize := func(change url.Values) *http.Response {
		q := url.Values{
			"client_id": {client}, "response_type": {"code"}, "redirect_uri": {"http://localhost:1234"},
			"scope": {"s"}, "state": {"st"},
			"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
		}
		for k, v := range change {
			q[k] = v
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"authorize?"+q.Encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := testkit.Transport(a).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	redeem := func(code, verifier, redirect string) map[string]any {
		return ask(t, a, "token", "client_id", client, "grant_type", "authorization_code", "code", code,
			"code_verifier", verifier, "redirect_uri", redirect)
	}
	back := func(change url.Values) url.Values {
		u, err := authorize(change).Location()
		if err != nil {
			t.Fatal(err)
		}
		return u.Query()
	}
	resp := authorize(url.Values{"redirect_uri": {"https://evil.example/"}})
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("redirects anywhere: %d", resp.StatusCode)
	}
	if q := back(url.Values{"code_challenge": {""}}); q.Get("error") != "invalid_request" || q.Get("state") != "st" {
		t.Errorf("without a challenge: %v", q)
	}
	q := back(nil)
	code := q.Get("code")
	if q.Get("state") != "st" || code == "" {
		t.Fatalf("%v", q)
	}
	wantError(t, redeem(code, "wrong", "http://localhost:1234"), "invalid_grant")
	wantError(t, redeem(code, "verifier", "http://localhost:9999"), "invalid_grant")
	answer := redeem(code, "verifier", "http://localhost:1234")
	if who, _, ok := a.Valid(text(t, answer, "access_token")); !ok || who != mailbox {
		t.Errorf("for %q", who)
	}
	wantError(t, redeem(code, "verifier", "http://localhost:1234"), "invalid_grant")

	a.Set(func(o *OAuthOptions) { o.Consenter = "" })
	if resp := authorize(nil); resp.StatusCode != http.StatusOK {
		t.Errorf("the form: %d", resp.StatusCode)
	}
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := server(OAuthOptions{Microsoft: true})
		form := []string{"grant_type", "client_credentials", "client_id", "office", "client_secret", "secret",
			"scope", "r/.default"}
		a.Fail(Fault{Times: 1, Drop: true}, Fault{Times: 2, Status: 503, Body: "<html>"},
			Fault{Endpoint: "device", Status: 404}, Fault{Times: 1, AADSTS: 53003, Description: "Blocked"})
		wantError(t, ask(t, a, "token", form...), io.ErrUnexpectedEOF.Error())
		for range 2 {
			wantError(t, ask(t, a, "token", form...), "503 Service Unavailable")
		}
		answer := ask(t, a, "token", form...)
		if wantError(t, answer, "invalid_grant"); !strings.HasPrefix(text(t, answer, "error_description"),
			"AADSTS53003: Blocked\r\nTrace ID: ") {
			t.Errorf("%v", answer)
		}
		text(t, ask(t, a, "token", form...), "access_token")
		wantError(t, ask(t, a, "devicecode", "client_id", client), "404 Not Found")
		if a.Requests("token") != 5 || a.Counts()["token:client_credentials"] != 5 || a.Requests("device") != 1 {
			t.Errorf("%v", a.Counts())
		}

		a.Fail(Fault{Delay: time.Minute})
		begun := time.Now()
		text(t, ask(t, a, "token", form...), "access_token")
		if time.Since(begun) != time.Minute {
			t.Error("no delay")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"token", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := testkit.Transport(a).RoundTrip(r); err == nil || time.Since(begun) != time.Minute+time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}

// A lost answer: what the request changed is changed.
func TestLostAnswer(t *testing.T) {
	a := server(OAuthOptions{})
	refresh := a.Consent(client, mailbox, "s")
	a.Fail(Fault{Drop: true, AfterWork: true, Times: 1})
	form := []string{"grant_type", "refresh_token", "client_id", client, "refresh_token", refresh}
	wantError(t, ask(t, a, "token", form...), io.ErrUnexpectedEOF.Error())
	wantError(t, ask(t, a, "token", form...), "invalid_grant")
	if a.Requests("reuse") != 1 {
		t.Error("the first had no effect")
	}
}

func TestListen(t *testing.T) {
	a := server(OAuthOptions{})
	r, err := a.Listen(nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.PostForm(r.URL+"/token", url.Values{"grant_type": {"client_credentials"},
		"client_id": {"office"}, "client_secret": {"secret"}, "scope": {"s"}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s", resp.Status)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
