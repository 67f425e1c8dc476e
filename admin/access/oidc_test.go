package access

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"postern/operate"
	"postern/relay/store"
)

// idp is a small provider of OpenID Connect. What it says of people is what the test sets.
type idp struct {
	*httptest.Server
	t      *testing.T
	key    *rsa.PrivateKey
	claims map[string]any // of the next ID token
	info   map[string]any // of userinfo
	signer any            // another key than the one that is published; nil: that one

	challenge string // of the authorization that is under way
	tokens    int    // requests at the token endpoint
	looked    int    // requests for the documents
	broken    bool   // there are none
}

func newIDP(t *testing.T) *idp {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &idp{t: t, key: key}
	mux := http.NewServeMux()
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		if p.looked++; p.broken {
			http.Error(w, "no", http.StatusBadGateway)
			return
		}
		answer(w, map[string]any{"issuer": p.URL, "authorization_endpoint": p.URL + "/auth", "token_endpoint": p.URL +
			"/token",
			"jwks_uri": p.URL + "/keys", "userinfo_endpoint": p.URL + "/userinfo",
			"id_token_signing_alg_values_supported": []string{"RS256"}})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: p.key.Public(), KeyID: "1", Algorithm: "RS256",
			Use: "sig"}}})
	})
	mux.HandleFunc("/userinfo", func(w http.ResponseWriter, _ *http.Request) { answer(w, p.info) })
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		p.tokens++
		sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
		id, secret, basic := r.BasicAuth()
		if r.FormValue("code") != "the code" || base64.RawURLEncoding.EncodeToString(sum[:]) != p.challenge || !basic ||
			id != "postern" || secret != "hunter2" {
			http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
			return
		}
		answer(w, map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": p.sign()})
	})
	return p
}

func (p *idp) sign() string {
	p.t.Helper()
	key := jose.SigningKey{Algorithm: jose.RS256, Key: p.key}
	if p.signer != nil {
		key.Key = p.signer
		if _, ok := p.signer.(*ecdsa.PrivateKey); ok {
			key.Algorithm = jose.ES256
		}
	}
	signer, err := jose.NewSigner(key, (&jose.SignerOptions{}).WithHeader("kid", "1"))
	if err != nil {
		p.t.Fatal(err)
	}
	text, err := jwt.Signed(signer).Claims(p.claims).Serialize()
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}

// authorize is what a browser does at the provider: it returns what it comes back with.
func (p *idp) authorize(to string, now time.Time, change map[string]any) url.Values {
	p.t.Helper()
	u, err := url.Parse(to)
	if err != nil || !strings.HasPrefix(to, p.URL+"/auth?") {
		p.t.Fatalf("it is sent to %s, %v", to, err)
	}
	q := u.Query()
	if q.Get("code_challenge_method") != "S256" ||
		q.Get("redirect_uri") != "https://relay.example.com:8587/login/oidc" ||
		!strings.Contains(q.Get("scope"), "openid") || q.Get("response_type") != "code" {
		p.t.Errorf("it asks for %v", q)
	}
	p.challenge = q.Get("code_challenge")
	p.claims = map[string]any{"iss": p.URL, "aud": "postern", "sub": "4711", "nonce": q.Get("nonce"), "iat": now.Unix(),
		"exp": now.Add(time.Hour).Unix(), "preferred_username": "Anna", "groups": []string{"staff", "it"}}
	for k, v := range change {
		p.claims[k] = v
		if v == nil {
			delete(p.claims, k)
		}
	}
	return url.Values{"state": {q.Get("state")}, "code": {"the code"}, "iss": {p.URL}}
}

func newOIDCRig(t *testing.T) (*rig, *idp) {
	p := newIDP(t)
	return newRig(t, func(o *Options) {
		o.OIDC = &OIDC{Provider: Provider{Issuer: p.URL, ClientID: "postern", ClientSecret: "hunter2",
			Scopes: []string{"profile"}}, NameClaim: "preferred_username", GroupsClaim: "groups",
			Roles: map[string]operate.Role{"staff": operate.Viewer, "it": operate.Operator, "boss": operate.Admin}}
	}), p
}

