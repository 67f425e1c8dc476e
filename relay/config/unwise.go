package config

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"postern/mail"
	"postern/relay/upstream/profile"
)

// unwise warns of what is allowed, and is not what its writer meant.
func (v *validator) unwise() {
	for i := range v.Upstreams {
		key, u := element("upstream", i), &v.Upstreams[i]
		v.knownHost(key, u)
		v.endingPassword(key, u)
		v.usualPort(key, u.Port, u.TLS, "")
	}
	v.onmicrosoft()
	for i := range v.Listeners {
		l := &v.Listeners[i]
		if addr, err := parseListen(l.Address); err == nil {
			v.usualPort(element("listener", i), addr.port, l.TLS, "clients ")
		}
	}
	for i := range v.Policies {
		v.hiddenPolicy(i)
	}
	v.unusedKeys()
}

// knownHost names the provider of a host that stands without one.
func (v *validator) knownHost(key string, u *Upstream) {
	if v.doc.has(key+".provider") || u.Provider != profile.Generic {
		return
	}
	if name := profile.ForHost(u.Host); name != "" {
		v.warn(key+".host", "%s is a server of %s: write provider = %q, which brings its limits and the meaning of "+
			"its replies", u.Host, name, name)
	}
}

// endingPassword tells of providers that do not take passwords, or soon will not.
func (v *validator) endingPassword(key string, u *Upstream) {
	if u.OAuth != nil || !v.doc.has(key+".password") {
		return
	}
	name := u.Provider
	if name == profile.Generic {
		name = profile.ForHost(u.Host)
	}
	if p, ok := profile.Get(name); ok && p.PasswordWarning != "" {
		v.warn(key+".username", "%s", p.PasswordWarning)
	}
}

// toTheWorld are the providers through which Exchange Online sends to others than its tenant.
var toTheWorld = []string{"microsoft365", "microsoft365-connector", MicrosoftGraph}

// onmicrosoft warns of senders whose domain came with the tenant: Exchange Online refuses them (5.7.236) to more than
// 100 external recipients in 24 hours, all of the tenant together.
func (v *validator) onmicrosoft() {
	i := slices.IndexFunc(v.Upstreams, func(u Upstream) bool {
		return slices.Contains(toTheWorld, u.Provider) || slices.Contains(toTheWorld, profile.ForHost(u.Host))
	})
	if i < 0 {
		return
	}
	warn := func(key, sender string) bool {
		if !strings.HasSuffix(strings.ToLower(strings.TrimSuffix(sender, ".")), ".onmicrosoft.com") {
			return false
		}
		v.warn(key, "%s: Exchange Online (upstream %s) lets a tenant send to 100 external recipients in 24 hours "+
			"from its onmicrosoft.com domain, "+
			"and refuses more with 5.7.236: send from a domain of your own", sender, v.Upstreams[i].Name)
		return true
	}
	for j := range v.Policies {
		for n, sender := range v.Policies[j].Senders {
			if warn(element(element("policy", j)+".senders", n), sender) {
				return
			}
		}
	}
	u := &v.Upstreams[i]
	if !u.SendsAsSender() && warn(element("upstream", i)+".provider", u.Username) { // username has other warnings
		return
	}
	warn("delivery.bounce_from", v.Delivery.BounceFrom)
}

// usualPort doubts a port that everybody else uses in another way.
func (v *validator) usualPort(key string, port int, use, who string) {
	at := key + ".tls"
	if !v.doc.has(at) {
		at = key + ".port"
	}
	if !v.doc.has(at) {
		at = key + ".address"
	}
	switch {
	case port == 465 && use == StartTLS:
		v.warn(at, `%sexpect TLS from the first byte on port 465: write tls = "implicit", or port 587`,
			cmp.Or(who, "servers "))
	case (port == 587 || port == 25 || port == 2525) && use == Implicit:
		v.warn(at, `%sbegin in clear text on port %d and use STARTTLS: write tls = "starttls", or port 465`,
			cmp.Or(who, "servers "), port)
	}
}

