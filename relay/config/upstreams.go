package config

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"postern/certs"
	"postern/internal/local"
	"postern/internal/suggest"
	"postern/mail"
	"postern/policy"
	"postern/relay/upstream/via"
)

func (v *validator) upstreams() {
	if len(v.Upstreams) == 0 {
		v.fail("upstream", "there is none, write [[upstream]] with name and host of the provider that takes your mail")
	}
	v.names("upstream", v.upstreamNames())
	for i := range v.Upstreams {
		key, u := element("upstream", i), &v.Upstreams[i]
		if u.DANE {
			v.unavailable(key+".dane", "remove it; the certificate is verified against the system's authorities")
		}
		v.upstreamHost(key, u)
		v.upstreamTLS(key, u)
		v.upstreamProxy(key+".proxy", u)
		v.provider(key, u)
		v.credentials(key, u)
		v.oauth(key, u)
		v.between(key+".port", u.Port, 1, 65535)
		v.between(key+".max_connections", u.MaxConnections, 1, 1000)
		v.between(key+".messages_per_connection", u.MessagesPerConnection, 1, 1_000_000)
		v.between(key+".max_recipients", u.MaxRecipients, 1, 10_000)
		v.oneOf(key+".dkim", u.DKIM, DKIMSign, DKIMSkip, DKIMStrip)
		v.entries(key+".rate", u.Rate, checkRate)
	}
}

func (v *validator) upstreamHost(key string, u *Upstream) {
	if u.Host == "" { // checked with the provider
		return
	}
	if _, err := netip.ParseAddr(u.Host); err == nil {
		return
	}
	domain, err := mail.ParseDomain(u.Host)
	if err != nil || strings.HasPrefix(domain, "[") || !isASCII(domain) {
		v.fail(key+".host", "%q is not a host name or IP address, write it without scheme and port", u.Host)
	}
}

func (v *validator) upstreamTLS(key string, u *Upstream) {
	if !v.oneOf(key+".tls", u.TLS, StartTLS, Implicit, NoTLS) {
		return
	}
	if u.TLS == NoTLS {
		v.upstreamPlain(key, u)
	}
	if u.TLS != NoTLS && len(u.Networks) > 0 {
		v.fail(key+".networks", `has no effect unless tls = "none", remove it`)
	}
	if u.InsecureSkipVerify && u.TLS != NoTLS {
		v.warn(key+".insecure_skip_verify", "anybody on the way can read and change mail and password, remove it "+
			"and write ca_file with the server's authority")
	}
	if u.CAFile != "" {
		if _, err := readCertificates(u.CAFile); err != nil {
			v.fail(key+".ca_file", "%s", err)
		}
	}
	v.upstreamCertificate(key, u)
}

// upstreamCertificate checks the files that we show to an upstream: a pair, which nobody else can read.
func (v *validator) upstreamCertificate(key string, u *Upstream) {
	if !v.pair(key, "cert_file", u.CertFile, "key_file", u.KeyFile) {
		return
	}
	if u.TLS == NoTLS || u.ByGraph() {
		v.fail(key+".cert_file", "has no effect on this upstream, which is reached without SMTP over TLS, remove it")
		return
	}
	if err := readable(u.KeyFile); err != nil {
		v.fail(key+".key_file", "%s", err)
		return
	}
	err := certs.CheckPair(u.CertFile, u.KeyFile)
	faults, _ := errors.AsType[certs.Faults](err)
	for _, f := range faults {
		if f.InKey {
			v.fail(key+".key_file", "%s", f.Text)
		} else {
			v.fail(key+".cert_file", "%s", f.Text)
		}
	}
}

// upstreamProxy checks the way out. No message repeats what was written: it may hold a password.
func (v *validator) upstreamProxy(key string, u *Upstream) {
	if !u.Proxy.IsSet() {
		return
	}
	if err := u.Proxy.resolve(v.dir(), "password"); err != nil {
		v.fail(key, "%s", err)
		return
	}
	p, err := via.Parse(u.Proxy.Value())
	if err != nil {
		v.fail(key, "%s", err)
		return
	}
	if u.TLS == NoTLS && !u.plainTo(p.Host()) {
		v.fail(key, `mail would go to the proxy %s in clear, write tls = "starttls", or add its address to networks`, p)
	}
}

