package access

import (
	"bytes"
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
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
	"postern/operate"
	"postern/relay/store"
)

// OIDCPath is where the provider sends browsers back to, unless OIDC.RedirectURL says otherwise.
const OIDCPath = "/login/oidc"

// SSO is logins by OpenID Connect.
type SSO struct{ *core }

// OIDC is a provider of OpenID Connect that vouches for people.
type OIDC struct {
	Issuer       string
	ClientID     string
	ClientSecret auth.Secret
	RedirectURL  string                  // "": the console's URL with OIDCPath
	Scopes       []string                // beside openid
	NameClaim    string                  // "": preferred_username, else email, else sub
	GroupsClaim  string                  // "": groups
	Roles        map[string]operate.Role // of groups; of several the highest counts
}

// Bounds of what a provider may do to us.
const (
	oidcTimeout = 10 * time.Second
	maxAnswer   = 1 << 20 // octets
	maxGroups   = 10_000
)

// provider talks to the provider. Its documents are fetched when somebody logs in, so that Postern starts without it.
type provider struct {
	options  OIDC
	redirect string
	client   *http.Client

	now func() time.Time

	mu     sync.Mutex     // guards what follows
	found  *oidc.Provider // nil: not yet
	failed time.Time      // when it was last looked for in vain
	why    error
}

func newProvider(o OIDC, base *url.URL, now func() time.Time) *provider {
	return &provider{options: o, now: now, redirect: cmp.Or(o.RedirectURL, base.JoinPath(OIDCPath).String()),
		client: &http.Client{Timeout: oidcTimeout, Transport: bounded{http.DefaultTransport}}}
}

func (p *provider) same(q *provider) bool {
	return p != nil && q != nil && p.redirect == q.redirect && reflect.DeepEqual(p.options, q.options)
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
	found, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), p.client), p.options.Issuer)
	if err != nil {
		p.failed, p.why = p.now(), err
		return nil, refuse(ReasonOIDCDown, err)
	}
	p.found, p.why = found, nil
	return found, nil
}

func (p *provider) oauth(found *oidc.Provider) *oauth2.Config {
	scopes := append([]string{oidc.ScopeOpenID}, p.options.Scopes...)
	endpoint := found.Endpoint()
	endpoint.AuthStyle = authStyle(found)
	return &oauth2.Config{ClientID: p.options.ClientID, ClientSecret: string(p.options.ClientSecret),
		Endpoint: endpoint, RedirectURL: p.redirect, Scopes: slices.Compact(scopes)}
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

// Begin returns where to send a browser that wants to log in, and a cookie for Finish. next is the page that it
// wants afterwards. With a session, the provider is told to ask for the login again.
func (a SSO) Begin(ctx context.Context, s *Session, next string) (to, cookie string, err error) {
	p := a.inUse.Load().oidc
	if p == nil {
		return "", "", refusef(ReasonOIDC, "there is no [admin.oidc]")
	}
	found, err := p.discover(ctx)
	if err != nil {
		return "", "", err
	}
	f := flow{Kind: flowOIDC, State: random(), Nonce: random(), Verifier: oauth2.GenerateVerifier(),
		Next: LocalPath(next)}
	options := []oauth2.AuthCodeOption{oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)}
	if s != nil {
		f.Bound, f.Name = s.digest[:], s.Name
		options = append(options, oauth2.SetAuthURLParam("prompt", "login"), oauth2.SetAuthURLParam("max_age", "0"))
	}
	if cookie, err = a.sealFlow(f); err != nil {
		return "", "", err
	}
	return p.oauth(found).AuthCodeURL(f.State, options...), cookie, nil
}

