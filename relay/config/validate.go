package config

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/rights"
	"postern/internal/textfile"
	"postern/mail"
)

// Validate reads the secrets and checks every value and combination. The error is an *Error with all
// problems, those of reading included, in the order of the file. Load has called it already.
func (c *Config) Validate() error {
	v := &validator{Config: c}
	for _, p := range c.doc.problems {
		v.problems.add(p)
	}
	if c.doc.parsed {
		v.all()
	}
	c.warnings = v.warnings.sorted()
	return v.problems.err()
}

// Warnings returns what is allowed and yet deserves a word, in the order of the file.
func (c *Config) Warnings() []Problem { return slices.Clone(c.warnings) }

// validator checks one Config.
type validator struct {
	*Config
	problems, warnings list
}

func (v *validator) fail(key, format string, args ...any) {
	v.problems.add(v.Problem(key, format, args...))
}

func (v *validator) warn(key, format string, args ...any) {
	v.warnings.add(v.Problem(key, format, args...))
}

func (v *validator) all() {
	v.hostname()
	v.store()
	v.privacy()
	v.tls()
	v.listeners()
	v.auth()
	v.policies()
	v.dkim()
	v.upstreams()
	v.routes()
	v.delivery()
	v.admin()
	v.autoconfig()
	v.selfService()
	v.log()
	v.alerts()
	v.unwise()
	v.ownFile()
}

// unavailable refuses a key of the contract that this version does not have yet, so that nobody
// relies on it.
func (v *validator) unavailable(key, instead string) {
	v.fail(key, "not available in this version; %s", instead)
}

func (v *validator) tls() {
	t := v.TLS
	v.pair("", "tls.cert_file", t.CertFile, "tls.key_file", t.KeyFile)
	v.rsaPair()
	for i, name := range t.SelfSignedNames {
		key := element("tls.self_signed_names", i)
		if _, err := netip.ParseAddr(name); err == nil {
			continue
		}
		if _, err := mail.ParseDomain(name); err != nil || strings.HasPrefix(name, "[") || !isASCII(name) {
			v.fail(key, "%q is not a name or address for a certificate, write a host name or an IP address", name)
		}
	}
	if len(t.SelfSignedNames) > 0 && t.CertFile != "" {
		v.warn("tls.self_signed_names", "has no effect beside tls.cert_file, remove one of them")
	}
	if t.ACME != nil {
		acmeValidator{v, t.ACME}.all()
	}
}

func (v *validator) auth() {
	v.saslMechanisms("auth.mechanisms", v.Auth.Mechanisms)
	v.sources()
	v.nothingOffered()
	v.between("auth.lockout.failures", v.Auth.Lockout.Failures, 1, 1000)
	v.atLeast("auth.lockout.window", v.Auth.Lockout.Window, time.Second)
	v.atLeast("auth.lockout.duration", v.Auth.Lockout.Duration, time.Second)
	v.atMost("auth.lockout.window", v.Auth.Lockout.Window, 7*24*time.Hour,
		"a person who was locked out would wait too long")
	v.atMost("auth.lockout.duration", v.Auth.Lockout.Duration, 7*24*time.Hour,
		"a person who was locked out would wait too long")
}

func (v *validator) delivery() {
	d := v.Delivery
	if len(d.Retry) == 0 {
		v.fail("delivery.retry", `is empty, write at least one wait, such as ["5m", "1h"]`)
	}
	for i, wait := range d.Retry {
		key := element("delivery.retry", i)
		v.atLeast(key, wait, time.Second)
		if i > 0 && wait < d.Retry[i-1] {
			v.fail(key, "%s is shorter than %s before it, write the waits from short to long", wait, d.Retry[i-1])
		}
	}
	v.atLeast("delivery.expire", d.Expire, time.Minute)
	if d.WarnAfter > 0 && d.Expire <= d.WarnAfter {
		v.fail("delivery.expire", "%s is not longer than warn_after %s, so senders would be warned after the end, "+
			"write a longer one", d.Expire, d.WarnAfter)
	}
	if len(d.Retry) > 0 && d.Expire <= d.Retry[0] {
		v.fail("delivery.expire", "%s is not longer than the first retry %s, so nothing would be tried twice, write "+
			"a longer one", d.Expire, d.Retry[0])
	}
	if d.Expire.Std() > 30*24*time.Hour {
		v.warn("delivery.expire",
			"senders hear only after %s that a message failed, RFC 5321 §4.5.4.1 suggests 4 to 5 days", d.Expire)
	}
	if d.BounceFrom != "" {
		if _, err := mail.ParseAddress(d.BounceFrom); err != nil {
			v.fail("delivery.bounce_from", `%q is not an address, write one such as "bounces@example.com", or ""`,
				d.BounceFrom)
		}
	}
}

func (v *validator) log() {
	v.oneOf("log.format", v.Log.Format, "text", "json")
	v.oneOf("log.level", v.Log.Level, "debug", "info", "warn", "error")
}