// plainTo reports whether mail may go to a host in clear.
func (u *Upstream) plainTo(host string) bool {
	addr, err := netip.ParseAddr(host)
	return local.Host(host) || err == nil && u.MayDialPlain(addr)
}

// Via is the proxy that the upstream and its token endpoint are reached through, nil where there is none. It was
// checked when the configuration was validated.
func (u *Upstream) Via() (*via.Proxy, error) {
	if u.Proxy.Value() == "" {
		return nil, nil
	}
	return via.Parse(u.Proxy.Value())
}

// upstreamPlain lets mail go out in clear only where the path is the operator's own.
func (v *validator) upstreamPlain(key string, u *Upstream) {
	v.narrow(key+".networks", u.Networks, "mail would cross them in clear")
	if local.Host(u.Host) {
		return
	}
	if len(u.Networks) == 0 {
		v.fail(key+".tls", `"none" sends mail in clear to %s, which is not this machine, write "starttls", or `+
			`networks = with the ranges where that is allowed`, u.Host)
		return
	}
	if addr, err := netip.ParseAddr(u.Host); err == nil && !u.MayDialPlain(addr) {
		v.fail(key+".host", `%s is outside networks, where tls = "none" is allowed, write "starttls" or add it`, u.Host)
	}
	v.warn(key+".tls", "mail and password go to %s in clear", u.Host)
}

// credentials reads the password, which stands with a username or not at all.
func (v *validator) credentials(key string, u *Upstream) {
	hasPassword := v.doc.has(key + ".password")
	switch {
	case u.OAuth != nil:
		return
	case hasPassword && u.Username == "":
		v.fail(key+".username", "is missing beside password, write the account at the provider")
	case !hasPassword && u.Username != "":
		v.fail(key+".password", `is missing beside username, write "env:NAME" or "file:PATH"`)
	}
	if strings.ContainsAny(u.Username, "\x00\r\n") {
		v.fail(key+".username", "has a line end or NUL inside, write the account alone")
	}
	v.secret(key+".password", u.Password, "password")
	if u.Password.literal() && strings.HasPrefix(u.Password.ref(), "$") {
		v.warn(key+".password", "is taken as it stands; for an environment variable write env:NAME")
	}
}

func (v *validator) routes() {
	catchAll := -1
	for i := range v.Routes {
		key, r := element("route", i), &v.Routes[i]
		if catchAll >= 0 {
			v.fail(key, "is never reached, since route[%d] before it matches every message, move that one to the end",
				catchAll+1)
		}
		if r.matchesAll() {
			catchAll = i
		}
		if len(r.Upstreams) == 0 {
			v.fail(key+".upstreams", "is empty, write the names of the upstreams to use, in order")
		}
		v.knownUpstreams(key+".upstreams", r.Upstreams)
		v.matchers(key, r.Logins, r.Groups, r.Listeners)
		v.entries(key+".senders", r.Senders, policy.CheckRouteSender)
		v.entries(key+".recipients", r.Recipients, policy.CheckRecipientPattern)
		_, err := policy.NewMatcher(r.Match())
		v.compiled(key, err)
	}
}

func (r *Route) matchesAll() bool {
	return len(r.Logins)+len(r.Groups)+len(r.Listeners)+len(r.Senders)+len(r.Recipients) == 0
}

func (v *validator) knownUpstreams(key string, names []string) {
	for i, name := range names {
		known := slices.ContainsFunc(v.Upstreams, func(u Upstream) bool { return u.Name == name })
		switch {
		case !known:
			v.fail(element(key, i), "there is no [[upstream]] named %q, write one of %s%s", name,
				quoteNames(v.upstreamNames()),
				suggest.Question(name, v.upstreamNames()))
		case slices.Index(names, name) < i:
			v.fail(element(key, i), "%q stands twice, remove one", name)
		}
	}
}

func (v *validator) upstreamNames() []string {
	names := make([]string, len(v.Upstreams))
	for i, u := range v.Upstreams {
		names[i] = u.Name
	}
	return names
}