func TestOIDCRefusals(t *testing.T) {
	r, p := newOIDCRig(t)
	ctx := t.Context()
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	past := r.clock.now.Add(-time.Minute).Unix()
	for _, c := range []struct {
		what   string
		claims map[string]any
		query  map[string]string
		signer any
		cookie string
		want   Reason
		tokens int // requests that the provider gets all the same
	}{
		{what: "another state", query: map[string]string{"state": "x"}, want: ReasonOIDC},
		{what: "no state", query: map[string]string{"state": ""}, want: ReasonOIDC},
		{what: "no cookie", cookie: "-", want: ReasonFlow},
		{what: "another issuer's answer", query: map[string]string{"iss": "https://evil.example"}, want: ReasonOIDC},
		{what: "refused by the person", query: map[string]string{"error": "access_denied"}, want: ReasonOIDC},
		{what: "another code", query: map[string]string{"code": "x"}, want: ReasonOIDC, tokens: 1},
		{what: "another nonce", claims: map[string]any{"nonce": "x"}, want: ReasonOIDC, tokens: 1},
		{what: "no nonce", claims: map[string]any{"nonce": nil}, want: ReasonOIDC, tokens: 1},
		{what: "another issuer", claims: map[string]any{"iss": "https://evil.example"}, want: ReasonOIDC, tokens: 1},
		{what: "for another client", claims: map[string]any{"aud": "shop"}, want: ReasonOIDC, tokens: 1},
		{what: "expired", claims: map[string]any{"exp": past}, want: ReasonOIDC, tokens: 1},
		{what: "another key", signer: other, want: ReasonOIDC, tokens: 1},
		{what: "another algorithm", signer: curve, want: ReasonOIDC, tokens: 1},
		{what: "no subject", claims: map[string]any{"sub": nil}, want: ReasonOIDC, tokens: 1},
		{what: "an empty subject", claims: map[string]any{"sub": ""}, want: ReasonOIDC, tokens: 1},
		{what: "a subject that is a list", claims: map[string]any{"sub": []string{"4711"}}, want: ReasonOIDC,
			tokens: 1},
		{what: "no group", claims: map[string]any{"groups": []string{}}, want: ReasonOIDCGroups, tokens: 1},
		{what: "no group that counts", claims: map[string]any{"groups": []string{"Staff"}}, want: ReasonOIDCGroups,
			tokens: 1},
		{what: "groups that are none", claims: map[string]any{"groups": 7}, want: ReasonOIDCGroups, tokens: 1},
		{what: "a name that cannot be shown", claims: map[string]any{"preferred_username": "an\u202ena"},
			want:   ReasonOIDC,
			tokens: 1},
		{what: "right", want: "", tokens: 1},
	} {
		to, cookie, err := r.OIDC.Begin(ctx, nil, "/queue?x=1")
		if err != nil {
			t.Fatal(err)
		}
		query := p.authorize(to, r.clock.now, c.claims)
		for k, v := range c.query {
			query.Set(k, v)
		}
		if c.cookie != "" {
			cookie = c.cookie
		}
		p.signer, p.tokens = c.signer, 0
		token, next, err := r.OIDC.Finish(ctx, nil, cookie, query, client)
		refused(t, c.what, err, c.want)
		if p.tokens != c.tokens || (token != "") != (c.want == "") || c.want == "" && next != "/queue?x=1" {
			t.Errorf("%s: token %q, next %q, %d requests", c.what, token, next, p.tokens)
		}
		if c.want == "" {
			_, _, err = r.OIDC.Finish(ctx, nil, cookie, query, client)
			refused(t, "the same again", err, ReasonFlow)
		}
	}
}

// oidcLogin logs in and returns the session.
func (r *rig) oidcLogin(p *idp, change map[string]any) (*Session, error) {
	r.t.Helper()
	to, cookie, err := r.OIDC.Begin(r.t.Context(), nil, "")
	if err != nil {
		r.t.Fatal(err)
	}
	token, _, err := r.OIDC.Finish(r.t.Context(), nil, cookie, p.authorize(to, r.clock.now, change), client)
	if err != nil {
		return nil, err
	}
	return r.session("", token, ""), nil
}