// ownFile warns of passwords that everybody on the machine can read.
func (v *validator) ownFile() {
	r, err := rights.Of(v.doc.file)
	if err != nil || !r.AnyoneReads {
		return
	}
	tell := func(key, before, after string) {
		v.warn(key, "%s a file that every user of this machine can read (%s)%s run: %s, "+
			"or write env:NAME or file:PATH", before, r, after, r.Command("o-rwx", v.doc.file))
	}
	if v.Store.Password.literal() {
		tell("store.password", "stands in", ",")
	}
	if v.Store.SealKey.literal() {
		tell("store.seal_key", "stands in", ",")
	}
	for i, u := range v.Upstreams {
		key := element("upstream", i)
		if u.Password.literal() {
			tell(key+".password", "stands in", ",")
		}
		if p, err := u.Via(); err == nil && p != nil && p.HasLogin() && u.Proxy.literal() {
			tell(key+".proxy", "holds a password in", ",")
		}
		if o := u.OAuth; o != nil && (o.ClientSecret.literal() || o.RefreshToken.literal()) {
			tell(key+".oauth", "has a secret in", ",")
		}
	}
	for key, s := range v.TLS.ACME.secrets() {
		if s.literal() {
			tell(key, "stands in", ",")
		}
	}
	if o := v.Admin.OIDC; o != nil && o.ClientSecret.literal() {
		tell("admin.oidc.client_secret", "stands in", ",")
	}
	if o := v.SelfService.OIDC; o != nil && o.ClientSecret.literal() {
		tell("self_service.oidc.client_secret", "stands in", ",")
	}
	for i, s := range v.Auth.Sources {
		if s.BindPassword.literal() {
			tell(element("auth.source", i)+".bind_password", "stands in", ",")
		}
		if s.Token.literal() {
			tell(element("auth.source", i)+".token", "stands in", ",")
		}
	}
	for i, a := range v.Alerts {
		if a.URL.literal() {
			tell(element("alert", i)+".url", "stands in", ", and who knows it can post there;")
		}
	}
}

// oneOf refuses a value that is not among the choices.
func (v *validator) oneOf(key, value string, choices ...string) bool {
	if slices.Contains(choices, value) {
		return true
	}
	quoted := make([]string, len(choices))
	for i, c := range choices {
		quoted[i] = strconv.Quote(c)
	}
	last := len(quoted) - 1
	v.fail(key, "unknown value %q, write %s or %s", value, strings.Join(quoted[:last], ", "), quoted[last])
	return false
}

func (v *validator) between(key string, n, low, high int) {
	if n < low || n > high {
		v.fail(key, "%d is out of range, write a number from %d to %d", n, low, high)
	}
}

func (v *validator) atLeast(key string, d Duration, low time.Duration) {
	if d.Std() < low {
		v.fail(key, "%s is too short, write at least %s", d, Duration(low))
	}
}

func (v *validator) atMost(key string, d Duration, high time.Duration, why string) {
	if d.Std() > high {
		v.fail(key, "%s is too long (%s), write at most %s", d, why, Duration(high))
	}
}

// listenAddress is where a listener binds; the host is 0.0.0.0 or :: for one family's interfaces and
// the zero Addr for all.
type listenAddress struct {
	host netip.Addr
	port int
}

// parseListen reads "host:port" without asking DNS: the host is an IP address, "localhost" or empty.
func parseListen(s string) (listenAddress, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return listenAddress{}, fmt.Errorf(`%q is not an address to listen on, write host:port such as ":587" or `+
			`"127.0.0.1:587"`, s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return listenAddress{}, fmt.Errorf(`%q has no port from 0 to 65535, write one such as ":587"`, s)
	}
	a := listenAddress{port: int(n)}
	switch host {
	case "":
	case "localhost":
		a.host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	default:
		if a.host, err = netip.ParseAddr(host); err != nil {
			return listenAddress{}, fmt.Errorf("%q has a name where only an IP address is certain, write the "+
				"address of an interface, or none for all", s)
		}
	}
	return a, nil
}

// conflicts reports whether both cannot be bound at once.
func (a listenAddress) conflicts(b listenAddress) bool {
	return a.port == b.port && a.port != 0 && (a.host == b.host || a.covers(b) || b.covers(a))
}

// covers reports whether a listens on every interface of b's family. Go binds "::" for both families.
func (a listenAddress) covers(b listenAddress) bool {
	return !a.host.IsValid() || a.host == netip.IPv6Unspecified() || a.host == netip.IPv4Unspecified() && b.host.Is4()
}

// readCertificates reads a file of PEM certificates.
func readCertificates(path string) (*x509.CertPool, error) {
	data, err := textfile.Bounded(path, maxFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s has no certificate in PEM form, write the path of a file with -----BEGIN "+
			"CERTIFICATE-----", filepath.Clean(path))
	}
	return pool, nil
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > 0x7e })
}
