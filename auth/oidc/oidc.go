// Package oidc is the credential source of an OpenID Connect issuer: it verifies the bearer tokens that applications
// log in with by OAUTHBEARER and XOAUTH2. Signed tokens are verified here with the issuer's keys; opaque ones the
// issuer is asked about (RFC 7662).
//
// # Failure semantics
//
// What is wrong with a token is auth.ErrToken, and auth.ErrUnknownLogin if it is another issuer's. Everything else
// means that the source is down: keys that cannot be fetched, an answer that is not understood. Keys that were fetched
// are used for an hour, and StaleOK longer while the issuer is down. A token signed with a key that is not known has
// them fetched again, at most every ten seconds; in between that token alone gets auth.ErrUndecided, so that nobody has
// us ask the issuer as often as he likes, and a rotation costs no refusal.
package oidc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	goidc "github.com/coreos/go-oidc/v3/oidc"

	"postern/auth"
	"postern/auth/internal/fields"
	"postern/internal/local"
	"postern/mail"
)

// Options are an issuer.
type Options struct {
	Name     string   // of the source
	Issuer   string   // as it names itself in its tokens
	Audience []string // a token must be for one of these
	// AuthorizedParties are the applications (azp or client_id) whose tokens are taken; empty: any.
	AuthorizedParties []string
	Scope             string // a token must have it in scope or scp; "": any. Clients are told of it
	LoginClaim        string // "": email
	GroupsClaim       string // "": tokens give no groups
	SendersClaim      string // "": tokens give no addresses
	// ClientID and ClientSecret are ours, to ask about opaque tokens; "": they are refused.
	ClientID     string
	ClientSecret auth.Secret
	ClockSkew    time.Duration  // how far clocks may differ
	RootCAs      *x509.CertPool // nil: those of the system
	Timeout      time.Duration  // of one request; 0: 5 s
	StaleOK      time.Duration  // see auth.Remote
}

const (
	defaultTimeout = 5 * time.Second
	maxAnswer      = 1 << 20 // octets
	maxConns       = 8
)

// algorithms are the signatures that are taken: none that is made with a secret, which the issuer would have to share.
var algorithms = []string{goidc.RS256, goidc.RS384, goidc.RS512, goidc.PS256, goidc.PS384, goidc.PS512, goidc.ES256,
	goidc.ES384, goidc.ES512, goidc.EdDSA}

// Check returns what is wrong with options, a *mail.KeyError.
func Check(o Options) error {
	bad := func(key, format string, args ...any) error {
		return &mail.KeyError{Key: key, Msg: fmt.Sprintf(format, args...)}
	}
	if err := checkURL(o.Issuer); err != nil {
		return bad("issuer", "%s", err)
	}
	if len(o.Audience) == 0 || slices.Contains(o.Audience, "") {
		return bad("audience", "is missing, write whom its tokens must be for: without it a token that somebody got "+
			"for another service would be good here")
	}
	if slices.Contains(o.AuthorizedParties, "") {
		return bad("authorized_parties", "has an empty name, write the client ids of applications, or none")
	}
	if len(o.Scope) > 256 || mail.Printable(o.Scope) != o.Scope || strings.ContainsAny(o.Scope, `"\\`) {
		return bad("scope", "is no list of scopes, write their names with blanks between them")
	}
	for _, c := range [][2]string{{"login_claim", o.LoginClaim}, {"groups_claim", o.GroupsClaim},
		{"senders_claim", o.SendersClaim}} {
		if len(c[1]) > 128 || mail.Printable(c[1]) != c[1] || strings.Contains(c[1], " ") {
			return bad(c[0], "%q is no name of a claim, write one such as \"email\"",
				mail.Printable(mail.Cut(c[1], 128)))
		}
	}
	if (o.ClientID == "") != (o.ClientSecret == "") {
		return bad("client_id", "needs client_secret, and client_secret needs it")
	}
	return nil
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New(`is no issuer, write its address such as "https://login.example.com/realms/office"`)
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && local.Host(u.Hostname()):
		return nil
	}
	return errors.New("is not https:// (http:// is for this machine only: localhost, 127.0.0.1, [::1])")
}

// Source is an issuer. It is safe for concurrent use.
type Source struct {
	Options
	client *http.Client
	keys   *keys
	now    func() time.Time
}

// New makes a source, and connects to nothing yet. The error is that of Check.
func New(o Options) (*Source, error) {
	if err := Check(o); err != nil {
		return nil, err
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.LoginClaim == "" {
		o.LoginClaim = "email"
	}
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: o.Timeout}).DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: o.Timeout, MaxConnsPerHost: maxConns, MaxIdleConns: maxConns,
		MaxIdleConnsPerHost: maxConns, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
		DisableCompression: true, ForceAttemptHTTP2: true,
	}
	s := &Source{Options: o, now: time.Now, client: &http.Client{Transport: bounded{transport}, Timeout: o.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	s.keys = &keys{source: s}
	return s, nil
}

// bounded cuts answers off that are longer than any should be.
type bounded struct{ *http.Transport }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.Transport.RoundTrip(r)
	if err == nil {
		answer.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(answer.Body, maxAnswer), answer.Body}
	}
	return answer, err
}

// Name implements auth.Source.
func (s *Source) Name() string { return s.Options.Name }

// StaleOK implements auth.Remote.
func (s *Source) StaleOK() time.Duration { return s.Options.StaleOK }

// Verify implements auth.Source: it knows no passwords.
func (s *Source) Verify(context.Context, string, string) (auth.Identity, error) {
	return auth.Identity{}, auth.ErrUnknownLogin
}

