package oauth

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"postern/internal/local"
	"postern/mail"
	"postern/relay/seal"
)

// Flow is the way to an access token.
type Flow string

// The flows, as the configuration names them.
const (
	// ClientCredentials: the application acts for itself (RFC 6749 §4.4), known by a secret or a certificate (RFC 7523
	// §2.2).
	ClientCredentials Flow = "client-credentials"
	// DeviceCode: a person consents on any device, once (RFC 8628).
	DeviceCode Flow = "device-code"
	// AuthorizationCode: a person consents in a browser, once (RFC 6749 §4.1, RFC 7636, RFC 8252).
	AuthorizationCode Flow = "authorization-code"
	// RefreshToken: the consent was given elsewhere, and the refresh token is configured.
	RefreshToken Flow = "refresh-token"
	// ServiceAccount: Google's service account with domain-wide delegation (RFC 7523 §2.1), a token for each mailbox.
	ServiceAccount Flow = "service-account"
)

// Delegated reports whether the flow lives on a person's grant.
func (f Flow) Delegated() bool { return f == DeviceCode || f == AuthorizationCode || f == RefreshToken }

// The providers whose endpoints and scopes are known.
const (
	Microsoft      = "microsoft"       // Exchange Online and Outlook.com by SMTP
	MicrosoftGraph = "microsoft-graph" // the same accounts by Graph
	Google         = "google"
)

// Options configure a Source. What a provider is known to need is filled in; anything set here wins over it.
type Options struct {
	Upstream string // the name of the upstream: its grant is stored under it
	Provider string // Microsoft, MicrosoftGraph, Google, or "" for any other
	Flow     Flow
	// Microsoft: tenant id or domain; "organizations", "consumers", "common" for people only; "" is "common"
	Tenant string
	Cloud  string // Microsoft: "" (global), "us-gov", "us-gov-dod", "china"

	ClientID     string
	ClientSecret Secret
	// ClientSecretExpires is when the secret ends, if somebody wrote it down; no server tells.
	ClientSecretExpires time.Time
	// Certificate is PEM: the certificate and its RSA private key, instead of a secret.
	Certificate Secret
	// ServiceAccount is the JSON key file that Google gives out.
	ServiceAccount Secret
	// RefreshToken is for the flow of that name. It is stored once; what rotates from it lives in the store.
	RefreshToken Secret
	// Username is the mailbox that consent is asked for. It is a hint to the login page only.
	Username string

	// LargeMail and Others are what a person's consent must cover at MicrosoftGraph beside sending: making drafts, and
	// mail from other mailboxes or addresses than that of whoever logs in.
	LargeMail, Others bool

	Scopes                       []string
	TokenURL, AuthURL, DeviceURL string

	Grants GrantStore   // needed for the flows that live on a grant
	Sealer *seal.Sealer // likewise

	// RootCAs are trusted beside the system's, for servers of one's own.
	RootCAs []*x509.Certificate
	// Dial makes connections, through a proxy or not; nil: directly, or through the proxy of the environment.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Transport replaces the HTTP transport.
	Transport http.RoundTripper
	Logger    *slog.Logger
	// Jitter returns numbers in [0, 1).
	Jitter func() float64
}

