package config

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"postern/internal/textfile"
	"postern/relay/upstream/graph"
	"postern/relay/upstream/oauth"
)

// Who an upstream with OAuth is told we are.
const (
	IdentityUsername = "username"
	IdentitySender   = "sender" // each message's own sender, with Username for addresses without mailbox
)

// OAuth logs in with an access token instead of a password. Package oauth checks what belongs together.
type OAuth struct {
	// Provider names the login service: microsoft or google. Default: by Host, or microsoft where Tenant is set.
	Provider string     `toml:"provider"`
	Flow     oauth.Flow `toml:"flow"`
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
	return u.CAFile != "" || u.CertFile != "" || u.OAuth != nil &&
		(u.OAuth.CertificateFile != "" || u.OAuth.ServiceAccountFile != "")
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

// TokenOptions are what package oauth needs to know of the block. The error is that of a file.
func (u *Upstream) TokenOptions() (oauth.Options, error) {
	var failed error
	o := u.tokenOptions(func(path string) string {
		if path == "" {
			return ""
		}
		data, err := textfile.Bounded(path, maxSecret)
		if err != nil {
			failed = err
		}
		return string(data)
	})
	return o, failed
}

// tokenOptions reads files by a function, which may make something else of their paths.
func (u *Upstream) tokenOptions(read func(path string) string) oauth.Options {
	b := u.OAuth
	o := oauth.Options{
		Upstream: u.Name, Provider: u.loginService(), Flow: b.Flow, Tenant: b.Tenant, Cloud: b.Cloud,
		ClientID: b.ClientID, ClientSecret: oauth.NewSecret(b.ClientSecret.Value()),
		ClientSecretExpires: b.Expires.Time,
		RefreshToken:        oauth.NewSecret(b.RefreshToken.Value()), Username: u.Username,
		LargeMail: u.LargeMail == graph.UploadLarge,
		Scopes:    b.Scopes, TokenURL: b.TokenURL, AuthURL: b.AuthURL, DeviceURL: b.DeviceURL,
	}
	if b.CertificateFile != "" {
		o.Certificate = oauth.NewSecret(read(b.CertificateFile) + "\n" + read(b.KeyFile))
	}
	if b.ServiceAccountFile != "" {
		o.ServiceAccount = oauth.NewSecret(read(b.ServiceAccountFile))
	}
	return o
}

// loginService finds out whose accounts an upstream has; "" where all that is needed stands in the block.
func (u *Upstream) loginService() string {
	host := strings.ToLower(u.Host)
	within := func(domains ...string) bool {
		return slices.ContainsFunc(domains, func(d string) bool { return host == d || strings.HasSuffix(host, "."+d) })
	}
	switch {
	case u.ByGraph():
		return oauth.MicrosoftGraph
	case u.OAuth.Provider != "":
		return u.OAuth.Provider
	case u.OAuth.Tenant != "", u.OAuth.Cloud != "",
		strings.HasPrefix(u.Provider, "microsoft365"), u.Provider == "outlookcom",
		within("office365.com", "outlook.com", "office365.us", "partner.outlook.cn"):
		return oauth.Microsoft
	case u.OAuth.Flow == oauth.ServiceAccount, u.Provider == "gmail", u.Provider == "google-relay",
		within("gmail.com", "googlemail.com"):
		return oauth.Google
	}
	return ""
}

// oauth checks the block. What it says of tokens is package oauth's to check.
func (v *validator) oauth(key string, u *Upstream) {
	o := u.OAuth
	if o == nil {
		return
	}
	v.oauthUpstream(key, u)
	key += ".oauth"
	v.secret(key+".client_secret", o.ClientSecret, "secret")
	v.secret(key+".refresh_token", o.RefreshToken, "secret")
	options := u.tokenOptions(func(path string) string { return path })
	for _, bad := range options.Check() {
		v.fail(join(key, bad.Key), "%s", bad.Msg)
	}
	if o.byMicrosoft(u) {
		v.oauthEntra(key, u)
	}
	if !o.Expires.IsZero() && !o.ClientSecret.IsSet() {
		v.fail(key+".expires", "is the end of client_secret, which is not set; a certificate tells its own, remove it")
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

// oauthEntra warns of what is often copied from the wrong line of Entra's pages. What was written is not repeated: it
// may be the secret.
func (v *validator) oauthEntra(key string, u *Upstream) {
	o := u.OAuth
	if u.Username != "" && !strings.Contains(u.Username, "@") && !entraID.MatchString(u.Username) {
		v.warn(strings.TrimSuffix(key, ".oauth")+".username", "%q is no address, write that of the mailbox to send as",
			u.Username)
	}
	if o.ClientID != "" && !entraID.MatchString(o.ClientID) {
		v.warn(key+".client_id", `is not like an id of Microsoft's, such as 00000000-0000-0000-0000-000000000000; `+
			`copy "Application (client) ID" from the application's overview`)
	}
	if entraID.MatchString(o.ClientSecret.Value()) {
		v.warn(key+".client_secret", `is like the secret's id ("Secret ID"); copy the other column, "Value", which `+
			`is shown only when the secret is made`)
	}
}

// oauthUpstream checks the block around: only a server that is proven may see a token.
func (v *validator) oauthUpstream(key string, u *Upstream) {
	if u.Password.IsSet() {
		v.fail(key+".password", "stands beside oauth, remove one of them")
	}
	if u.Username == "" {
		v.fail(key+".username", `is missing, write the mailbox to log in as; with identity = "sender" it serves `+
			`addresses without a mailbox`)
	}
	if u.TLS == NoTLS {
		v.fail(key+".tls", `a token must not be sent in clear, write "starttls" or "implicit"`)
	}
	if u.InsecureSkipVerify {
		v.fail(key+".insecure_skip_verify",
			"a token must not be sent to a server that is not proven, remove it and write ca_file")
	}
}

func (v *validator) oauthFiles(key string, o *OAuth) {
	v.pair(key, "certificate_file", o.CertificateFile, "key_file", o.KeyFile)
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

// oauthPair wants the key of the certificate, which can be used without a person. Files that cannot be read were
// checked before.
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
		v.fail(key+".key_file", "%s is locked with a passphrase, write one that is not: openssl pkey -in %s -out FILE",
			o.KeyFile, o.KeyFile)
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

// oauthSender: the application may be every mailbox that the provider lets it be, so that who may send as whom is
// decided here alone. The file must say it for every login: by a [[policy]] that matches everybody and sets senders.
// The blocks before it may say otherwise for some.
func (v *validator) oauthSender(key string, o *OAuth) {
	if o.Flow != oauth.ClientCredentials && o.Flow != oauth.ServiceAccount {
		v.fail(key+".identity", `"sender" needs tokens for every mailbox, which flow %q does not give, write flow = `+
			`%q or %q, or identity = "username"`,
			o.Flow, oauth.ClientCredentials, oauth.ServiceAccount)
		return
	}
	for i := range v.Policies {
		p := &v.Policies[i]
		everybody := len(p.Logins)+len(p.Groups)+len(p.Networks)+len(p.Listeners) == 0
		if everybody && p.Senders != nil {
			return
		}
	}
	v.fail(key+".identity", `"sender" lets postern send as every mailbox, so say who may be whom: write a `+
		`[[policy]] that matches everybody, last, with senders = ["{login}"] or what else holds`)
}