// Finish takes what the provider sent the browser back with. s is the session that the browser has, nil: none. It
// returns what the browser is to keep as cookie, and the page that it wants.
func (a SSO) Finish(ctx context.Context, s *Session, cookie string, query url.Values, client string) (token,
	next string, err error) {
	p := a.inUse.Load().oidc
	if p == nil {
		return "", "", refusef(ReasonOIDC, "there is no [admin.oidc]")
	}
	f, err := a.openFlow(flowOIDC, cookie)
	if err != nil {
		return "", "", err
	}
	claims, err := a.claims(ctx, p, f, query)
	who := operate.Actor{Name: claims.name, Channel: operate.Console, Client: client}
	if err == nil && !a.endFlow(f) {
		err = refusef(ReasonFlow, "the cookie was used already")
	}
	var u store.ConsoleUser
	if err == nil {
		u, err = a.upsert(ctx, p, claims)
	}
	if err == nil && f.Bound != nil {
		token, err = a.stepUp(ctx, s, f, u, claims, client)
		return token, f.Next, err
	}
	if err != nil {
		a.auditFailure(ctx, who, opLogin, err)
		return "", "", err
	}
	token, err = a.enter(ctx, u, who, claims.fresh(a.now()), "OpenID Connect")
	return token, f.Next, err
}

// stepUp makes a session stronger whose owner has just logged in at the provider again.
func (a SSO) stepUp(ctx context.Context, s *Session, f flow, u store.ConsoleUser, c claims, client string) (
	string, error) {
	if s == nil || !bytes.Equal(f.Bound, s.digest[:]) {
		return "", refusef(ReasonFlow, "the cookie is of another session")
	}
	who := s.Actor(client, a.now())
	var err error
	switch {
	case u.Name != s.Name:
		err = refusef(ReasonOIDC, "%s logged in at the provider", u.Name)
	case !c.fresh(a.now()):
		err = refusef(ReasonNotFresh, "auth_time is %s", c.authTime.UTC().Format(time.RFC3339))
	}
	if err != nil {
		a.auditFailure(ctx, who, opStepUp, err)
		return "", err
	}
	return a.stronger(ctx, s, u, who)
}

// claims are what we take of an ID token.
type claims struct {
	subject  string
	name     string // of the console's user
	groups   []string
	authTime time.Time // when the provider last asked for the login; zero: it does not say
}

// fresh reports whether the provider says that it asked for the login within the last five minutes. Only then does the
// login count as second factor: how good it is, is for the provider to decide.
func (c claims) fresh(now time.Time) bool {
	age := now.Sub(c.authTime)
	return age < StrongFor && age > -time.Minute
}

// claims exchanges the code and checks the ID token: signature, issuer, audience, expiry, nonce.
func (a SSO) claims(ctx context.Context, p *provider, f flow, query url.Values) (claims, error) {
	if subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(f.State)) != 1 {
		return claims{}, refusef(ReasonOIDC, "state is not the one that was sent")
	}
	if iss := query.Get("iss"); iss != "" && iss != p.options.Issuer { // RFC 9207
		return claims{}, refusef(ReasonOIDC, "the answer is of %q", iss)
	}
	if e := query.Get("error"); e != "" {
		return claims{}, refusef(ReasonOIDC, "the provider says %q: %q", e, query.Get("error_description"))
	}
	found, err := p.discover(ctx)
	if err != nil {
		return claims{}, err
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, p.client), oidcTimeout)
	defer cancel()
	token, err := p.oauth(found).Exchange(ctx, query.Get("code"), oauth2.VerifierOption(f.Verifier))
	if err != nil {
		return claims{}, refuse(ReasonOIDC, err)
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := found.Verifier(&oidc.Config{ClientID: p.options.ClientID, Now: a.now}).Verify(ctx, raw)
	if err != nil {
		return claims{}, refuse(ReasonOIDC, err)
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(f.Nonce)) != 1 {
		return claims{}, refusef(ReasonOIDC, "nonce is not the one that was sent")
	}
	return p.read(ctx, found, token, id)
}

