package oauth

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/endpoints"
)

// provider is what is known about an authorization server, with the overrides of the configuration applied.
type provider struct {
	endpoint  oauth2.Endpoint
	scopes    []string // that are asked for
	least     []string // that a consent has which was given before its scopes were kept
	microsoft bool
	// authParams go with the authorization request.
	authParams url.Values
	// loopback is the host of the redirect: Microsoft ignores the port of "localhost" only, RFC 8252 §7.3 wants the
	// literal.
	loopback string
	// algorithm signs client assertions.
	algorithm string
	// idle is how long an unused grant lives; 0 is unknown.
	idle time.Duration
	// idleFrom names where idle is from.
	idleFrom string
}

// cloud is one of Microsoft's sovereign networks. An empty resource is not known for certain: scopes must be
// configured.
type cloud struct {
	login       string
	delegated   string // resource of SMTP.Send
	application string // resource of .default for SMTP
	graph       string
}

// https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud and
// https://learn.microsoft.com/graph/deployments
var clouds = map[string]cloud{
	"": {"login.microsoftonline.com", "https://outlook.office.com", "https://outlook.office365.com",
		"https://graph.microsoft.com"},
	"us-gov": {"login.microsoftonline.us", "https://outlook.office365.us", "https://outlook.office365.us",
		"https://graph.microsoft.us"},
	"us-gov-dod": {"login.microsoftonline.us", "", "", "https://dod-graph.microsoft.us"},
	"china": {"login.partner.microsoftonline.cn", "https://partner.outlook.cn", "https://partner.outlook.cn",
		"https://microsoftgraph.chinacloudapi.cn"},
}

const day = 24 * time.Hour

// resolve puts together what the provider is known to need and what the configuration overrides.
func resolve(o *Options) *provider {
	p := &provider{loopback: "127.0.0.1", algorithm: algRS256}
	p.endpoint.AuthStyle = oauth2.AuthStyleInHeader // RFC 6749 §2.3.1: what every server must take
	switch o.Provider {
	case Microsoft, MicrosoftGraph:
		p.microsoftFor(o)
	case Google:
		p.google()
	}
	p.override(o)
	return p
}

func (p *provider) microsoftFor(o *Options) {
	c, tenant := clouds[o.Cloud], cmp.Or(o.Tenant, "common")
	base := url.URL{Scheme: "https", Host: c.login}
	p.microsoft = true
	p.endpoint = oauth2.Endpoint{
		AuthURL:       base.JoinPath(tenant, "oauth2/v2.0/authorize").String(),
		TokenURL:      base.JoinPath(tenant, "oauth2/v2.0/token").String(),
		DeviceAuthURL: base.JoinPath(tenant, "oauth2/v2.0/devicecode").String(),
		AuthStyle:     oauth2.AuthStyleInParams,
	}
	p.least = microsoftScopes(o, c)
	p.scopes = slices.Concat(graphScopes(o, c), p.least)
	p.loopback, p.algorithm = "localhost", algPS256
	p.authParams = url.Values{"prompt": {"select_account"}}
	// https://learn.microsoft.com/entra/identity-platform/refresh-tokens: 90 days, and each refresh gives another 90.
	p.idle, p.idleFrom = 90*day, "Microsoft ends a grant that is unused for 90 days"
}

func microsoftScopes(o *Options, c cloud) []string {
	application := o.Flow == ClientCredentials
	switch {
	case o.Provider == MicrosoftGraph && application:
		return []string{c.graph + "/.default"}
	case o.Provider == MicrosoftGraph:
		return []string{c.graph + "/Mail.Send", "offline_access"}
	case application && c.application != "":
		return []string{c.application + "/.default"}
	case !application && c.delegated != "":
		return []string{c.delegated + "/SMTP.Send", "offline_access"}
	}
	return nil
}

// graphScopes are those of a person's consent beside the least (learn.microsoft.com/graph/permissions-reference).
func graphScopes(o *Options, c cloud) (scopes []string) {
	if o.Provider != MicrosoftGraph || !o.Flow.Delegated() {
		return nil
	}
	add := func(name string) { scopes = append(scopes, c.graph+"/"+name) }
	others := o.Others && !strings.EqualFold(o.Tenant, "consumers") // personal accounts share nothing
	if others {
		add("Mail.Send.Shared")
	}
	if o.LargeMail {
		add("Mail.ReadWrite")
	}
	if o.LargeMail && others {
		add("Mail.ReadWrite.Shared")
	}
	return scopes
}

func (p *provider) google() {
	p.endpoint = endpoints.Google
	p.endpoint.AuthStyle = oauth2.AuthStyleInParams
	// https://developers.google.com/workspace/gmail/imap/xoauth2-protocol: the only scope for SMTP.
	p.scopes = []string{"https://mail.google.com/"}
	// Without consent asked for again, a second login brings no refresh token.
	p.authParams = url.Values{"access_type": {"offline"}, "prompt": {"consent"}}
	// https://developers.google.com/identity/protocols/oauth2#expiration
	p.idle, p.idleFrom = 180*day,
		"Google ends a grant that is unused for six months, and after 7 days while the app is in testing"
}

func (p *provider) override(o *Options) {
	p.endpoint.TokenURL = cmp.Or(o.TokenURL, p.endpoint.TokenURL)
	p.endpoint.AuthURL = cmp.Or(o.AuthURL, p.endpoint.AuthURL)
	p.endpoint.DeviceAuthURL = cmp.Or(o.DeviceURL, p.endpoint.DeviceAuthURL)
	if len(o.Scopes) > 0 {
		p.scopes, p.least = o.Scopes, o.Scopes
	}
	if o.ClientSecret.IsZero() {
		p.endpoint.AuthStyle = oauth2.AuthStyleInParams // client_id alone identifies (RFC 6749 §3.2.1)
	}
}