// A name in a path of the login server.
var tenantSyntax = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,252}$`)

// Check says what a person has to write differently, by the keys of [upstream.oauth]. Where single values are wrong,
// what belongs together is not checked.
func (o *Options) Check() []*mail.KeyError {
	c := &checker{o: o}
	c.values()
	c.credentials()
	if len(c.bad) == 0 {
		c.together()
	}
	return c.bad
}

// checker collects what is wrong.
type checker struct {
	o   *Options
	bad []*mail.KeyError
}

func (c *checker) fail(key, format string, args ...any) {
	c.bad = append(c.bad, &mail.KeyError{Key: key, Msg: fmt.Sprintf(format, args...)})
}

// oneOf refuses a value that is not among the choices.
func (c *checker) oneOf(key, value string, choices ...string) {
	if slices.Contains(choices, value) {
		return
	}
	last := len(choices) - 1
	c.fail(key, `unknown value %q, write "%s" or "%s"`, value, strings.Join(choices[:last], `", "`), choices[last])
}

// values checks each setting alone. No address is repeated: it may hold a password.
func (c *checker) values() {
	o := c.o
	c.oneOf("flow", string(o.Flow), string(ClientCredentials), string(DeviceCode), string(AuthorizationCode),
		string(RefreshToken),
		string(ServiceAccount))
	if o.Provider != "" && o.Provider != MicrosoftGraph {
		c.oneOf("provider", o.Provider, Microsoft, Google)
	}
	if o.Tenant != "" && !tenantSyntax.MatchString(o.Tenant) {
		c.fail("tenant", "%q is not a tenant, write its domain or id, such as contoso.onmicrosoft.com", o.Tenant)
	}
	if o.Cloud != "" {
		c.oneOf("cloud", o.Cloud, "us-gov", "us-gov-dod", "china")
	}
	for i, s := range o.Scopes {
		if s == "" || strings.ContainsAny(s, " \t\r\n\"\\") { // RFC 6749 §3.3
			c.fail(fmt.Sprintf("scopes[%d]", i+1), "%q is not a scope, write each in quotes of its own", s)
		}
	}
	for _, u := range []struct{ key, text string }{{"token_url", o.TokenURL}, {"auth_url", o.AuthURL},
		{"device_url", o.DeviceURL}} {
		if u.text != "" && !isSafe(u.text) {
			c.fail(u.key, "is not the address of a server with TLS, write one that begins with https://")
		}
	}
}

// credentials checks what the flow needs, and what it does not.
func (c *checker) credentials() {
	o := c.o
	switch {
	case len(c.bad) > 0 && c.bad[0].Key == "flow":
		return
	case o.Flow == ServiceAccount && o.ServiceAccount.IsZero():
		c.fail("service_account_file", "is missing, write the path of the JSON key of the service account")
	case o.Flow != ServiceAccount && !o.ServiceAccount.IsZero():
		c.fail("service_account_file", "has no effect with flow %q, remove it", o.Flow)
	case o.Flow != ServiceAccount && o.ClientID == "":
		c.fail("client_id", "is missing, write the id that the application got when it was registered at the provider")
	}
	switch {
	case o.Flow == RefreshToken && o.RefreshToken.IsZero():
		c.fail("refresh_token", `is missing, write "env:NAME" or "file:PATH"`)
	case o.Flow != RefreshToken && !o.RefreshToken.IsZero():
		c.fail("refresh_token", "has no effect with flow %q, remove it", o.Flow)
	}
	switch {
	case !o.ClientSecret.IsZero() && !o.Certificate.IsZero():
		c.fail("certificate_file", "stands beside client_secret, remove one of them")
	case o.Flow == ClientCredentials && o.ClientSecret.IsZero() && o.Certificate.IsZero():
		c.fail("client_secret", `is missing, write "env:NAME" or "file:PATH", or certificate_file and key_file`)
	}
}

// together checks what the provider makes of the flow.
func (c *checker) together() {
	o, p := c.o, resolve(c.o)
	switch {
	case o.Flow == ClientCredentials && p.microsoft && o.TokenURL == "" && sharedTenant(o.Tenant):
		c.fail("tenant", "client-credentials needs the tenant's own domain or id, for example contoso.onmicrosoft.com")
	case o.Flow == ClientCredentials && o.Provider == Google:
		c.fail("flow", "Google has no client-credentials for mail; use service-account or authorization-code")
	case o.Flow == DeviceCode && o.Provider == Google && o.DeviceURL == "":
		c.fail("flow", "Google does not give the mail scope to device-code; use authorization-code")
	case o.Flow == ServiceAccount && p.microsoft:
		c.fail("flow", "service-account is Google's; Microsoft's equivalent is client-credentials")
	}
	need := func(key, text string) {
		if text == "" {
			c.fail(key, "is missing; this provider's endpoints are not built in")
		}
	}
	need("token_url", p.endpoint.TokenURL)
	switch o.Flow {
	case DeviceCode:
		need("device_url", p.endpoint.DeviceAuthURL)
	case AuthorizationCode:
		need("auth_url", p.endpoint.AuthURL)
	}
	if len(p.scopes) == 0 {
		c.fail("scopes", "is missing; the provider's documentation names the scope that lets an application send mail")
	}
}

func sharedTenant(tenant string) bool {
	switch strings.ToLower(tenant) {
	case "", "common", "organizations", "consumers":
		return true
	}
	return false
}

// isSafe reports a plain URL with TLS, or on loopback.
func isSafe(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && local.Host(u.Hostname())
}