// matchesEverybody reports a block without conditions, or with none that leaves anybody out.
func (p *Policy) matchesEverybody() bool {
	every := func(list []string) bool { return len(list) == 0 || slices.Contains(list, "*") }
	return every(p.Logins) && len(p.Groups) == 0 && len(p.Listeners) == 0 && len(p.Networks) == 0
}

// hiddenPolicy names settings of a block that an earlier one for everybody has made already: the first that sets it
// wins.
func (v *validator) hiddenPolicy(i int) {
	set := func(j int, name string) bool { return v.doc.has(element("policy", j) + "." + name) }
	for j := range i {
		if !v.Policies[j].matchesEverybody() {
			continue
		}
		for _, name := range []string{"senders", "unlisted_sender", "recipients", "limits", "over_limit", "max_held"} {
			if set(i, name) && set(j, name) {
				v.warn(element("policy", i)+"."+name, "has no effect: policy[%d] before it holds for everybody and "+
					"sets %s too; move this block before that one", j+1, name)
			}
		}
	}
}

// unusedKeys tells of DKIM keys that sign nothing.
func (v *validator) unusedKeys() {
	if len(v.DKIM) > 0 && len(v.Upstreams) > 0 && !v.Signs() {
		v.warn("dkim[1]", `signs nothing: dkim is not "sign" at any upstream, because the provider signs itself or `+
			`changes messages; `+
			"publish the provider's DKIM records instead")
	}
}

// Signs reports whether any upstream gets our DKIM signature.
func (c *Config) Signs() bool {
	return slices.ContainsFunc(c.Upstreams, func(u Upstream) bool { return u.DKIM == DKIMSign })
}

// KeyDomains are the domains that keys of [[dkim]] sign for, in lower case.
func (c *Config) KeyDomains() (domains []string) {
	for _, d := range c.DKIM {
		domains = append(domains, strings.ToLower(d.Domain))
	}
	return domains
}

// HasKey reports that a [[dkim]] block has a key of a domain under a selector.
func (c *Config) HasKey(domain, selector string) bool {
	return slices.ContainsFunc(c.DKIM, func(d DKIM) bool {
		return strings.EqualFold(d.Domain, domain) && d.Selector == selector
	})
}

// localEndings are of names that the Internet does not know.
var localEndings = []string{".local", ".lan", ".home", ".internal", ".intern", ".home.arpa", ".invalid", ".test"}

// unusualHostname says why servers may refuse a name in EHLO, "" for one that they take.
func unusualHostname(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	switch {
	case strings.Contains(name, "_"):
		return `has "_" in it, which no host name has`
	case !strings.Contains(name, "."):
		return "has no domain"
	case name == "localhost.localdomain" || strings.HasSuffix(name, ".localhost") ||
		strings.HasSuffix(name, ".localdomain"):
		return "is the name of every machine"
	case slices.ContainsFunc(localEndings, func(s string) bool { return strings.HasSuffix(name, s) }):
		return "is known in your own network only"
	}
	return ""
}

// isAddress reports a name that is an IP address, with or without brackets.
func isAddress(name string) bool {
	_, err := netip.ParseAddr(strings.TrimPrefix(strings.Trim(name, "[]"), "IPv6:"))
	return err == nil
}

// hostname checks the name that stands in EHLO, Received and Message-ID.
func (v *validator) hostname() {
	name := v.Hostname
	_, err := mail.ParseDomain(name)
	whose := ""
	if !v.doc.has("hostname") {
		whose = "this machine's name "
	}
	switch why := unusualHostname(name); {
	case name == "" && !v.doc.has("hostname"):
		v.fail("hostname", "this machine has no name, write the name that clients connect to")
	case isAddress(name):
		v.fail("hostname", "%q is an address, which providers refuse in EHLO; write the name that clients connect "+
			"to, such as relay.example.com", name)
	case (err != nil && !strings.Contains(name, "_")) || strings.HasPrefix(name, "[") || !isASCII(name):
		v.fail("hostname", "%q is not a host name, write the name that clients connect to, such as relay.example.com",
			name)
	case why != "":
		v.warn("hostname", "%s%q %s; it stands in EHLO, Received and Message-ID, and some providers refuse it: "+
			"write the full public name, such as relay.example.com",
			whose, name, why)
	}
}
