package fakeprovider

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// authCode is one authorization code.
type authCode struct {
	client, redirect, challenge, identity string
	scopes                                []string
	expires                               time.Time
	used                                  bool
}

// Consent makes a consent without any flow and returns its refresh token.
func (a *OAuth) Consent(client, identity string, scopes ...string) (refresh string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.newRefreshLocked(a.newConsentLocked(client, identity, scopes))
}

func (a *OAuth) newConsentLocked(client, identity string, scopes []string) *consent {
	c := &consent{identity: identity, client: client, scopes: scopes}
	if a.o.RefreshExpiresIn > 0 {
		c.ends = a.nowLocked().Add(a.o.RefreshExpiresIn)
	}
	return c
}

func (a *OAuth) newRefreshLocked(family *consent) string {
	text := "rt." + rand.Text() + rand.Text()
	a.refresh[text] = &refreshToken{family: family, expires: a.nowLocked().Add(a.o.RefreshLifetime)}
	return text
}

// tokenLocked is the token endpoint.
func (a *OAuth) tokenLocked(r *http.Request) (map[string]any, *problem) {
	f := r.PostForm
	for key, values := range f {
		if len(values) > 1 { // RFC 6749 §3.2
			return nil, bad("invalid_request", 9000411, "The parameter '%s' is duplicated", key)
		}
	}
	if f.Get("grant_type") == jwtBearer {
		return a.serviceAccountLocked(r)
	}
	client, err := a.clientLocked(r)
	if err != nil {
		return nil, err
	}
	switch f.Get("grant_type") {
	case "client_credentials":
		return a.clientCredentialsLocked(client, f)
	case "refresh_token":
		return a.refreshLocked(client, f)
	case "authorization_code":
		return a.codeLocked(client, f)
	case "urn:ietf:params:oauth:grant-type:device_code":
		return a.pollLocked(client, f)
	}
	return nil, bad("unsupported_grant_type", 70003, "The app requested an unsupported grant type '%s'.",
		f.Get("grant_type"))
}

