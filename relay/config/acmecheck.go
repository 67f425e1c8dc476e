package config

import (
	"encoding/base64"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"postern/certs/acme"
	"postern/certs/dns01"
	"postern/internal/rights"
	"postern/mail"
)

// acmeValidator checks [tls.acme].
type acmeValidator struct {
	*validator
	a *ACME
}

func (v acmeValidator) all() {
	if v.TLS.CertFile != "" || v.TLS.KeyFile != "" {
		v.fail("tls.acme", "stands beside tls.cert_file; a certificate comes from files or from a CA, remove one")
	}
	v.names()
	v.oidcURL("tls.acme.directory_url", v.a.DirectoryURL, "the address of the CA's directory such as "+
		"\"https://acme-v02.api.letsencrypt.org/directory\"")
	if v.a.Email != "" {
		if _, err := mail.ParseAddress(v.a.Email); err != nil {
			v.fail("tls.acme.email", "%q is not an address, write one such as \"postmaster@example.com\"", v.a.Email)
		}
	}
	v.choices("tls.acme.challenges", v.a.Challenges, acme.Challenges)
	v.choices("tls.acme.key_types", v.a.KeyTypes, []string{string(acme.ECDSA), string(acme.RSA)})
	if v.a.CAFile != "" {
		if _, err := readCertificates(v.a.CAFile); err != nil {
			v.fail("tls.acme.ca_file", "%s", err)
		}
	}
	v.address("http_address", v.a.HTTPAddress, acme.HTTP01)
	v.address("tls_address", v.a.TLSAddress, acme.TLSALPN01)
	v.atMost("tls.acme.propagation", v.a.Propagation, 10*time.Minute, "the CA does not keep an order open for ever")
	v.eab()
	v.providers()
}

func (v acmeValidator) names() {
	if len(v.a.Names) == 0 || len(v.a.Names) > maxACMENames {
		v.fail("tls.acme.names", "has %d names, write 1 to %d, or remove it for hostname", len(v.a.Names), maxACMENames)
	}
	for i, name := range v.a.Names {
		key, what := element("tls.acme.names", i), "write one such as \"relay.example.com\""
		if !v.doc.has("tls.acme.names") {
			key, what = "tls.acme", "write hostname, or names in [tls.acme], such as \"relay.example.com\""
		}
		_, err := mail.ParseDomain(name)
		switch {
		case err != nil || strings.HasPrefix(name, "[") || !isASCII(name) || !strings.Contains(name, ".") ||
			strings.ContainsAny(name, "*_"):
			v.fail(key, "%q is no name that a CA gives certificates for, %s", name, what)
		case slices.IndexFunc(v.a.Names, func(n string) bool { return strings.EqualFold(n, name) }) < i:
			v.fail(key, "%s stands twice, remove one", name)
		}
	}
	if !slices.ContainsFunc(v.a.Names, func(n string) bool {
		return strings.EqualFold(n, strings.TrimSuffix(v.Hostname, "."))
	}) && len(v.a.Names) > 0 {
		v.warn("tls.acme.names", "lacks hostname %s: clients that connect by that name will refuse the certificate",
			v.Hostname)
	}
}

// choices checks a list of words.
func (v acmeValidator) choices(key string, written, known []string) {
	if len(written) == 0 {
		v.fail(key, "is empty, write one or more of %s", strings.Join(known, ", "))
	}
	for i, w := range written {
		if v.oneOf(element(key, i), w, known...) && slices.Index(written, w) < i {
			v.fail(element(key, i), "%s stands twice, remove one", w)
		}
	}
}

// address checks where a challenge is answered: nothing else of ours may be there.
func (v acmeValidator) address(name, address, challenge string) {
	key := "tls.acme." + name
	a, err := parseListen(address)
	if err != nil {
		v.fail(key, "%s", err)
		return
	}
	if !slices.Contains(v.a.Challenges, challenge) {
		if v.doc.has(key) {
			v.warn(key, "has no effect without %s in challenges", challenge)
		}
		return
	}
	const instead = "%s is the address of %s too, and the CA must find nothing else there: write another address " +
		"there, or another challenge"
	for i, l := range v.Listeners {
		if other, err := parseListen(l.Address); err == nil && a.conflicts(other) {
			v.fail(key, instead, address, element("listener", i))
		}
	}
	if other, err := parseListen(v.Admin.Address); err == nil && a.conflicts(other) &&
		(challenge != acme.TLSALPN01 || !sharesALPN(v.Config)) {
		v.fail(key, instead, address, "[admin]")
	}
}

