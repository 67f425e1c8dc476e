package door

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern/admin/access"
	"postern/operate"
)

// provider answers with its documents only: what it vouches for is tested in package access.
func provider(t *testing.T) *httptest.Server {
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"issuer": %q, "authorization_endpoint": %q, "token_endpoint": %q, "jwks_uri": %q,
			"id_token_signing_alg_values_supported": ["RS256"]}`,
			s.URL, s.URL+"/authorize", s.URL+"/token", s.URL+"/keys")
	}))
	t.Cleanup(s.Close)
	return s
}

// TestOIDC: the button is there where the provider is, leads there and back, and what goes wrong is said on the page.
func TestOIDC(t *testing.T) {
	p := provider(t)
	with := func(o *access.Options) {
		o.OIDC = &access.OIDC{Provider: access.Provider{Issuer: p.URL, ClientID: "postern"},
			Roles: map[string]operate.Role{"it": operate.Admin}}
	}
	r := newRig(t, with)
	r.want("the button", "/login?next=/queue", nil, 200, `href="/login/oidc/start?next=%2Fqueue"`)
	a := r.want("begin", "/login/oidc/start?next=/queue", nil, 303, p.URL+"/authorize?")
	to, err := url.Parse(a.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	q := to.Query()
	if q.Get("redirect_uri") != r.base+access.OIDCPath || q.Get("code_challenge_method") != "S256" ||
		q.Get("prompt") != "" {
		t.Errorf("it leads to %s", to)
	}
	back := access.OIDCPath + "?error=access_denied&state=" + url.QueryEscape(q.Get("state"))
	refused := r.want("refused there", back, nil, 403, "The answer of the login provider cannot be used.")
	if strings.Contains(refused.body, "access_denied") {
		t.Error("the page repeats what the query says")
	}
	r.want("another state", access.OIDCPath+"?code=x&state=y", nil, 403, "cannot be used")
	r.http = r.browser()
	r.want("without the cookie", access.OIDCPath+"?code=x&state=y", nil, 403, "the browser keeps no cookies")

	// To those who are in with a password the provider means nothing.
	r.join("anna", operate.Admin)
	r.pass(access.StrongFor + time.Minute)
	step := r.want("second factor", "/step-up?next=/tokens/add", nil, 200, "Is it you?")
	if strings.Contains(step.body, "/login/oidc/start") {
		t.Error("the second factor of a login with a password is asked of the provider")
	}

	p.Close()
	down := newRig(t, with)
	down.want("the provider is down", "/login/oidc/start", nil, 502, "The login provider does not answer.")
	plain := newRig(t)
	if strings.Contains(plain.ask("/login", nil).body, "oidc") {
		t.Error("a button without a provider")
	}
}
