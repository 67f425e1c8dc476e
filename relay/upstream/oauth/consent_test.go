package oauth

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/fakeprovider"
)

func TestDeviceCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := fake(fakeprovider.OAuthOptions{Consenter: mailbox, DevicePolls: 3})
		s := newSource(t, personOptions(a, NewMemoryGrants()))
		_, err := s.Token(t.Context(), mailbox) // the daemon has found out already
		wantFault(t, err, mail.AccountFault, codeNoGrant)
		c, err := s.Consent(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		p := c.Prompt()
		if p.Flow != DeviceCode || p.URL != "https://login.example.com/device" || len(p.Code) != 9 || p.Paste ||
			time.Until(p.Expires) != 15*time.Minute {
			t.Errorf("prompt %+v", p)
		}
		begun := time.Now()
		if err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(begun); got != 20*time.Second {
			t.Errorf("four polls took %v", got)
		}
		who, scopes, ok := a.Valid(mustToken(t, s).AccessToken.Reveal())
		if !ok || who != mailbox || strings.Join(scopes, " ") != scope+" offline_access" {
			t.Errorf("token for %q %q", who, scopes)
		}
		wantRequests(t, a, "token:refresh_token", 0) // the one that came with the consent is good
	})
}

// RFC 8628 §3.5: slow_down makes the interval 5 s longer, for this and all later polls.
func TestDeviceCodeSlowDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := fake(fakeprovider.OAuthOptions{Consenter: mailbox, DevicePolls: 2})
		s := newSource(t, personOptions(a, NewMemoryGrants()))
		c, err := s.Consent(t.Context(), DeviceCode)
		if err != nil {
			t.Fatal(err)
		}
		a.Fail(fakeprovider.Fault{Endpoint: "token", Times: 2, Error: "slow_down"})
		begun := time.Now()
		if err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := time.Since(begun), (5+10+15+15+15)*time.Second; got != want {
			t.Errorf("took %v, want %v", got, want)
		}
		wantRequests(t, a, "slow_down", 0) // never faster than told
	})
}

func TestDeviceCodeWhileTheServerIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := fake(fakeprovider.OAuthOptions{Consenter: mailbox})
		s := newSource(t, personOptions(a, NewMemoryGrants()))
		c, err := s.Consent(t.Context(), DeviceCode)
		if err != nil {
			t.Fatal(err)
		}
		a.Fail(fakeprovider.Fault{Drop: true, Times: 3}, fakeprovider.Fault{Status: 503, Times: 1})
		begun := time.Now()
		if err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := time.Since(begun), (5+10+20+40+80)*time.Second; got != want {
			t.Errorf("took %v, want %v", got, want)
		}
	})
}

func TestDeviceCodeEnds(t *testing.T) {
	t.Run("nobody comes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := fake(fakeprovider.OAuthOptions{DeviceInterval: 7 * time.Second}) // which does not meet the end
			c, err := newSource(t, personOptions(a, NewMemoryGrants())).Consent(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			wantFault(t, c.Wait(t.Context()), mail.AccountFault, "expired_token")
			if got := time.Since(begun); got > 15*time.Minute {
				t.Errorf("waited %v", got)
			}
		})
	})
	t.Run("declined", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := fake(fakeprovider.OAuthOptions{})
			c, err := newSource(t, personOptions(a, NewMemoryGrants())).Consent(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			if !a.ConsentDevice(c.Prompt().Code, "") {
				t.Fatal("the code that is shown is not known")
			}
			wantFault(t, c.Wait(t.Context()), mail.AccountFault, "AADSTS65004")
		})
	})
	t.Run("blocked by the tenant", func(t *testing.T) {
		a := fake(fakeprovider.OAuthOptions{})
		a.Fail(fakeprovider.Fault{Endpoint: "device", AADSTS: 53003})
		_, err := newSource(t, personOptions(a, NewMemoryGrants())).Consent(t.Context(), "")
		if e := wantFault(t, err, mail.AccountFault, "AADSTS53003"); !strings.Contains(e.Fix,
			"--flow authorization-code") {
			t.Errorf("fix %q", e.Fix)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := fake(fakeprovider.OAuthOptions{})
			c, err := newSource(t, personOptions(a, NewMemoryGrants())).Consent(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := c.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	})
	t.Run("no refresh token", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := fake(fakeprovider.OAuthOptions{Consenter: mailbox})
			o := personOptions(a, NewMemoryGrants())
			o.Scopes = []string{scope}
			c, err := newSource(t, o).Consent(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			wantFault(t, c.Wait(t.Context()), mail.AccountFault, "no_refresh_token")
		})
	})
}