func (v acmeValidator) eab() {
	if v.pairOf("tls.acme.eab_id", v.a.EABID != "", "tls.acme.eab_key", v.a.EABKey) {
		key := strings.TrimRight(v.a.EABKey.Value(), "=")
		if _, err := base64.RawURLEncoding.DecodeString(key); key != "" && err != nil {
			v.fail("tls.acme.eab_key", "is not base64url, write it as the CA shows it")
		}
	}
}

// pairOf checks a name and the secret that belongs to it, and reports whether both were written.
func (v acmeValidator) pairOf(nameKey string, named bool, secretKey string, s Secret) bool {
	switch {
	case named && !s.IsSet():
		v.fail(nameKey, "has no %s beside it, write both or neither", secretKey)
	case !named && s.IsSet():
		v.fail(secretKey, "has no %s beside it, write both or neither", nameKey)
	}
	v.secret(secretKey, s, "secret")
	return named && s.IsSet()
}

// providers checks the ways to publish records for dns-01.
func (v acmeValidator) providers() {
	var written []string
	if v.a.RFC2136 != nil {
		written = append(written, "tls.acme.rfc2136")
		v.rfc2136(v.a.RFC2136)
	}
	if v.a.AcmeDNS != nil {
		written = append(written, "tls.acme.acmedns")
		v.acmedns(v.a.AcmeDNS)
	}
	if v.a.Exec != nil {
		written = append(written, "tls.acme.exec")
		v.hook(v.a.Exec)
	}
	wanted := slices.Contains(v.a.Challenges, acme.DNS01)
	switch {
	case wanted && len(written) == 0:
		v.fail("tls.acme.challenges", "dns-01 needs a way to publish records, write [tls.acme.rfc2136], "+
			"[tls.acme.acmedns] or [tls.acme.exec]; or dns-persist-01, whose record a person publishes once")
	case len(written) > 1:
		v.fail(written[1], "stands beside [%s], remove one", written[0])
	case !wanted && len(written) == 1:
		v.warn(written[0], "has no effect without dns-01 in challenges")
	}
}

func (v acmeValidator) rfc2136(r *RFC2136) {
	const key = "tls.acme.rfc2136"
	host := r.Server
	if h, port, err := net.SplitHostPort(host); err == nil && port != "" {
		host = h
	}
	_, notAddress := netip.ParseAddr(strings.Trim(host, "[]"))
	if _, err := mail.ParseDomain(host); err != nil && notAddress != nil {
		v.fail(key+".server", "%q is no name server, write host or host:port such as \"ns1.example.com\"", r.Server)
	}
	if r.Zone != "" {
		if _, err := mail.ParseDomain(r.Zone); err != nil {
			v.fail(key+".zone", "%q is no zone, write one such as \"example.com\", or remove it", r.Zone)
		}
	}
	v.oneOf(key+".algorithm", r.Algorithm, dns01.Algorithms...)
	if v.pairOf(key+".key", r.Key != "", key+".secret", r.Secret) {
		if _, err := base64.StdEncoding.DecodeString(r.Secret.Value()); err != nil {
			v.fail(key+".secret", "is not base64, write it as tsig-keygen shows it")
		}
	} else if r.Key == "" && !r.Secret.IsSet() {
		v.warn(key, "updates are not signed: whoever can send from this address can change the zone; write key and "+
			"secret")
	}
}

func (v acmeValidator) acmedns(d *AcmeDNS) {
	const key = "tls.acme.acmedns"
	v.oidcURL(key+".url", d.URL, "the address of the server's API such as \"https://auth.example.com\"")
	v.pairOf(key+".username", d.Username != "", key+".password", d.Password)
	if (d.Username != "") != (d.FullDomain != "") {
		v.fail(key+".full_domain", "and username belong together, write both, or neither to register an account")
	}
	if _, err := mail.ParseDomain(d.FullDomain); d.FullDomain != "" && err != nil {
		v.fail(key+".full_domain", "%q is no domain, write that of the account, such as \"d420….auth.example.com\"",
			d.FullDomain)
	}
}

// hook checks a program that is run with our rights.
func (v acmeValidator) hook(h *Hook) {
	const key = "tls.acme.exec.command"
	if len(h.Command) == 0 || !filepath.IsAbs(h.Command[0]) {
		v.fail(key, "names no program, write its full path first, such as [\"/usr/local/bin/publish\"]")
		return
	}
	info, err := os.Stat(h.Command[0])
	switch {
	case err != nil:
		v.fail(key, "%s cannot be run: %s", h.Command[0], err)
	case !isProgram(info):
		v.fail(key, "%s is no program, %s", h.Command[0], howToMakeProgram(h.Command[0]))
	default:
		r, err := rights.OfInfo(h.Command[0], info)
		if err == nil && r.AnyoneWrites {
			v.fail(key, "%s can be changed by every user of this machine (%s), run: %s", h.Command[0], r,
				r.Command("o-w", h.Command[0]))
		}
	}
}
