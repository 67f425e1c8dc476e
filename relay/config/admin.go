package config

import (
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"postern/internal/local"
	"postern/mail"
)

// AdminOIDC lets people log in to the console by OpenID Connect.
type AdminOIDC struct {
	Issuer       string   `toml:"issuer"` // https://, or http:// on this machine
	ClientID     string   `toml:"client_id"`
	ClientSecret Secret   `toml:"client_secret"`
	RedirectURL  string   `toml:"redirect_url"` // default: Admin.URL with /login/oidc
	Scopes       []string `toml:"scopes" default:"profile,email"`
	NameClaim    string   `toml:"name_claim" default:"preferred_username"`
	GroupsClaim  string   `toml:"groups_claim" default:"groups"`
	// Roles are what groups may, "group = role"; of several the highest counts. Who is in none stays out.
	Roles []string `toml:"roles"`
}

// ConsoleRoles are the roles of the console, the least first.
var ConsoleRoles = []string{"viewer", "helpdesk", "operator", "admin"}

// RolesOfGroups returns the role of each group. They were checked when the configuration was validated.
func (o *AdminOIDC) RolesOfGroups() map[string]string {
	roles := make(map[string]string, len(o.Roles))
	for _, text := range o.Roles {
		group, role, _ := groupRole(text)
		roles[group] = role
	}
	return roles
}

// groupRole reads "group = role". The last = counts: groups may be names of LDAP.
func groupRole(text string) (group, role string, ok bool) {
	i := strings.LastIndexByte(text, '=')
	if i < 0 {
		return "", "", false
	}
	group, role = strings.TrimSpace(text[:i]), strings.TrimSpace(text[i+1:])
	return group, role, group != "" && slices.Contains(ConsoleRoles, role)
}

// deriveAdmin fills in what follows from the address.
func deriveAdmin(c *Config) {
	addr, err := parseListen(c.Admin.Address)
	if err != nil { // "" too
		return
	}
	loopback := addr.host.IsLoopback()
	setDefault(&c.Admin.Console, c.doc.has("admin.console"), loopback || c.Admin.TLS)
	u := url.URL{Scheme: "http", Host: "localhost"}
	if !loopback { // a passkey needs a name, and the certificate is for this one
		u.Host = strings.TrimSuffix(c.Hostname, ".")
	}
	port := 80
	if c.Admin.TLS {
		u.Scheme, port = "https", 443
	}
	if addr.port != port {
		u.Host = net.JoinHostPort(u.Host, strconv.Itoa(addr.port))
	}
	setDefault(&c.Admin.URL, c.doc.has("admin.url"), u.String())
}

func (v *validator) admin() {
	if v.Admin.Address == "" {
		if v.Admin.Console {
			v.fail("admin.console", `has no address, write admin.address such as "127.0.0.1:8587"`)
		}
		return
	}
	addr, err := parseListen(v.Admin.Address)
	if err != nil {
		v.fail("admin.address", "%s", err)
		return
	}
	for i, name := range v.Admin.Names {
		if _, err := mail.ParseDomain(name); err != nil {
			v.fail(element("admin.names", i), "%q is no host name, write one such as \"relay.internal\"", name)
		}
	}
	v.narrow("admin.trusted_proxies", v.Admin.TrustedProxies,
		"whoever sends X-Forwarded-For chooses its client address")
	v.adminInClear(addr)
	for i, l := range v.Listeners {
		if other, err := parseListen(l.Address); err == nil && addr.conflicts(other) {
			v.fail("admin.address", "%s is the address of listener[%d] too, write another port", v.Admin.Address, i+1)
		}
	}
	v.adminURL()
	v.adminOIDC()
}

// adminInClear refuses to take passwords from other machines without TLS. Health and metrics may be read so.
func (v *validator) adminInClear(addr listenAddress) {
	switch {
	case addr.host.IsLoopback() || v.Admin.TLS:
	case v.Admin.Console:
		v.fail("admin.console", "passwords would go to %s in clear text, write tls = true in [admin], or address = "+
			"\"127.0.0.1:8587\" with a proxy before it", v.Admin.Address)
	default:
		v.warn("admin.address", "%s can be reached from other machines, without TLS and so without the console; write "+
			"tls = true, or 127.0.0.1:8587 unless a firewall or proxy stands before it", v.Admin.Address)
	}
}

func (v *validator) adminURL() {
	u, err := url.Parse(v.Admin.URL)
	switch {
	case !v.doc.has("admin.url"):
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path,
		"/") != "":
		v.fail("admin.url", "%q is not where a browser finds the console, write scheme, host and port such as "+
			"\"https://relay.example.com:8587\"", v.Admin.URL)
	case u.Scheme != "https" && !local.Host(u.Hostname()):
		v.fail("admin.url", "browsers would send passwords to %s in clear text, write https://", u.Host)
	}
}

func (v *validator) adminOIDC() {
	o := v.Admin.OIDC
	if o == nil {
		return
	}
	if !v.Admin.Console {
		v.fail("admin.oidc", "is for the console, which is off: write admin.console = true, or remove [admin.oidc]")
	}
	v.oidcClient("admin.oidc.", o.Issuer, o.RedirectURL, o.ClientID, o.ClientSecret)
	if len(o.Roles) == 0 {
		v.fail("admin.oidc.roles", `is empty, so that nobody could log in: write such as ["mail-admins = admin"]`)
	}
	seen := map[string]bool{}
	for i, text := range o.Roles {
		group, _, ok := groupRole(text)
		switch {
		case !ok:
			v.fail(element("admin.oidc.roles", i), "%q is not \"group = role\", write a group of the login provider "+
				"and "+
				"viewer, helpdesk, operator or admin", text)
		case seen[group]:
			v.fail(element("admin.oidc.roles", i), "group %q stands twice, remove one", group)
		}
		seen[group] = true
	}
}

// oidcClient checks what a login provider was told of us, at keys that begin with table.
func (v *validator) oidcClient(table, issuer, redirect, id string, secret Secret) {
	v.oidcURL(table+"issuer", issuer, "the issuer of the login provider such as \"https://login.example.com\"")
	if redirect != "" {
		v.oidcURL(table+"redirect_url", redirect, "the address that the login provider sends browsers back to")
	}
	if id == "" {
		v.fail(table+"client_id", "is missing, write the client ID that the login provider gave")
	}
	if !secret.IsSet() {
		v.fail(table+"client_secret", `is missing, write "env:NAME" or "file:PATH" of the secret that the login `+
			`provider gave`)
	}
	v.secret(table+"client_secret", secret, "client secret")
}

func (v *validator) oidcURL(key, text, what string) {
	u, err := url.Parse(text)
	switch {
	case text == "":
		v.fail(key, "is missing, write %s", what)
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		v.fail(key, "%q is no address, write %s", text, what)
	case u.Scheme != "https" && (u.Scheme != "http" || !local.Host(u.Hostname())):
		v.fail(key, "%q is not https, write https:// (http:// only on this machine)", text)
	}
}
