package access

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"postern/auth"
)

// Provider is where to log in by OpenID Connect, and who we are there.
type Provider struct {
	Issuer       string
	ClientID     string
	ClientSecret auth.Secret
	RedirectURL  string   // where the provider sends browsers back to
	Scopes       []string // beside openid
}

// Bounds of what a provider may do to us.
const (
	oidcTimeout = 10 * time.Second
	maxAnswer   = 1 << 20 // octets
	maxGroups   = 10_000
)

// provider talks to a Provider. Its documents are fetched when somebody logs in, so that Postern starts without it.
type provider struct {
	Provider
	client *http.Client
	now    func() time.Time

	mu     sync.Mutex     // guards what follows
	found  *oidc.Provider // nil: not yet
	failed time.Time      // when it was last looked for in vain
	why    error
}

// newProvider returns before where it is the same.
func newProvider(p Provider, now func() time.Time, before *provider) *provider {
	if before != nil && reflect.DeepEqual(before.Provider, p) {
		return before
	}
	return &provider{Provider: p, now: now,
		client: &http.Client{Timeout: oidcTimeout, Transport: bounded{http.DefaultTransport}}}
}

// bounded cuts answers that are too long.
type bounded struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}

// discover returns the provider's documents. Their keys outlive the request, and so does the context that they are
// fetched with.
func (p *provider) discover(ctx context.Context) (*oidc.Provider, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found != nil {
		return p.found, nil
	}
	if p.why != nil && p.now().Sub(p.failed) < oidcTimeout { // or all who wait would try one after the other
		return nil, refuse(ReasonOIDCDown, p.why)
	}
	found, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), p.client), p.Issuer)
	if err != nil {
		p.failed, p.why = p.now(), err
		return nil, refuse(ReasonOIDCDown, err)
	}
	p.found, p.why = found, nil
	return found, nil
}

func (p *provider) oauth(found *oidc.Provider) *oauth2.Config {
	scopes := append([]string{oidc.ScopeOpenID}, p.Scopes...)
	endpoint := found.Endpoint()
	endpoint.AuthStyle = authStyle(found)
	return &oauth2.Config{ClientID: p.ClientID, ClientSecret: string(p.ClientSecret),
		Endpoint: endpoint, RedirectURL: p.RedirectURL, Scopes: slices.Compact(scopes)}
}

// authStyle is how the provider wants the client secret: in the header where it says nothing (OpenID Connect Discovery
// §3). Left alone, package oauth2 would try both, and use up the code with the first.
func authStyle(found *oidc.Provider) oauth2.AuthStyle {
	var says struct {
		Methods []string `json:"token_endpoint_auth_methods_supported"`
	}
	err := found.Claims(&says)
	if err == nil && len(says.Methods) > 0 && !slices.Contains(says.Methods, "client_secret_basic") {
		return oauth2.AuthStyleInParams
	}
	return oauth2.AuthStyleInHeader
}

// begin sends a browser to the provider; with again, to be asked for the login whatever session it has there. f is
// what comes back is to be judged by.
func (p *provider) begin(ctx context.Context, f *flow, again bool) (to string, err error) {
	found, err := p.discover(ctx)
	if err != nil {
		return "", err
	}
	f.Kind, f.State, f.Nonce, f.Verifier = flowOIDC, random(), random(), oauth2.GenerateVerifier()
	options := []oauth2.AuthCodeOption{oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)}
	if again {
		options = append(options, oauth2.SetAuthURLParam("prompt", "login"), oauth2.SetAuthURLParam("max_age", "0"))
	}
	return p.oauth(found).AuthCodeURL(f.State, options...), nil
}

// Claims are what a provider says of a person.
type Claims struct {
	Subject string // who they are at the issuer, whatever they are called

	all map[string]json.RawMessage
}

// Text is a claim that is a text, "" for any other.
func (c Claims) Text(name string) (text string) {
	if json.Unmarshal(c.all[name], &text) != nil {
		return ""
	}
	return text
}

// Texts is a claim that is a text or a list of texts, at most 10 000.
func (c Claims) Texts(name string) (list []string) {
	if one := c.Text(name); one != "" {
		return []string{one}
	}
	if json.Unmarshal(c.all[name], &list) != nil {
		return nil
	}
	return list[:min(len(list), maxGroups)]
}

// authTime is when the provider last asked for the login; zero: it does not say.
func (c Claims) authTime() time.Time {
	var at float64
	if json.Unmarshal(c.all["auth_time"], &at) != nil || at <= 0 {
		return time.Time{}
	}
	return time.Unix(int64(at), 0)
}

// fresh reports whether the provider says that it asked for the login within the last five minutes. Only then does the
// login count as second factor: how good it is, is for the provider to decide.
func (c Claims) fresh(now time.Time) bool {
	age := now.Sub(c.authTime())
	return age < StrongFor && age > -time.Minute
}

// claims exchanges the code and checks the ID token: signature, issuer, audience, expiry, nonce, subject. Claims that
// are wanted and not in it are asked for at the userinfo endpoint.
func (p *provider) claims(ctx context.Context, f flow, query url.Values, want ...string) (Claims, error) {
	if subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(f.State)) != 1 {
		return Claims{}, refusef(ReasonOIDC, "state is not the one that was sent")
	}
	if iss := query.Get("iss"); iss != "" && iss != p.Issuer { // RFC 9207
		return Claims{}, refusef(ReasonOIDC, "the answer is of %q", iss)
	}
	if e := query.Get("error"); e != "" {
		return Claims{}, refusef(ReasonOIDC, "the provider says %q: %q", e, query.Get("error_description"))
	}
	found, err := p.discover(ctx)
	if err != nil {
		return Claims{}, err
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, p.client), oidcTimeout)
	defer cancel()
	token, err := p.oauth(found).Exchange(ctx, query.Get("code"), oauth2.VerifierOption(f.Verifier))
	if err != nil {
		return Claims{}, refuse(ReasonOIDC, err)
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := found.Verifier(&oidc.Config{ClientID: p.ClientID, Now: p.now}).Verify(ctx, raw)
	if err != nil {
		return Claims{}, refuse(ReasonOIDC, err)
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(f.Nonce)) != 1 {
		return Claims{}, refusef(ReasonOIDC, "nonce is not the one that was sent")
	}
	if id.Subject == "" { // OpenID Connect Core §2; all whom it names nothing would be one
		return Claims{}, refusef(ReasonOIDC, "the token has no sub")
	}
	return p.read(ctx, found, token, id, want)
}

func (p *provider) read(ctx context.Context, found *oidc.Provider, token *oauth2.Token, id *oidc.IDToken,
	want []string) (Claims, error) {
	c := Claims{Subject: id.Subject, all: map[string]json.RawMessage{}}
	if err := id.Claims(&c.all); err != nil {
		return Claims{}, refuse(ReasonOIDC, err)
	}
	missing := slices.DeleteFunc(slices.Clone(want), func(name string) bool { return c.all[name] != nil })
	if len(missing) == 0 || found.UserInfoEndpoint() == "" {
		return c, nil
	}
	info, err := found.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return Claims{}, refuse(ReasonOIDC, err)
	}
	if info.Subject != id.Subject { // OpenID Connect Core §5.3.2
		return Claims{}, refusef(ReasonOIDC, "userinfo is of another subject")
	}
	more := map[string]json.RawMessage{}
	if info.Claims(&more) == nil {
		for _, name := range missing {
			c.all[name] = more[name]
		}
	}
	return c, nil
}
