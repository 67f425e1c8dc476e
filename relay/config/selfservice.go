package config

import (
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/local"
	"postern/mail"
)

// SelfService is the page where people make passwords for their devices and programs. It is on where it has Sources or
// OIDC.
type SelfService struct {
	// Sources are names of [[auth.source]] whose people log in to the page with their password.
	Sources []string `toml:"sources"`
	// MaxAge is the longest life of an app password.
	MaxAge       Duration `toml:"max_age" default:"365d"`
	MaxPasswords int      `toml:"max_passwords" default:"20"` // of one person at once
	Groups       []string `toml:"groups"`                     // only who is in one of these may; empty: all
	// Address serves the page by HTTPS, with the certificate of [tls], and nothing else. "": it is at the admin
	// address.
	Address string `toml:"address"`
	// URL is where browsers find the page. Default: https://, Hostname and the port of Address, or Admin.URL.
	URL  string           `toml:"url"`
	OIDC *SelfServiceOIDC `toml:"oidc"`
}

// SelfServiceOIDC lets people log in to the page by OpenID Connect.
type SelfServiceOIDC struct {
	Issuer       string   `toml:"issuer"` // https://, or http:// on this machine
	ClientID     string   `toml:"client_id"`
	ClientSecret Secret   `toml:"client_secret"`
	RedirectURL  string   `toml:"redirect_url"` // default: URL with SelfServiceOIDCPath
	Scopes       []string `toml:"scopes" default:"profile,email"`
	// LoginClaim is what people's logins are. It must be one that they cannot change by themselves.
	LoginClaim   string `toml:"login_claim" default:"preferred_username"`
	GroupsClaim  string `toml:"groups_claim" default:"groups"`
	SendersClaim string `toml:"senders_claim"` // empty: a person sends as what [[policy]] says
}

// SelfServicePath is where the page is, at its own address and at that of the console.
const SelfServicePath = "/me"

// SelfServiceOIDCPath is where a provider sends browsers back to.
const SelfServiceOIDCPath = SelfServicePath + "/oidc"

// Bounds of [self_service].
const (
	maxAppPasswords = 50
	longMaxAge      = 2 * 365 * 24 * time.Hour // over which there is a warning
	longestMaxAge   = 10 * 365 * 24 * time.Hour
)

// On reports whether people can make app passwords by themselves.
func (s *SelfService) On() bool { return len(s.Sources) > 0 || s.OIDC != nil }

// Listens returns the address that the page has for itself, "" for none.
func (s *SelfService) Listens() string {
	if !s.On() {
		return ""
	}
	return s.Address
}

// Looks reports whether a source can say who a login is without its password.
func (s *AuthSource) Looks() bool {
	switch s.Type {
	case SourceStore, SourceFile:
		return true
	case SourceLDAP:
		return s.BindDN != "" && s.BaseDN != ""
	}
	return false
}

// httpsURL is where browsers reach an address of ours.
func httpsURL(hostname, address string) string {
	host := strings.TrimSuffix(hostname, ".")
	u := url.URL{Scheme: "https", Host: host}
	if addr, err := parseListen(address); err == nil && addr.port != 443 {
		u.Host = net.JoinHostPort(host, strconv.Itoa(addr.port))
	}
	return u.String()
}

// deriveSelfService fills in what follows from other keys.
func deriveSelfService(c *Config) {
	s := &c.SelfService
	base := c.Admin.URL
	if s.Address != "" {
		base = httpsURL(c.Hostname, s.Address)
	}
	setDefault(&s.URL, c.doc.has("self_service.url"), base)
}

func (v *validator) selfService() {
	s := &v.SelfService
	v.between("self_service.max_passwords", s.MaxPasswords, 1, maxAppPasswords)
	v.atLeast("self_service.max_age", s.MaxAge, time.Hour)
	v.atMost("self_service.max_age", s.MaxAge, longestMaxAge, "who left the office could send so long")
	if s.MaxAge.Std() > longMaxAge && s.MaxAge.Std() <= longestMaxAge {
		v.warn("self_service.max_age", "%s is long: a device that was given away or stolen, and who left the office, "+
			"can send until then; write 365d", s.MaxAge)
	}
	if !s.On() {
		if v.doc.has("self_service.address") || v.doc.has("self_service.groups") || v.doc.has("self_service.url") {
			v.fail("self_service.sources", `is missing, write the names of [[auth.source]] whose people may log in `+
				`to the page, or [self_service.oidc]`)
		}
		return
	}
	v.selfServiceSources()
	for i, g := range s.Groups {
		if g == "" || g != mail.Printable(g) {
			v.fail(element("self_service.groups", i), "%q is no group, write its name", g)
		}
	}
	v.selfServiceAddress()
	v.selfServiceOIDC()
}

func (v *validator) selfServiceSources() {
	for i, name := range v.SelfService.Sources {
		key := element("self_service.sources", i)
		at := slices.IndexFunc(v.Auth.Sources, func(s AuthSource) bool { return s.Name == name })
		switch {
		case at < 0:
			v.fail(key, "%q is the name of no [[auth.source]], write one of %s", name, v.sourceNames())
		case slices.Index(v.SelfService.Sources, name) < i:
			v.fail(key, "%q stands twice, remove one", name)
		case !v.Auth.Sources[at].Looks():
			v.fail(key, "source %q cannot be asked whether a login still stands without its password: its people "+
				"could go on sending after they left. A store, a file, and a directory with bind_dn and base_dn can",
				name)
		}
	}
}

func (v *validator) sourceNames() string {
	var names []string
	for i := range v.Auth.Sources {
		if s := &v.Auth.Sources[i]; s.Looks() {
			names = append(names, strconv.Quote(s.Name))
		}
	}
	return strings.Join(names, ", ")
}

// selfServiceAddress checks where the page is.
func (v *validator) selfServiceAddress() {
	s := &v.SelfService
	address, httpAddress := v.Autoconfig.Listens()
	v.ownListen("self_service.address", s.Address, v.Admin.Address, address, httpAddress)
	if s.Address == "" && !v.Admin.Console {
		v.fail("self_service.address", `is missing, and the admin address serves no pages: write ":8443", or switch `+
			`admin.console on, which needs tls = true in [admin] off loopback`)
	}
	if !v.doc.has("self_service.url") {
		return
	}
	u, err := url.Parse(s.URL)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		strings.Trim(u.Path, "/") != "":
		v.fail("self_service.url", "%q is not where a browser finds the page, write scheme and host such as "+
			"\"https://relay.example.com\"", s.URL)
	case u.Scheme != "https" && !local.Host(u.Hostname()):
		v.fail("self_service.url", "browsers would send passwords to %s in clear text, write https://", u.Host)
	}
}

func (v *validator) selfServiceOIDC() {
	o := v.SelfService.OIDC
	if o == nil {
		return
	}
	const key = "self_service.oidc."
	v.oidcClient(key, o.Issuer, o.RedirectURL, o.ClientID, o.ClientSecret)
	for _, claim := range []struct{ key, text string }{{"login_claim", o.LoginClaim},
		{"groups_claim", o.GroupsClaim}, {"senders_claim", o.SendersClaim}} {
		if claim.text == "" && claim.key == "login_claim" || claim.text != mail.Printable(claim.text) {
			v.fail(key+claim.key, "%q is no claim, write one such as \"preferred_username\"", claim.text)
		}
	}
	if o.LoginClaim == "email" {
		v.warn(key+"login_claim", "providers let people enter any e-mail address, Entra ID without verifying it, and "+
			"whoever enters a colleague's gets their login: write \"preferred_username\", or another that only "+
			"administrators change")
	}
}
