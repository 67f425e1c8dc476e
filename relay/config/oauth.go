package config

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"postern/internal/textfile"
)

// The ways to an access token.
const (
	ClientCredentials = "client-credentials"
	DeviceCode        = "device-code"
	AuthorizationCode = "authorization-code"
	RefreshToken      = "refresh-token"
	ServiceAccount    = "service-account"
)

// Who an upstream with OAuth is told we are.
const (
	IdentityUsername = "username"
	IdentitySender   = "sender" // each message's own sender, with Username for addresses without mailbox
)

// OAuth logs in with an access token instead of a password. Package oauth judges what belongs together.
type OAuth struct {
	// Provider names the login service: microsoft or google. Default: by Host, or microsoft where Tenant is set.
	Provider string `toml:"provider"`
	Flow     string `toml:"flow"` // ClientCredentials, DeviceCode, AuthorizationCode, RefreshToken or ServiceAccount
	// Tenant and Cloud (us-gov, us-gov-dod, china) are Microsoft's.
	Tenant       string `toml:"tenant"`
	Cloud        string `toml:"cloud"`
	ClientID     string `toml:"client_id"`
	ClientSecret Secret `toml:"client_secret"`
	// Expires is the day on which ClientSecret ends; no server tells. Warned of 30 days ahead.
	Expires Date `toml:"expires"`
	// CertificateFile and KeyFile stand instead of ClientSecret: PEM, RSA.
	CertificateFile string `toml:"certificate_file"`
	KeyFile         string `toml:"key_file"`
	// ServiceAccountFile is the JSON key that Google gives out.
	ServiceAccountFile string   `toml:"service_account_file"`
	RefreshToken       Secret   `toml:"refresh_token"` // for the flow of that name
	Scopes             []string `toml:"scopes"`        // default: what the provider is known to need
	TokenURL           string   `toml:"token_url"`     // endpoints that are not built in
	AuthURL            string   `toml:"auth_url"`
	DeviceURL          string   `toml:"device_url"`
	Identity           string   `toml:"identity" default:"username"` // IdentityUsername or IdentitySender
}

// SendsAsSender reports whether the upstream is told each message's own sender.
func (u *Upstream) SendsAsSender() bool { return u.OAuth != nil && u.OAuth.Identity == IdentitySender }

// NamesFiles reports whether the block stands for more than its text: what the files hold may have changed.
func (u *Upstream) NamesFiles() bool {
	return u.CAFile != "" || u.CertFile != "" || u.OAuth != nil && (u.OAuth.CertificateFile != "" || u.OAuth.ServiceAccountFile != "")
}

// paths are the files that the block names.
func (o *OAuth) paths() []*string {
	return []*string{&o.CertificateFile, &o.KeyFile, &o.ServiceAccountFile}
}

// Date is a day such as "2027-03-31", in UTC; the zero Date was not written.
type Date struct{ time.Time }

// UnmarshalText reads a Date.
func (d *Date) UnmarshalText(text []byte) (err error) {
	if d.Time, err = time.Parse(time.DateOnly, string(text)); err != nil {
		return fmt.Errorf(`%q is not a day, write one such as "2027-03-31"`, text)
	}
	return nil
}

func (v *validator) oauth(key string, u *Upstream) {
	o := u.OAuth
	if o == nil {
		return
	}
	key += ".oauth"
	v.oauthUpstream(strings.TrimSuffix(key, ".oauth"), u)
	known := v.oneOf(key+".flow", o.Flow, ClientCredentials, DeviceCode, AuthorizationCode, RefreshToken, ServiceAccount)
	if o.Provider != "" {
		v.oneOf(key+".provider", o.Provider, "microsoft", "google")
	}
	v.oauthServer(key, o)
	v.oauthSecret(key+".client_secret", o.ClientSecret)
	v.oauthSecret(key+".refresh_token", o.RefreshToken)
	if o.byMicrosoft(u) {
		v.oauthEntra(key, u)
	}
	if !o.Expires.IsZero() && !o.ClientSecret.IsSet() {
		v.fail(key+".expires", "is the end of client_secret, which is not set; a certificate tells its own, remove it")
	}
	if known {
		v.oauthFlow(key, o)
	}
	v.oauthFiles(key, o)
	if v.oneOf(key+".identity", o.Identity, IdentityUsername, IdentitySender) && o.Identity == IdentitySender {
		v.oauthSender(key, o)
	}
}

