package config

import (
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"

	"postern/certs/acme"
	"postern/certs/dns01"
)

// ACME gets the listeners' certificates from a certificate authority (CA). Its terms of service are agreed to with it.
type ACME struct {
	Email        string   `toml:"email"` // for the CA's notices; "": none
	DirectoryURL string   `toml:"directory_url" default:"https://acme-v02.api.letsencrypt.org/directory"`
	Names        []string `toml:"names"` // one certificate for each. Default: Hostname
	// Challenges are ways to prove that a name is ours: the first that the CA offers is used.
	Challenges  []string `toml:"challenges" default:"http-01"`
	KeyTypes    []string `toml:"key_types" default:"ecdsa"`  // one certificate of each; see ACMEKeys
	Profile     string   `toml:"profile"`                    // of certificates, as the CA names it; "": its default
	CAFile      string   `toml:"ca_file"`                    // PEM trust anchors for the CA's server beside the system's
	HTTPAddress string   `toml:"http_address" default:":80"` // for http-01, bound while the CA looks
	TLSAddress  string   `toml:"tls_address" default:":443"` // for tls-alpn-01, likewise
	EABID       string   `toml:"eab_id"`                     // external account, which some CAs want
	EABKey      Secret   `toml:"eab_key"`                    // base64url
	Propagation Duration `toml:"propagation" default:"2m"`   // how long to look for dns-01's record at name servers
	RFC2136     *RFC2136 `toml:"rfc2136"`                    // for dns-01, one of these three
	AcmeDNS     *AcmeDNS `toml:"acmedns"`
	Exec        *Hook    `toml:"exec"`
}

// RFC2136 is a name server that takes updates.
type RFC2136 struct {
	Server    string `toml:"server"` // host or host:port of the zone's primary
	Zone      string `toml:"zone"`   // "": the server is asked
	Key       string `toml:"key"`    // name of the TSIG key; "": updates are not signed
	Secret    Secret `toml:"secret"` // base64
	Algorithm string `toml:"algorithm" default:"hmac-sha256"`
}

// AcmeDNS is a server of acme-dns. Without a username an account is registered there by itself.
type AcmeDNS struct {
	URL        string `toml:"url"`
	Username   string `toml:"username"`
	Password   Secret `toml:"password"`
	FullDomain string `toml:"full_domain"` // where the CNAME of _acme-challenge points
}

// Hook is a program that publishes records.
type Hook struct {
	Command []string `toml:"command"` // full path, first arguments
}

// maxACMENames bounds the certificates that one relay asks for: a public CA gives 50 a week for a domain.
const maxACMENames = 20

// secrets are those of the table, by key; none for nil.
func (a *ACME) secrets() map[string]Secret {
	all := map[string]Secret{}
	if a == nil {
		return all
	}
	all["tls.acme.eab_key"] = a.EABKey
	if a.RFC2136 != nil {
		all["tls.acme.rfc2136.secret"] = a.RFC2136.Secret
	}
	if a.AcmeDNS != nil {
		all["tls.acme.acmedns.password"] = a.AcmeDNS.Password
	}
	return all
}

// ACMEKeys are the kinds of keys of certificates by ACME, the most efficient first: those of key_types, and RSA where a
// listener is for old devices, which often know nothing else.
func (c *Config) ACMEKeys() []acme.Key {
	if c.TLS.ACME == nil {
		return nil
	}
	var keys []acme.Key
	old := slices.ContainsFunc(c.Listeners, func(l Listener) bool { return l.Profile == "appliance" })
	for _, key := range []acme.Key{acme.ECDSA, acme.RSA} {
		if slices.Contains(c.TLS.ACME.KeyTypes, string(key)) || key == acme.RSA && old {
			keys = append(keys, key)
		}
	}
	return keys
}

// ACMENames are the names that certificates by ACME are for.
func (c *Config) ACMENames() (names []string) {
	if c.TLS.ACME == nil {
		return nil
	}
	for _, name := range c.TLS.ACME.Names {
		names = append(names, strings.ToLower(name))
	}
	return names
}

// ACMEOptions are what package acme needs; nil without [tls.acme]. Secrets are those that Validate has read.
func (c *Config) ACMEOptions(s acme.Storage, log *slog.Logger) (*acme.Options, error) {
	a := c.TLS.ACME
	if a == nil {
		return nil, nil
	}
	o := &acme.Options{
		Storage: s, Directory: a.DirectoryURL, Email: a.Email, Profile: a.Profile, Keys: c.ACMEKeys(),
		Names: c.ACMENames(),
		Order: a.Challenges, HTTP: a.HTTPAddress, ALPN: a.TLSAddress, ALPNShared: sharesALPN(c),
		Logger: log, TXT: net.DefaultResolver.LookupTXT, DNS: a.dns(s, log),
	}
	if a.EABID != "" {
		o.EAB = acme.EAB{ID: a.EABID, MAC: strings.TrimRight(a.EABKey.Value(), "=")}
	}
	if a.CAFile == "" {
		return o, nil
	}
	data, err := os.ReadFile(a.CAFile)
	if err != nil {
		return nil, err
	}
	if o.Roots, err = x509.SystemCertPool(); err != nil {
		o.Roots = x509.NewCertPool()
	}
	o.Roots.AppendCertsFromPEM(data)
	return o, nil
}

// sharesALPN reports whether the admin listener is where the CA looks for tls-alpn-01: it can answer that beside
// its own TLS. In clear text, and on loopback, it cannot.
func sharesALPN(c *Config) bool {
	a, err := parseListen(c.TLS.ACME.TLSAddress)
	admin, adminErr := parseListen(c.Admin.Address)
	return err == nil && adminErr == nil && a.conflicts(admin) && c.Admin.TLS &&
		(!admin.host.IsLoopback() || a == admin)
}

// dns is the way to publish records; nil: there is none.
func (a *ACME) dns(keep dns01.Keep, log *slog.Logger) acme.DNS {
	watch := &dns01.Watch{Limit: a.Propagation.Std(), Logger: log}
	if a.Propagation == 0 {
		watch = nil
	}
	switch {
	case a.RFC2136 != nil:
		r := a.RFC2136
		return &dns01.RFC2136{Server: r.Server, Zone: r.Zone, Key: r.Key, Secret: r.Secret.Value(),
			Algorithm: r.Algorithm, Watch: watch}
	case a.AcmeDNS != nil:
		return a.AcmeDNS.Client(keep, watch)
	case a.Exec != nil:
		return &dns01.Exec{Command: a.Exec.Command, Watch: watch}
	}
	return nil
}

// Client is a client of the server of acme-dns.
func (d *AcmeDNS) Client(keep dns01.Keep, watch *dns01.Watch) *dns01.AcmeDNS {
	return &dns01.AcmeDNS{URL: d.URL, Keep: keep, Watch: watch,
		Account: dns01.AcmeDNSAccount{Username: d.Username, Password: d.Password.Value(), FullDomain: d.FullDomain}}
}