// clientLocked finds out who asks (RFC 6749 §2.3, RFC 7523 §2.2).
func (a *OAuth) clientLocked(r *http.Request) (Client, *problem) {
	f := r.PostForm
	id, secret := f.Get("client_id"), f.Get("client_secret")
	if user, password, ok := r.BasicAuth(); ok {
		if secret != "" {
			return Client{}, bad("invalid_request", 0, "The client authenticates in two ways")
		}
		id, _ = url.QueryUnescape(user)
		secret, _ = url.QueryUnescape(password)
	}
	c, known := a.clients[id]
	if !known {
		return c, bad("unauthorized_client", 700016,
			"Application with identifier '%s' was not found in the directory 'Contoso'.", id)
	}
	switch {
	case f.Has("client_assertion"):
		return c, a.checkAssertionLocked(c, r)
	case c.Secret == "" && c.Certificate == nil && secret != "":
		return c, bad("invalid_client", 700025,
			"Client is public so neither 'client_assertion' nor 'client_secret' should be presented.")
	case c.Secret == "" && c.Certificate == nil:
		return c, nil
	case secret == "":
		return c, bad("invalid_client", 7000218,
			"The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
	case c.Secret == "" || subtle.ConstantTimeCompare([]byte(secret), []byte(c.Secret)) == 0:
		return c, bad("invalid_client", 7000215,
			"Invalid client secret provided. Ensure the secret being sent in the request is the client secret "+
				"value, not the client secret ID.")
	}
	return c, nil
}

func (c Client) public() bool { return c.Secret == "" && c.Certificate == nil }

func (c Client) allows(scopes []string) bool {
	return len(c.Scopes) == 0 || !slices.ContainsFunc(scopes, func(s string) bool {
		return s != "offline_access" &&
			!slices.Contains(c.Scopes, s)
	})
}

func (a *OAuth) scopesLocked(c Client, f url.Values) ([]string, *problem) {
	scopes := strings.Fields(f.Get("scope"))
	if len(scopes) == 0 || !c.allows(scopes) {
		return nil, bad("invalid_scope", 70011,
			"The provided value for the input parameter 'scope' isn't valid. The scope %s isn't valid.", f.Get("scope"))
	}
	return scopes, nil
}

func (a *OAuth) clientCredentialsLocked(c Client, f url.Values) (map[string]any, *problem) {
	if c.public() {
		return nil, bad("unauthorized_client", 7000218, "A public client has no credentials")
	}
	scopes, err := a.scopesLocked(c, f)
	if err != nil {
		return nil, err
	}
	if a.o.Microsoft && (len(scopes) != 1 || !strings.HasSuffix(scopes[0], "/.default")) {
		return nil, bad("invalid_scope", 1002012,
			"The provided value for scope %s is not valid. Client credential flows must have a scope value with "+
				"/.default suffixed to the resource identifier.", f.Get("scope"))
	}
	// no refresh token: RFC 6749 §4.4.3
	return a.issueLocked(&issued{identity: AnyMailbox, client: c.ID, scopes: scopes}), nil
}

// issueLocked makes an access token and the answer around it.
func (a *OAuth) issueLocked(t *issued) map[string]any {
	now := a.nowLocked()
	for text, old := range a.tokens { // what has ended is of no use
		if !now.Before(old.expires) {
			delete(a.tokens, text)
		}
	}
	text := "at." + rand.Text() + rand.Text()
	t.expires = now.Add(a.o.Lifetime)
	a.tokens[text] = t
	answer := map[string]any{"access_token": text, "token_type": "Bearer", "scope": strings.Join(t.scopes, " ")}
	if !a.o.NoExpiresIn {
		answer["expires_in"] = int(a.o.Lifetime / time.Second)
	}
	return answer
}

// grantLocked issues for a person's consent. A refresh token comes with it if refresh is not empty.
func (a *OAuth) grantLocked(c *consent, refresh string) map[string]any {
	answer := a.issueLocked(&issued{identity: c.identity, client: c.client, scopes: c.scopes, family: c})
	if refresh != "" {
		answer["refresh_token"] = refresh
	}
	if !c.ends.IsZero() {
		answer["refresh_token_expires_in"] = int(c.ends.Sub(a.nowLocked()) / time.Second)
	}
	return answer
}

// firstLocked issues for a new consent. Microsoft gives a refresh token only to those who ask for offline_access.
func (a *OAuth) firstLocked(c Client, identity string, scopes []string) map[string]any {
	family := a.newConsentLocked(c.ID, identity, scopes)
	if a.o.Microsoft && !slices.Contains(scopes, "offline_access") {
		return a.grantLocked(family, "")
	}
	return a.grantLocked(family, a.newRefreshLocked(family))
}

func (a *OAuth) refreshLocked(c Client, f url.Values) (map[string]any, *problem) {
	now := a.nowLocked()
	t := a.refresh[f.Get("refresh_token")]
	scopes := strings.Fields(f.Get("scope"))
	switch {
	case a.o.ScopeAtRefresh && len(scopes) == 0:
		return nil, bad("invalid_request", 900144, "The request body must contain the following parameter: 'scope'.")
	case t != nil && slices.ContainsFunc(scopes, func(s string) bool {
		return s != "offline_access" &&
			!slices.Contains(t.family.scopes, s)
	}):
		return nil, bad("invalid_grant", 65001,
			"The user or administrator has not consented to use the application with ID '%s' named 'postern'.", c.ID)
	case t == nil || t.family.client != c.ID:
		return nil, bad("invalid_grant", 70000, "The provided grant is invalid or malformed.")
	case t.family.revoked:
		return nil, bad("invalid_grant", 50173,
			"The provided grant has expired due to it being revoked, a fresh auth token is needed.")
	case !now.Before(t.expires) || !t.family.ends.IsZero() && !now.Before(t.family.ends):
		return nil, bad("invalid_grant", 700082, "The refresh token has expired due to inactivity.")
	case t.used: // somebody has stolen it, or lost our answer: there is no telling
		t.family.revoked = true
		a.counts["reuse"]++
		return nil, bad("invalid_grant", 70000,
			"The refresh token was used before; everything that came from it is revoked.")
	}
	if a.o.KeepRefresh {
		t.expires = now.Add(a.o.RefreshLifetime)
		return a.grantLocked(t.family, ""), nil
	}
	t.used = true
	return a.grantLocked(t.family, a.newRefreshLocked(t.family)), nil
}

// authorize is the authorization endpoint: what a browser is sent to (RFC 6749 §4.1.1).
func (a *OAuth) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	a.mu.Lock()
	c, known := a.clients[q.Get("client_id")]
	who := a.o.Consenter
	a.mu.Unlock()
	if !known || !c.redirects(q.Get("redirect_uri")) { // never redirect to what is not registered: §4.1.2.1
		bad("invalid_request", 50011,
			"The redirect URI '%s' specified in the request does not match the redirect URIs configured for the "+
				"application.", q.Get("redirect_uri")).write(w, a.microsoft())
		return
	}
	if r.Method == http.MethodPost {
		if who = r.PostForm.Get("identity"); r.PostForm.Get("decision") != "allow" {
			who = ""
		}
	} else if who == "" {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = page.Execute(w, map[string]string{"Client": c.ID, "Scope": q.Get("scope"), "Hint": q.Get("login_hint")})
		return
	}
	to, _ := url.Parse(q.Get("redirect_uri")) // redirects has parsed it
	to.RawQuery = a.decide(c, q, who).Encode()
	http.Redirect(w, r, to.String(), http.StatusFound)
}