// byMicrosoft reports whether tokens come from Microsoft, as far as the file says so.
func (o *OAuth) byMicrosoft(u *Upstream) bool {
	return o.TokenURL == "" && (o.Provider == "microsoft" || o.Provider == "" && (o.Tenant != "" || u.ByGraph()))
}

// An id of Entra's: of a tenant, an application, or a secret.
var entraID = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)

// oauthEntra warns of what is often copied from the wrong line of Entra's pages. What was written is not repeated: it may be the
// secret.
func (v *validator) oauthEntra(key string, u *Upstream) {
	o := u.OAuth
	if u.Username != "" && !strings.Contains(u.Username, "@") && !entraID.MatchString(u.Username) {
		v.warn(strings.TrimSuffix(key, ".oauth")+".username", "%q is no address, write that of the mailbox to send as", u.Username)
	}
	if o.ClientID != "" && !entraID.MatchString(o.ClientID) {
		v.warn(key+".client_id", `is not like an id of Microsoft's, such as 00000000-0000-0000-0000-000000000000; copy "Application (client) ID" from the application's overview`)
	}
	if entraID.MatchString(o.ClientSecret.Value()) {
		v.warn(key+".client_secret", `is like the secret's id ("Secret ID"); copy the other column, "Value", which is shown only when the secret is made`)
	}
}

// oauthUpstream judges the block around: only a server that is proven may see a token.
func (v *validator) oauthUpstream(key string, u *Upstream) {
	if u.Password.IsSet() {
		v.fail(key+".password", "stands beside oauth, remove one of them")
	}
	if u.Username == "" {
		v.fail(key+".username", `is missing, write the mailbox to log in as; with identity = "sender" it serves addresses without a mailbox`)
	}
	if u.TLS == NoTLS {
		v.fail(key+".tls", `a token must not be sent in clear, write "starttls" or "implicit"`)
	}
	if u.InsecureSkipVerify {
		v.fail(key+".insecure_skip_verify", "a token must not be sent to a server that is not proven, remove it and write ca_file")
	}
}

// oauthServer judges what says where tokens come from.
func (v *validator) oauthServer(key string, o *OAuth) {
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-'
	}
	if strings.ContainsFunc(o.Tenant, odd) {
		v.fail(key+".tenant", "%q is not a tenant, write its domain or id, such as contoso.onmicrosoft.com", o.Tenant)
	}
	if o.Cloud != "" {
		v.oneOf(key+".cloud", o.Cloud, "us-gov", "us-gov-dod", "china")
	}
	for i, s := range o.Scopes {
		if s == "" || strings.ContainsAny(s, " \t\r\n\"\\") { // RFC 6749 §3.3
			v.fail(element(key+".scopes", i), "%q is not a scope, write each in quotes of its own", s)
		}
	}
	v.oauthURL(key+".token_url", o.TokenURL)
	v.oauthURL(key+".auth_url", o.AuthURL)
	v.oauthURL(key+".device_url", o.DeviceURL)
}

// oauthURL wants TLS, except on loopback: secrets go there.
func (v *validator) oauthURL(key, text string) {
	if text == "" {
		return
	}
	u, err := url.Parse(text)
	if err == nil && u.Host != "" && u.User == nil && (u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname())) {
		return
	}
	v.fail(key, "is not the address of a server with TLS, write one that begins with https://") // the value may hold a password
}

func (v *validator) oauthSecret(key string, s Secret) {
	if !s.IsSet() {
		return
	}
	if err := s.resolve(v.dir(), "secret"); err != nil {
		v.fail(key, "%s", err)
	}
}