// What a server wants shown goes to a terminal and a browser.
func TestDevicePromptIsDistrusted(t *testing.T) {
	for _, body := range []string{
		`{}`, `[]`, `"`, `{"device_code":"d","user_code":"A\u001b[2J","verification_uri":"https://a.example"}`,
		`{"device_code":"d","user_code":"A","verification_uri":"javascript:alert(1)"}`,
		`{"device_code":"d","user_code":"A","verification_uri":"http://a.example/"}`,
		`{"device_code":"d","user_code":"` + strings.Repeat("A", 100) + `","verification_uri":"https://a.example"}`,
		`{"user_code":"A","verification_uri":"https://a.example"}`,
	} {
		a := fake(fakeprovider.OAuthOptions{})
		a.Fail(fakeprovider.Fault{Endpoint: "device", Status: 200, Body: body})
		_, err := newSource(t, personOptions(a, NewMemoryGrants())).Consent(t.Context(), "")
		if e := new(Error); !errors.As(err, &e) || e.Class != mail.BackPressure {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// codeConsent begins an authorization code.
func codeConsent(t *testing.T, a *fakeprovider.OAuth, change func(*Options)) (*Source, *Consent) {
	t.Helper()
	o := personOptions(a, NewMemoryGrants())
	o.Flow, o.Username = AuthorizationCode, mailbox
	if change != nil {
		change(&o)
	}
	s := newSource(t, o)
	c, err := s.Consent(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return s, c
}

// visit does what a browser does at the login page, and returns where it is sent.
func visit(t *testing.T, a *fakeprovider.OAuth, address string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := testkit.Transport(a).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusFound {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("the login page answers %d %s", resp.StatusCode, body)
	}
	return resp.Header.Get("Location")
}

func get(t *testing.T, address string) (int, string) {
	t.Helper()
	resp, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestAuthorizationCodeOnLoopback(t *testing.T) {
	a := fake(fakeprovider.OAuthOptions{Consenter: mailbox})
	s, c := codeConsent(t, a, nil)
	p := c.Prompt()
	u, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	for key, want := range map[string]string{
		"client_id": client, "response_type": "code", "scope": scope + " offline_access",
		"code_challenge_method": "S256",
		"login_hint":            mailbox, "redirect_uri": p.Listening, "prompt": "login",
	} {
		if q.Get(key) != want {
			t.Errorf("%s is %q, want %q", key, q.Get(key), want)
		}
	}
	if u.Host+u.Path != "login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/authorize" ||
		!strings.HasPrefix(p.Listening, "http://localhost:") || !p.Paste {
		t.Errorf("prompt %+v", p)
	}
	back := visit(t, a, p.URL)

	// Others may knock; that changes nothing.
	for _, other := range []string{"", "?code=evil&state=guess", "?code=evil", "?error=access_denied", "/favicon.ico"} {
		if status, body := get(t, p.Listening+other); status < 400 || strings.Contains(body, "evil") {
			t.Errorf("%q: %d %s", other, status, body)
		}
	}
	if status, body := get(t, back); status != 200 || !strings.Contains(body, "You may close this window") {
		t.Errorf("%d %s", status, body)
	}
	if err := c.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if who, _, ok := a.Valid(mustToken(t, s).AccessToken.Reveal()); !ok || who != mailbox {
		t.Errorf("token for %q", who)
	}
	c.Close()
	if conn, err := net.Dial("tcp", strings.TrimPrefix(strings.Replace(p.Listening, "localhost", "127.0.0.1", 1),
		"http://")); err == nil {
		_ = conn.Close()
		t.Error("still listening")
	}
}

func TestAuthorizationCodePasted(t *testing.T) {
	for _, tc := range []struct {
		name  string
		paste func(address string) string
	}{
		{"address", func(s string) string { return "  " + s + "\r\n" }},
		{"address with fragment", func(s string) string { return s + "#" }},
		{"query", func(s string) string { _, q, _ := strings.Cut(s, "?"); return q }},
		{"code", func(s string) string { u, _ := url.Parse(s); return u.Query().Get("code") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := fake(fakeprovider.OAuthOptions{Consenter: mailbox})
			s, c := codeConsent(t, a, nil)
			for _, wrong := range []string{"", "   ", "what?", "https://login.microsoftonline.com/",
				"http://localhost:1/?code=x&state=y", "two words", "state=abc"} {
				if c.Paste(wrong) == nil {
					t.Errorf("took %q", wrong)
				}
			}
			if err := c.Paste(tc.paste(visit(t, a, c.Prompt().URL))); err != nil {
				t.Fatal(err)
			}
			if err := c.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			mustToken(t, s)
		})
	}
}

// A code of somebody else's login does not fit our verifier: that is what PKCE is for.
func TestCodeOfAnotherLogin(t *testing.T) {
	a := fake(fakeprovider.OAuthOptions{Consenter: "mallory@example.com"})
	_, mallory := codeConsent(t, a, func(o *Options) { o.Provider = ""; setEndpoints(o) })
	_, c := codeConsent(t, a, func(o *Options) { o.Provider = ""; setEndpoints(o) })
	u, err := url.Parse(visit(t, a, mallory.Prompt().URL))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Paste(u.Query().Get("code")); err != nil {
		t.Fatal(err)
	}
	if e := new(Error); !errors.As(c.Wait(t.Context()), &e) || e.Class != mail.AccountFault {
		t.Errorf("%v", e)
	}
}

func setEndpoints(o *Options) {
	o.Tenant, o.Scopes = "", []string{scope, "offline_access"}
	o.TokenURL, o.AuthURL, o.DeviceURL = "https://id.example.com/token", "https://id.example.com/authorize",
		"https://id.example.com/devicecode"
}

func TestAuthorizationCodeDeclined(t *testing.T) {
	a := fake(fakeprovider.OAuthOptions{})
	_, c := codeConsent(t, a, nil)
	q := url.Values{"state": {c.state}, "error": {"access_denied"},
		"error_description": {"AADSTS65004: User declined <script>"}}
	status, body := get(t, c.Prompt().Listening+"?"+q.Encode())
	if status != 400 || !strings.Contains(body, "the person declined") || strings.Contains(body, "<script>") {
		t.Errorf("%d %s", status, body)
	}
	wantFault(t, c.Wait(t.Context()), mail.AccountFault, "AADSTS65004")
}

func TestConsentWhereNoneIsNeeded(t *testing.T) {
	_, err := newSource(t, appOptions(confidential(fakeprovider.OAuthOptions{}))).Consent(t.Context(), "")
	if err == nil || !strings.Contains(err.Error(), "nothing to log in to") {
		t.Errorf("%v", err)
	}
}

func TestConsentIsNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := fake(fakeprovider.OAuthOptions{Consenter: mailbox})
		store := &flakyStore{MemoryGrants: NewMemoryGrants()}
		store.fail(errDisk, 0, false)
		c, err := newSource(t, personOptions(a, store)).Consent(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		wantFault(t, c.Wait(t.Context()), mail.BackPressure, codeStore)
	})
}