// read reads the claims of an ID token. Groups that are not there are asked for at the userinfo endpoint.
func (p *provider) read(ctx context.Context, found *oidc.Provider, token *oauth2.Token, id *oidc.IDToken) (claims,
	error) {
	all := map[string]json.RawMessage{}
	if err := id.Claims(&all); err != nil {
		return claims{}, refuse(ReasonOIDC, err)
	}
	c := claims{subject: id.Subject}
	var at float64
	if json.Unmarshal(all["auth_time"], &at) == nil && at > 0 {
		c.authTime = time.Unix(int64(at), 0)
	}
	key := cmp.Or(p.options.GroupsClaim, "groups")
	if _, ok := all[key]; !ok && found.UserInfoEndpoint() != "" {
		info, err := found.UserInfo(ctx, oauth2.StaticTokenSource(token))
		if err != nil {
			return claims{}, refuse(ReasonOIDC, err)
		}
		if info.Subject != id.Subject { // OpenID Connect Core §5.3.2
			return claims{}, refusef(ReasonOIDC, "userinfo is of another subject")
		}
		more := map[string]json.RawMessage{}
		if err := info.Claims(&more); err == nil {
			all[key] = more[key]
		}
	}
	c.groups = textsOf(all[key])
	name := p.name(all, id.Subject)
	normal, ok := auth.NormalizeLogin("oidc:" + name)
	if !ok || name == "" {
		return claims{}, refusef(ReasonOIDC, "%q is no name that can be shown", name)
	}
	c.name = normal
	return c, nil
}

func (p *provider) name(all map[string]json.RawMessage, subject string) (name string) {
	for _, claim := range []string{p.options.NameClaim, "preferred_username", "email"} {
		if claim != "" && json.Unmarshal(all[claim], &name) == nil && name != "" {
			return name
		}
	}
	return subject
}

// textsOf reads a claim that is a text or a list of texts.
func textsOf(raw json.RawMessage) (list []string) {
	var one string
	if json.Unmarshal(raw, &one) == nil && one != "" {
		return []string{one}
	}
	if json.Unmarshal(raw, &list) != nil {
		return nil
	}
	return list[:min(len(list), maxGroups)]
}

// roleFor is the highest role that one of the groups has.
func (p *provider) roleFor(groups []string) (role operate.Role) {
	for _, g := range groups {
		role = max(role, p.options.Roles[g])
	}
	return role
}

// upsert notes who logs in by OpenID Connect as a user of the console. The subject is who they are; a name that
// another subject had does not become theirs. Another role than before ends the open sessions, and so does none.
func (a SSO) upsert(ctx context.Context, p *provider, c claims) (user store.ConsoleUser, err error) {
	role := p.roleFor(c.groups)
	var refused error
	err = a.store.ChangeConsoleUser(ctx, c.name, func(u *store.ConsoleUser, exists bool, _ []store.ConsoleUser) (bool,
		error) {
		refused = nil
		switch {
		case exists && (u.Provider != p.options.Issuer || u.Subject != c.subject):
			return false, refusef(ReasonOIDCName, "%s is subject %q of %s; if that is right, run: postern console "+
				"remove %s",
				c.name, u.Subject, u.Provider, c.name)
		case exists && u.Disabled:
			return false, refuse(ReasonDisabled, nil)
		case role == operate.Nobody && !exists:
			return false, refuseGroups(c)
		case !exists:
			u.Provider, u.Subject, u.Created = p.options.Issuer, c.subject, a.now()
		}
		if role == operate.Nobody {
			refused = refuseGroups(c)
		} else {
			u.LastLogin = a.now()
		}
		if u.Role != role.String() {
			u.Role, u.Generation = role.String(), u.Generation+1
		}
		user = *u
		return true, nil
	})
	return user, errors.Join(err, refused)
}

func refuseGroups(c claims) error {
	return refuse(ReasonOIDCGroups, fmt.Errorf("subject %q has %d groups, none of which is in [admin.oidc] roles",
		c.subject,
		len(c.groups)))
}
