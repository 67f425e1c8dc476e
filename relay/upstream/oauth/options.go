package oauth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"postern/relay/seal"
)

// Flow is the way to an access token.
type Flow string

// The flows, as the configuration names them.
const (
	// ClientCredentials: the application acts for itself (RFC 6749 §4.4), known by a secret or a certificate (RFC 7523 §2.2).
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

// delegated reports whether the flow lives on a person's grant.
func (f Flow) delegated() bool { return f == DeviceCode || f == AuthorizationCode || f == RefreshToken }

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
	Tenant   string // Microsoft: tenant id or domain; "organizations", "consumers", "common" for people only; "" is "common"
	Cloud    string // Microsoft: "" (global), "us-gov", "us-gov-dod", "china"

	ClientID     string
	ClientSecret Secret
	// ClientSecretExpires is when the secret ends, if somebody wrote it down; no server tells.
	ClientSecretExpires time.Time
	// Certificate is PEM: the certificate and its RSA private key, instead of a secret.
	Certificate Secret
	// AssertionAlgorithm is "PS256" or "RS256"; "" is PS256 at Microsoft and RS256 elsewhere.
	AssertionAlgorithm string
	// ServiceAccount is the JSON key file that Google gives out.
	ServiceAccount Secret
	// RefreshToken is for the flow of that name. It is stored once; what rotates from it lives in the store.
	RefreshToken Secret
	// Username is the mailbox that consent is asked for. It is a hint to the login page only.
	Username string

	// LargeMail and Others are what a person's consent must cover at MicrosoftGraph beside sending: making drafts, and mail from
	// other mailboxes or addresses than that of whoever logs in.
	LargeMail, Others bool

	Scopes                           []string
	TokenURL, AuthURL, DeviceAuthURL string
	// RedirectURL of the authorization code. "" is a loopback address with a port of the system's choice.
	RedirectURL string
	// AuthStyle is how a client secret is sent: "header" or "body"; "" is the body at Microsoft and Google and the header
	// elsewhere (RFC 6749 §2.3.1).
	AuthStyle string

	Grants GrantStore   // needed for the flows that live on a grant
	Sealer *seal.Sealer // likewise
	Node   string       // this process among those that share Grants; "" makes one up

	// Timeout bounds a Token call and whatever it asks of servers and store. 0 is 30 s.
	Timeout time.Duration
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

// validate says what a person has to write differently, naming the key as the configuration does.
func (o *Options) validate(p *provider) error {
	switch o.Flow {
	case ClientCredentials, DeviceCode, AuthorizationCode, RefreshToken, ServiceAccount:
	case "":
		return errors.New("flow: missing; write client-credentials, device-code, authorization-code, refresh-token or service-account")
	default:
		return fmt.Errorf("flow: %q is none of client-credentials, device-code, authorization-code, refresh-token, service-account", o.Flow)
	}
	if o.Upstream == "" {
		return errors.New("the upstream has no name")
	}
	for _, check := range []func(*provider) error{o.validateClient, o.validateFlow, o.validateURLs} {
		if err := check(p); err != nil {
			return err
		}
	}
	if len(p.scopes) == 0 {
		return errors.New("scopes: missing; the provider's documentation names the scope that lets an application send mail")
	}
	return nil
}

func (o *Options) validateClient(*provider) error {
	if o.Flow == ServiceAccount {
		if o.ServiceAccount.IsZero() {
			return errors.New("service_account: missing; the flow needs the JSON key file of the service account")
		}
		return nil
	}
	if o.ClientID == "" {
		return errors.New("client_id: missing; it is made when the application is registered at the provider")
	}
	if !o.ClientSecret.IsZero() && !o.Certificate.IsZero() {
		return errors.New("client_secret and certificate: both are set; keep one")
	}
	if o.Flow == ClientCredentials && o.ClientSecret.IsZero() && o.Certificate.IsZero() {
		return errors.New("client_secret: missing; client-credentials needs a client_secret or a certificate")
	}
	switch o.AuthStyle {
	case "", "header", "body":
	default:
		return fmt.Errorf("auth_style: %q is neither header nor body", o.AuthStyle)
	}
	switch o.AssertionAlgorithm {
	case "", algPS256, algRS256:
		return nil
	}
	return fmt.Errorf("assertion_algorithm: %q is neither PS256 nor RS256", o.AssertionAlgorithm)
}

func (o *Options) validateFlow(p *provider) error {
	switch {
	case o.Flow == ClientCredentials && p.microsoft && o.TokenURL == "" && sharedTenant(o.Tenant):
		return errors.New("tenant: client-credentials needs the tenant's own domain or id, for example contoso.onmicrosoft.com")
	case o.Flow == ClientCredentials && o.Provider == Google:
		return errors.New("flow: Google has no client-credentials for mail; use service-account or authorization-code")
	case o.Flow == DeviceCode && o.Provider == Google && o.DeviceAuthURL == "":
		return errors.New("flow: Google does not give the mail scope to device-code; use authorization-code")
	case o.Flow == ServiceAccount && p.microsoft:
		return errors.New("flow: service-account is Google's; Microsoft's equivalent is client-credentials")
	case o.Flow == RefreshToken && o.RefreshToken.IsZero():
		return errors.New("refresh_token: missing; the flow refresh-token begins with one")
	case o.Flow.delegated() && (o.Grants == nil || o.Sealer == nil):
		return fmt.Errorf("flow %s: no store for the grant", o.Flow)
	}
	return nil
}

func sharedTenant(tenant string) bool {
	switch strings.ToLower(tenant) {
	case "", "common", "organizations", "consumers":
		return true
	}
	return false
}

func (o *Options) validateURLs(p *provider) error {
	need := map[string]string{"token_url": p.endpoint.TokenURL}
	switch o.Flow {
	case DeviceCode:
		need["device_auth_url"] = p.endpoint.DeviceAuthURL
	case AuthorizationCode:
		need["auth_url"] = p.endpoint.AuthURL
	}
	for _, key := range []string{"token_url", "device_auth_url", "auth_url"} {
		text, needed := need[key]
		if !needed {
			continue
		}
		if text == "" {
			return fmt.Errorf("%s: missing; this provider's endpoints are not built in", key)
		}
		if err := checkURL(text); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

// checkURL wants TLS, except on loopback.
func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return fmt.Errorf("%q is not a plain URL", text)
	}
	if u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()) {
		return nil
	}
	return fmt.Errorf("%q would send secrets without TLS; write https", text)
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