func TestOIDCUsers(t *testing.T) {
	r, p := newOIDCRig(t)
	ctx := t.Context()
	s, err := r.oidcLogin(p, nil)
	refused(t, "first login", err, "")
	if s.Name != "oidc:anna" || s.Role != operate.Operator || !s.ByOIDC || s.Actor("", r.clock.now).Strong {
		t.Errorf("%+v", s)
	}
	_, err = r.oidcLogin(p, map[string]any{"sub": "666"})
	refused(t, "another subject with the name", err, ReasonOIDCName)
	boss, err := r.oidcLogin(p, map[string]any{"groups": []string{"staff", "boss", "it"}})
	refused(t, "promoted", err, "")
	if boss.Role != operate.Admin {
		t.Errorf("the highest of three groups is %s", boss.Role)
	}
	r.session("before the promotion", s.token, ReasonSession)
	p.info = map[string]any{"sub": "4711", "groups": "staff"}
	viewer, err := r.oidcLogin(p, map[string]any{"groups": nil})
	refused(t, "groups by userinfo", err, "")
	if viewer.Role != operate.Viewer {
		t.Errorf("userinfo makes %s", viewer.Role)
	}
	p.info["sub"] = "666"
	_, err = r.oidcLogin(p, map[string]any{"groups": nil})
	refused(t, "userinfo of somebody else", err, ReasonOIDC)
	_, err = r.oidcLogin(p, map[string]any{"groups": []string{"nothing"}})
	refused(t, "thrown out of the groups", err, ReasonOIDCGroups)
	r.session("before that", viewer.token, ReasonSession)

	if err := r.Users.SetRole(ctx, owner, "oidc:anna", operate.Admin); err == nil {
		t.Error("the role is set here")
	}
	if _, err := r.Users.Reset(ctx, owner, "oidc:anna"); err == nil {
		t.Error("the login is reset here")
	}
	if err := r.Users.Disable(ctx, owner, "oidc:anna", true); err != nil {
		t.Fatal(err)
	}
	_, err = r.oidcLogin(p, nil)
	refused(t, "switched off", err, ReasonDisabled)
	_, err = r.Logins.Login(ctx, Credentials{"oidc:anna", "", ""}, client)
	refused(t, "with a password", err, ReasonWrong)
	if users, err := r.store.ConsoleUsers(ctx); err != nil || len(users) != 1 || users[0].Subject != "4711" {
		t.Errorf("%+v, %v", users, err)
	}
	if got := r.audited(opLogin); !strings.HasPrefix(got, "oidc:anna refused") && !strings.HasPrefix(got,
		"oidc:anna done") {
		t.Errorf("the audit has %q", got)
	}
}

func TestOIDCStepUp(t *testing.T) {
	r, p := newOIDCRig(t)
	ctx := t.Context()
	fresh, err := r.oidcLogin(p, map[string]any{"auth_time": r.clock.now.Add(-time.Minute).Unix()})
	refused(t, "fresh login", err, "")
	if !fresh.Actor("", r.clock.now).Strong {
		t.Error("a login of a minute ago does not count")
	}
	s, err := r.oidcLogin(p, map[string]any{"auth_time": r.clock.now.Add(-time.Hour).Unix()})
	refused(t, "login with an old session there", err, "")
	if s.Actor("", r.clock.now).Strong {
		t.Error("a login of an hour ago counts as second factor")
	}
	stepUp := func(with *Session, change map[string]any) (string, error) {
		to, cookie, err := r.OIDC.Begin(ctx, s, "/raw")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(to, "max_age=0") || !strings.Contains(to, "prompt=login") {
			t.Errorf("the provider is not told to ask again: %s", to)
		}
		token, _, err := r.OIDC.Finish(ctx, with, cookie, p.authorize(to, r.clock.now, change), client)
		return token, err
	}
	now := r.clock.now.Unix()
	_, err = stepUp(s, nil)
	refused(t, "without auth_time", err, ReasonNotFresh)
	_, err = stepUp(s, map[string]any{"auth_time": now - 600})
	refused(t, "asked ten minutes ago", err, ReasonNotFresh)
	_, err = stepUp(s, map[string]any{"auth_time": now + 600})
	refused(t, "asked in ten minutes", err, ReasonNotFresh)
	_, err = stepUp(s, map[string]any{"auth_time": now, "sub": "4712", "preferred_username": "ben"})
	refused(t, "by somebody else", err, ReasonOIDC)
	_, err = stepUp(nil, map[string]any{"auth_time": now})
	refused(t, "without the session", err, ReasonFlow)
	_, err = stepUp(fresh, map[string]any{"auth_time": now})
	refused(t, "in another session", err, ReasonFlow)
	token, err := stepUp(s, map[string]any{"auth_time": now})
	refused(t, "right", err, "")
	if s := r.session("", token, ""); !s.Actor("", r.clock.now).Strong {
		t.Error("the step-up does not count")
	}
	r.session("before", s.token, ReasonSession)
}

func TestOIDCProviderDown(t *testing.T) {
	r, p := newOIDCRig(t)
	p.broken = true
	for range 3 {
		_, _, err := r.OIDC.Begin(t.Context(), nil, "")
		refused(t, "a provider that is down", err, ReasonOIDCDown)
	}
	if p.looked != 1 {
		t.Errorf("it is asked %d times at once", p.looked)
	}
	p.broken = false
	r.clock.pass(oidcTimeout)
	_, _, err := r.OIDC.Begin(t.Context(), nil, "")
	refused(t, "a provider that is up again", err, "")
	secret, _ := r.join("anna", operate.Admin)
	_, err = r.login("anna", secret)
	refused(t, "others", err, "")
	if err := r.Use(Options{URL: r.URL()}); err != nil || r.HasOIDC() {
		t.Errorf("a reload without it: %v", err)
	}
	_, _, err = r.OIDC.Begin(t.Context(), nil, "")
	refused(t, "after that", err, ReasonOIDC)
	if _, err := r.store.ConsoleUser(t.Context(), "oidc:anna"); err == nil {
		t.Error("there is a user", store.ErrNoConsoleUser)
	}
}