func (c Client) redirects(uri string) bool {
	if slices.Contains(c.Redirects, uri) {
		return true
	}
	u, err := url.Parse(uri)
	return err == nil && u.Scheme == "http" && (u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1") &&
		u.Path == ""
}

// decide is what the browser brings back.
func (a *OAuth) decide(c Client, q url.Values, who string) url.Values {
	a.mu.Lock()
	defer a.mu.Unlock()
	back := url.Values{"state": {q.Get("state")}}
	scopes, err := a.scopesLocked(c, q)
	switch {
	case q.Get("response_type") != "code":
		err = bad("unsupported_response_type", 700054, "response_type is not enabled for the application.")
	case q.Get("code_challenge") == "" || q.Get("code_challenge_method") != "S256": // RFC 9700 §2.1.1
		err = bad("invalid_request", 0, "A code challenge of method S256 is required.")
	case err == nil && who == "":
		err = bad("access_denied", 65004, "User declined to consent to access the app.")
	}
	if err != nil {
		back.Set("error", err.code)
		back.Set("error_description", err.description)
		return back
	}
	code := "ac." + rand.Text()
	a.codes[code] = &authCode{
		client: c.ID, redirect: q.Get("redirect_uri"), challenge: q.Get("code_challenge"), identity: who,
		scopes: scopes, expires: a.nowLocked().Add(10 * time.Minute),
	}
	back.Set("code", code)
	return back
}

// codeLocked redeems an authorization code (RFC 6749 §4.1.3, RFC 7636 §4.6).
func (a *OAuth) codeLocked(c Client, f url.Values) (map[string]any, *problem) {
	code := a.codes[f.Get("code")]
	switch {
	case code == nil || code.client != c.ID:
		return nil, bad("invalid_grant", 70000, "The provided grant is invalid or malformed.")
	case code.used:
		return nil, bad("invalid_grant", 54005, "OAuth2 Authorization code was already redeemed.")
	case !a.nowLocked().Before(code.expires):
		return nil, bad("invalid_grant", 70008,
			"The provided authorization code or refresh token has expired due to inactivity.")
	case f.Get("redirect_uri") != code.redirect:
		return nil, bad("invalid_grant", 50011, "The redirect URI is not the one that the code was asked for with.")
	}
	sum := sha256.Sum256([]byte(f.Get("code_verifier")))
	if base64.RawURLEncoding.EncodeToString(sum[:]) != code.challenge {
		return nil, bad("invalid_grant", 501481,
			"The Code_Verifier does not match the code_challenge supplied in the authorization request.")
	}
	code.used = true
	return a.firstLocked(c, code.identity, code.scopes), nil
}