// Challenge implements auth.TokenSource.
func (s *Source) Challenge() auth.TokenChallenge {
	return auth.TokenChallenge{Scope: s.Scope, OpenIDConfiguration: strings.TrimSuffix(s.Issuer, "/") +
		"/.well-known/openid-configuration"}
}

// Probe implements auth.Remote.
func (s *Source) Probe(ctx context.Context) error { return s.keys.fetch(ctx) }

// Close ends idle connections.
func (s *Source) Close() error {
	s.client.CloseIdleConnections()
	return nil
}

// claims are what a token, or the issuer about it, says.
type claims map[string]any

// VerifyToken implements auth.TokenSource.
func (s *Source) VerifyToken(ctx context.Context, token string) (auth.Identity, error) {
	c, expires, err := s.claimsOf(ctx, token)
	if err != nil {
		return auth.Identity{}, err
	}
	if why := s.refuses(c); why != nil {
		return auth.Identity{}, why
	}
	id, err := s.identity(c)
	if err != nil {
		return auth.Identity{}, err
	}
	id.Expires = expires.Add(s.ClockSkew)
	return id, nil
}

func (s *Source) claimsOf(ctx context.Context, token string) (claims, time.Time, error) {
	issuer, signed := unverifiedIssuer(token)
	switch {
	case signed && issuer != s.Issuer:
		return nil, time.Time{}, auth.ErrUnknownLogin
	case !signed && s.ClientID == "":
		return nil, time.Time{}, wrong("it is opaque, and client_id is not set to ask the issuer about it")
	case !signed:
		return s.introspect(ctx, token)
	}
	use := &use{keys: s.keys}
	v := goidc.NewVerifier(s.Issuer, use, &goidc.Config{SkipClientIDCheck: true, SupportedSigningAlgs: algorithms,
		Now: func() time.Time { return s.now().Add(-s.ClockSkew) }})
	t, err := v.Verify(ctx, token)
	switch {
	case use.err != nil:
		return nil, time.Time{}, use.err
	case err != nil:
		return nil, time.Time{}, wrong("%s", mail.Printable(mail.Cut(err.Error(), 300)))
	}
	var c claims
	if err := t.Claims(&c); err != nil {
		return nil, time.Time{}, wrong("its claims are not understood")
	}
	return c, t.Expiry, nil
}

// unverifiedIssuer reads who a token says has made it. False: it is none of those that are signed.
func unverifiedIssuer(token string) (string, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var said struct {
		Issuer string `json:"iss"`
	}
	if err != nil || json.Unmarshal(payload, &said) != nil {
		return "", false
	}
	return said.Issuer, true
}

func wrong(format string, args ...any) error {
	return fmt.Errorf("%w: %s", auth.ErrToken, fmt.Sprintf(format, args...))
}

// refuses says why a token that is genuine is not good here.
func (s *Source) refuses(c claims) error {
	audience := c.list("aud")
	party := c.text("azp")
	for _, other := range []string{"client_id", "appid"} { // RFC 9068, Entra ID's first version
		if party == "" {
			party = c.text(other)
		}
	}
	switch {
	case !slices.ContainsFunc(audience, func(a string) bool { return slices.Contains(s.Audience, a) }):
		return wrong("it is for %s, and audience has %s", said(audience), said(s.Audience))
	case len(s.AuthorizedParties) > 0 && !slices.Contains(s.AuthorizedParties, party):
		return wrong("it was made for the application %s, and authorized_parties has %s", said([]string{party}),
			said(s.AuthorizedParties))
	case s.Scope != "" && !s.hasScope(c):
		return wrong("it does not have the scope %s", s.Scope)
	}
	return nil
}

// hasScope: those of Entra ID are in scp, and permissions of applications in roles.
func (s *Source) hasScope(c claims) bool {
	have := slices.Concat(strings.Fields(c.text("scope")), c.list("scope"), strings.Fields(c.text("scp")),
		c.list("scp"), c.list("roles"))
	for _, want := range strings.Fields(s.Scope) {
		short := want[strings.LastIndex(want, "/")+1:] // api://…/Mail.Send is Mail.Send in scp
		if !slices.Contains(have, want) && !slices.Contains(have, short) {
			return false
		}
	}
	return true
}

func (s *Source) identity(c claims) (id auth.Identity, err error) {
	id.Login = c.text(s.LoginClaim)
	if id.Login == "" {
		return id, wrong("it has no claim %s", s.LoginClaim)
	}
	verified, told := c["email_verified"]
	if s.LoginClaim == "email" && told && verified != true && verified != "true" {
		return id, wrong("its address is not verified by the issuer")
	}
	if s.GroupsClaim != "" {
		id.Groups = c.list(s.GroupsClaim)
		if err := fields.Groups(id.Groups); err != nil {
			return id, fmt.Errorf("%w: claim %s: %w", auth.ErrUndecided, s.GroupsClaim, err)
		}
	}
	if s.SendersClaim != "" {
		for _, a := range c.list(s.SendersClaim) { // addresses only: people may edit theirs, and *@domain is a pattern
			_, err := mail.ParseAddress(a)
			if err == nil && !strings.Contains(a, "*") && len(id.Senders) < fields.MaxList {
				id.Senders = append(id.Senders, a)
			}
		}
	}
	return id, nil
}

func (c claims) text(name string) string {
	s, _ := c[name].(string)
	return s
}

// list reads a claim that is a text or a list of them.
func (c claims) list(name string) (list []string) {
	switch v := c[name].(type) {
	case string:
		return []string{v}
	case []any:
		for _, e := range v {
			if s, ok := e.(string); ok {
				list = append(list, s)
			}
		}
	}
	return list
}

func said(list []string) string {
	if len(list) == 0 || len(list) == 1 && list[0] == "" {
		return "nobody"
	}
	return mail.Printable(mail.Cut(strings.Join(list, ", "), 200))
}