func (v *validator) oauthFlow(key string, o *OAuth) {
	switch {
	case o.Flow == ServiceAccount && o.ServiceAccountFile == "":
		v.fail(key+".service_account_file", "is missing, write the path of the JSON key of the service account")
	case o.Flow != ServiceAccount && o.ServiceAccountFile != "":
		v.fail(key+".service_account_file", "has no effect with flow %q, remove it", o.Flow)
	case o.Flow != ServiceAccount && o.ClientID == "":
		v.fail(key+".client_id", "is missing, write the id that the application got when it was registered at the provider")
	}
	if o.Flow == RefreshToken && !o.RefreshToken.IsSet() {
		v.fail(key+".refresh_token", `is missing, write "env:NAME" or "file:PATH"`)
	}
	if o.Flow != RefreshToken && o.RefreshToken.IsSet() {
		v.fail(key+".refresh_token", "has no effect with flow %q, remove it", o.Flow)
	}
	if o.Flow == ClientCredentials && !o.ClientSecret.IsSet() && o.CertificateFile == "" {
		v.fail(key+".client_secret", `is missing, write "env:NAME" or "file:PATH", or certificate_file and key_file`)
	}
}

func (v *validator) oauthFiles(key string, o *OAuth) {
	switch {
	case o.CertificateFile != "" && o.ClientSecret.IsSet():
		v.fail(key+".certificate_file", "stands beside client_secret, remove one of them")
	case o.CertificateFile != "" && o.KeyFile == "":
		v.fail(key+".certificate_file", "has no key_file beside it, write both or neither")
	case o.CertificateFile == "" && o.KeyFile != "":
		v.fail(key+".key_file", "has no certificate_file beside it, write both or neither")
	}
	if o.CertificateFile != "" {
		if _, err := readCertificates(o.CertificateFile); err != nil {
			v.fail(key+".certificate_file", "%s", err)
		}
	}
	for name, path := range map[string]string{"key_file": o.KeyFile, "service_account_file": o.ServiceAccountFile} {
		if path == "" {
			continue
		}
		if err := readable(path); err != nil {
			v.fail(key+"."+name, "%s", err)
		}
	}
	v.oauthPair(key, o)
}

// oauthPair wants the key of the certificate, which can be used without a person. Files that cannot be read were judged before.
func (v *validator) oauthPair(key string, o *OAuth) {
	if o.CertificateFile == "" || o.KeyFile == "" {
		return
	}
	_, err := readCertificates(o.CertificateFile)
	if err != nil || readable(o.KeyFile) != nil {
		return
	}
	certificate, err := textfile.Bounded(o.CertificateFile, maxFile)
	private, err2 := textfile.Bounded(o.KeyFile, maxSecret)
	if err != nil || err2 != nil {
		return
	}
	if bytes.Contains(private, []byte("ENCRYPTED")) {
		v.fail(key+".key_file", "%s is locked with a passphrase, write one that is not: openssl pkey -in %s -out FILE", o.KeyFile, o.KeyFile)
		return
	}
	if _, err := tls.X509KeyPair(certificate, private); err != nil {
		v.fail(key+".key_file", "%s and %s are not a pair: %s", o.CertificateFile, o.KeyFile, err)
	}
}

func readable(path string) error {
	if err := checkPrivate(path); err != nil {
		return err
	}
	_, err := textfile.Bounded(path, maxSecret)
	return err
}

// oauthSender: the application may be every mailbox that the provider lets it be, so that who may send as whom is decided
// here alone. The file must say it for every login: by a [[policy]] that matches everybody and sets senders. The blocks
// before it may say otherwise for some.
func (v *validator) oauthSender(key string, o *OAuth) {
	if o.Flow != ClientCredentials && o.Flow != ServiceAccount {
		v.fail(key+".identity", `"sender" needs tokens for every mailbox, which flow %q does not give, write flow = %q or %q, or identity = "username"`, o.Flow, ClientCredentials, ServiceAccount)
		return
	}
	for i := range v.Policies {
		p := &v.Policies[i]
		everybody := len(p.Logins)+len(p.Groups)+len(p.Networks)+len(p.Listeners) == 0
		if everybody && p.Senders != nil {
			return
		}
	}
	v.fail(key+".identity", `"sender" lets postern send as every mailbox, so say who may be whom: write a [[policy]] that matches everybody, last, with senders = ["{login}"] or what else holds`)
}

// OAuthFile reads a file that the block names. It was there when the configuration was validated.
func OAuthFile(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	data, err := textfile.Bounded(path, maxSecret)
	return string(data), err
}
