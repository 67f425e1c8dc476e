// Package setup makes a first relay.toml of a few answers: what to ask, which answers are sensible, and the text.
//
// Failure semantics: it is pure. An answer that cannot be is an error that says what to give instead; what Text writes
// for answers that pass Check is a configuration that loads.
package setup

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/auth"
	"postern/internal/dpapi"
	"postern/internal/suggest"
	"postern/mail"
	"postern/policy"
	"postern/relay/upstream/profile"
)

// Names of the files beside relay.toml that hold secrets.
const (
	PasswordFile = "upstream-password"
	SecretFile   = "upstream-client-secret"
)

// Answers are what a first configuration is made of.
type Answers struct {
	Provider string // a profile
	Host     string // of providers that have no one host
	Port     int    // 0: the provider's first
	Username string // at the provider; "": no login
	Password string // at the provider; "" with a Username: OAuth

	Tenant   string // OAuth at Microsoft
	ClientID string
	Secret   string // of the client

	Domain   string // that mail is sent from
	Hostname string // what clients type as outgoing server
	DataDir  string
	CertFile string // "": self-signed
	KeyFile  string
	Address  string // of the listeners, without port; "": all
	Ports    []int  // 587 STARTTLS, 465 implicit TLS, others both

	Login    string // the first
	Sender   string // that it may send as
	Networks []string
}

// Question is one that a person is asked.
type Question struct {
	Flag    string // of the command line, which answers it too
	Ask     string
	Help    string   // a sentence more, "": none
	Choices []string // those to show
	Secret  bool     // not to be echoed
	Default func(*Answers) string
	Needed  func(*Answers) bool // by what was answered before
	set     func(*Answers, string) error
}

// Common are the providers to show; any profile may be named.
var Common = []string{"microsoft365", "microsoft-graph", "gmail", "google-relay", "ses", "sendgrid", "mailgun",
	"postmark", "brevo", "generic"}

func always(*Answers) bool     { return true }
func nothing(*Answers) string  { return "" }
func (a *Answers) graph() bool { return a.Provider == "microsoft-graph" }

// company reports a provider at which an application has rights of its own, and a secret to prove itself.
func (a *Answers) company() bool { return a.graph() || a.Provider == "microsoft365" }

// tokensOnly reports a provider that takes no password at all.
func (a *Answers) tokensOnly() bool {
	return a.graph() || a.logsIn() && !slices.ContainsFunc(a.profile().Mechanisms, func(m string) bool {
		return m != "XOAUTH2" && m != "OAUTHBEARER"
	})
}

func (a *Answers) oauth() bool {
	return a.Username != "" && a.Password == "" && (a.company() || a.tokensOnly())
}

// ofCompany reports that the application logs in by itself, without a person's consent.
func (a *Answers) ofCompany() bool { return a.oauth() && a.company() }

// profile is what is known of the provider that was chosen.
func (a *Answers) profile() *profile.Profile {
	p, ok := profile.Get(a.Provider)
	if !ok {
		p, _ = profile.Get(profile.Generic)
	}
	return p
}

// logsIn reports that the provider wants a login at all: connectors know us by address.
func (a *Answers) logsIn() bool { return a.graph() || len(a.profile().Mechanisms) > 0 }

// Questions are all questions, in order.
var Questions = []Question{
	{Flag: "provider", Ask: "Which provider takes the mail", Choices: Common, Needed: always,
		Help:    "Another one, or a server of your own: generic. All that are known: postern upstream profiles",
		Default: func(*Answers) string { return "microsoft365" }, set: setProvider},
	{Flag: "host", Ask: "Its SMTP server",
		Needed:  func(a *Answers) bool { return a.profile().Host == "" && !a.graph() },
		Default: nothing, set: setHost},
	{Flag: "username", Ask: "Login at the provider", Needed: (*Answers).logsIn,
		Help:    "For Microsoft and Google the mailbox that everything is sent from",
		Default: func(a *Answers) string { return a.profile().Username }, set: setUsername},
	{Flag: "password", Ask: "Password at the provider", Secret: true,
		Needed:  func(a *Answers) bool { return a.Username != "" && !a.tokensOnly() },
		Help:    "Empty at Microsoft: OAuth, which goes on working when Microsoft ends passwords",
		Default: nothing, set: setPassword},
	{Flag: "tenant", Ask: "Tenant (such as contoso.onmicrosoft.com)", Needed: (*Answers).ofCompany, Default: nothing,
		set: func(a *Answers, s string) (err error) { a.Tenant, err = word(s, "the tenant"); return err }},
	{Flag: "client-id", Ask: "Application (client) id", Needed: (*Answers).oauth, Default: nothing,
		Help: "How to register the application: docs/upstreams/microsoft-365.md",
		set:  func(a *Answers, s string) (err error) { a.ClientID, err = word(s, "the client id"); return err }},
	{Flag: "client-secret", Ask: "Client secret (its value, not its id)", Secret: true, Needed: (*Answers).ofCompany,
		Default: nothing,
		set:     func(a *Answers, s string) (err error) { a.Secret, err = word(s, "the client secret"); return err }},
	{Flag: "domain", Ask: "Domain that mail is sent from", Needed: always,
		Default: func(a *Answers) string { return domainOf(a.Username) }, set: setDomain},
	{Flag: "hostname", Ask: "Name of this server, as clients will type it", Needed: always,
		Default: func(a *Answers) string { return cmp.Or(a.Hostname, "smtp."+a.Domain) }, set: setHostname},
	{Flag: "port", Ask: "Ports that clients use", Needed: always,
		Help:    "587 with STARTTLS and 465 with TLS at once are what mail programs and devices look for",
		Default: func(*Answers) string { return "587,465" }, set: setPorts},
	{Flag: "login", Ask: "First login: a person's address, or a name for a device", Needed: always,
		Default: func(*Answers) string { return "scanner" }, set: setLogin},
	{Flag: "sender", Ask: "Address that it sends as", Needed: always, Default: defaultSender, set: setSender},
	{Flag: "network", Ask: "Network that it may log in from, such as 192.168.1.0/24; empty: any", Needed: always,
		Default: nothing, set: setNetworks},
}

func domainOf(address string) string {
	_, domain, _ := strings.Cut(address, "@")
	return domain
}

func defaultSender(a *Answers) string {
	rule := a.profile().SenderRule
	switch {
	case strings.Contains(a.Username, "@") && (rule == profile.SenderMustMatch || rule == profile.SenderRewritten):
		return a.Username
	case strings.Contains(a.Login, "@"):
		return a.Login
	}
	return a.Login + "@" + a.Domain
}

func setProvider(a *Answers, s string) error {
	if _, ok := profile.Get(s); !ok {
		return fmt.Errorf("there is no profile %q%s; any other smart host is generic", mail.Printable(s),
			suggest.Question(s, profile.Names()))
	}
	a.Provider = s
	return nil
}

func setHost(a *Answers, s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = s, "0"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("%q is no port", mail.Printable(port))
	}
	if _, err := netip.ParseAddr(host); err != nil {
		if host, err = mail.ParseDomain(host); err != nil {
			return fmt.Errorf("%q is no server: %w", mail.Printable(s), err)
		}
	}
	a.Host, a.Port = mail.ALabels(host), int(n)
	return nil
}

func setUsername(a *Answers, s string) (err error) {
	if s == "" && a.Provider == profile.Generic {
		a.Username = "" // a server that knows us by address
		return nil
	}
	a.Username, err = word(s, "the login at the provider")
	if err == nil && a.company() {
		if _, err = mail.ParseAddress(s); err != nil {
			err = fmt.Errorf("the login at Microsoft is a mailbox, such as relay@example.com: %w", err)
		}
	}
	return err
}

func setPassword(a *Answers, s string) error {
	if s == "" && !a.company() {
		return errors.New("the password is needed, or what the provider calls an app password, API key or " +
			"SMTP password")
	}
	if strings.ContainsAny(s, "\r\n\x00") {
		return errors.New("the password has a line end in it")
	}
	a.Password = s
	return nil
}

func setDomain(a *Answers, s string) error {
	domain, err := mail.ParseDomain(s)
	if err != nil || !strings.Contains(domain, ".") {
		return fmt.Errorf("%q is no domain such as example.com", mail.Printable(s))
	}
	a.Domain = mail.ALabels(domain)
	return nil
}

func setHostname(a *Answers, s string) error {
	name, err := mail.ParseDomain(s)
	if err != nil {
		return fmt.Errorf("%q is no host name such as smtp.example.com", mail.Printable(s))
	}
	a.Hostname = mail.ALabels(name)
	return nil
}

func setPorts(a *Answers, s string) error {
	a.Ports = nil
	for _, text := range words(s) {
		n, err := strconv.ParseUint(text, 10, 16)
		switch {
		case err != nil || n == 0:
			return fmt.Errorf("%q is no port; ports are between 1 and 65535", mail.Printable(text))
		case slices.Contains(a.Ports, int(n)):
			return fmt.Errorf("port %d is there twice", n)
		case len(a.Ports) == maxPorts:
			return fmt.Errorf("more than %d ports; add further listeners to relay.toml later", maxPorts)
		}
		a.Ports = append(a.Ports, int(n))
	}
	if len(a.Ports) == 0 {
		return errors.New("a port is needed, such as 587")
	}
	return nil
}

// maxPorts keeps the file short.
const maxPorts = 3

// words are what stands between commas and blanks.
func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

func setLogin(a *Answers, s string) (err error) {
	a.Login, err = auth.CheckLogin(s)
	return err
}

func setSender(a *Answers, s string) error {
	if _, err := mail.ParseAddress(s); err != nil {
		if err := policy.CheckSenderPattern(s); err != nil || !strings.HasPrefix(s, "*@") {
			return fmt.Errorf("%q is no address, and not *@domain", mail.Printable(s))
		}
	}
	a.Sender = s
	return nil
}

func setNetworks(a *Answers, s string) error {
	a.Networks = nil
	for _, n := range words(s) {
		if _, err := netip.ParsePrefix(n); err != nil {
			if _, err := netip.ParseAddr(n); err != nil {
				return fmt.Errorf("%q is no network such as 192.168.1.0/24, and no address", mail.Printable(n))
			}
		}
		a.Networks = append(a.Networks, n)
	}
	return nil
}

func word(s, what string) (string, error) {
	if s == "" {
		return "", fmt.Errorf("%s is needed", what)
	}
	if s != mail.Printable(s) || strings.ContainsAny(s, " \t") {
		return "", fmt.Errorf("%s has a blank or another odd character in it", what)
	}
	return s, nil
}

// Device reports that the first login is a device and no person.
func (a *Answers) Device() bool { return !strings.Contains(a.Login, "@") }

// Secrets are the files beside relay.toml that hold secrets, by name.
func (a *Answers) Secrets() map[string]string {
	files := map[string]string{}
	if a.Password != "" && !isReference(a.Password) {
		files[PasswordFile] = a.Password
	}
	if a.ofCompany() && !isReference(a.Secret) {
		files[SecretFile] = a.Secret
	}
	return files
}

// Text is the relay.toml, of fewer than 25 lines.
func (a *Answers) Text(now time.Time) string {
	var w writer
	w.line("# Written by postern setup on "+now.Format(time.DateOnly)+
		". All keys and their defaults: relay.toml in the "+
		"documentation.", "")
	w.key("hostname", a.Hostname, "what clients type as outgoing server")
	w.key("data_dir", a.DataDir, "queue, accounts and keys: private, and worth a backup")
	if a.CertFile != "" {
		w.line("[tls]", "")
		w.key("cert_file", a.CertFile, "with its chain; read again when it changes")
		w.key("key_file", a.KeyFile, "")
	}
	for _, port := range a.Ports {
		a.listener(&w, port)
	}
	w.line("[[upstream]]", "the provider that takes the mail")
	w.key("name", a.Provider, "")
	w.key("provider", a.Provider, a.profile().Title)
	if a.Host != "" {
		w.key("host", a.Host, "")
	}
	if a.Port != 0 {
		w.line(fmt.Sprintf("port = %d", a.Port), "")
		if a.Port == 465 {
			w.key("tls", "implicit", "")
		}
	}
	if a.Username != "" {
		w.key("username", a.Username, "at the provider")
	}
	if a.Password != "" {
		w.key("password", reference(a.Password, PasswordFile), "")
	}
	if a.oauth() {
		w.line("[upstream.oauth]", "docs/upstreams says how to get these")
		w.key("flow", a.flow(), "")
		w.key("client_id", a.ClientID, "")
	}
	if a.ofCompany() {
		w.key("tenant", a.Tenant, "")
		w.key("client_secret", reference(a.Secret, SecretFile),
			`add expires = "2027-…", and you are told before it ends`)
	}
	return w.b.String()
}

func (a *Answers) flow() string {
	if a.company() {
		return "client-credentials"
	}
	return "device-code" // a person consents: postern upstream login NAME
}

// Consents reports that a person has to consent before mail can leave.
func (a *Answers) Consents() bool { return a.oauth() && !a.company() }

func isReference(secret string) bool {
	return strings.HasPrefix(secret, "env:") || strings.HasPrefix(secret, "file:") ||
		strings.HasPrefix(secret, dpapi.Prefix)
}

// reference is what relay.toml has of a secret.
func reference(secret, file string) string {
	if isReference(secret) {
		return secret
	}
	return "file:" + file
}

// listener writes one block.
func (a *Answers) listener(w *writer, port int) {
	use := map[int][2]string{587: {"starttls", "TLS by STARTTLS, with a login"},
		465: {"implicit", "TLS at once, with a login"}}
	tls, ok := use[port]
	if !ok {
		tls = [2]string{"auto", "TLS at once or by STARTTLS, with a login"}
	}
	w.line("[[listener]]", "")
	if !ok && len(a.Ports) > 1 { // the usual ones have names
		w.key("name", fmt.Sprintf("submission-%d", port), "")
	}
	w.key("address", net.JoinHostPort(a.Address, strconv.Itoa(port)), tls[1])
	w.key("tls", tls[0], "")
}

type writer struct{ b strings.Builder }

func (w *writer) line(text, comment string) {
	if comment != "" {
		text = fmt.Sprintf("%-44s # %s", text, comment)
	}
	w.b.WriteString(text + "\n")
}

func (w *writer) key(name, value, comment string) { w.line(name+" = "+quote(value), comment) }

// quote writes a basic string of TOML. Check has refused control characters.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// Ask goes through the questions: what was given, by flag, answers first, then ask, which is called again with what is
// wrong until an answer can be, then the default. Without ask, every answer that is missing or wrong is in the error.
func Ask(a *Answers, given map[string]string,
	ask func(q *Question, standard string, wrong error) (string, error)) error {
	var wrong []error
	for i := range Questions {
		q := &Questions[i]
		text, is := given[q.Flag]
		switch {
		case is:
			if err := q.given(a, text); err != nil {
				wrong = append(wrong, fmt.Errorf("--%s: %w", q.Flag, err))
			}
		case !q.Needed(a):
		case ask == nil:
			if err := q.set(a, q.Default(a)); err != nil {
				wrong = append(wrong, fmt.Errorf("--%s: %w", q.Flag, err))
			}
		default:
			if err := q.askUntil(a, ask); err != nil {
				return err
			}
		}
	}
	return errors.Join(append(wrong, a.check()...)...)
}

func (q *Question) given(a *Answers, text string) error {
	if q.Secret && text != "" && !isReference(text) {
		return errors.New("a secret on the command line can be read by everybody on this machine: write file:PATH or " +
			"env:NAME")
	}
	return q.set(a, strings.TrimSpace(text))
}

func (q *Question) askUntil(a *Answers, ask func(*Question, string, error) (string, error)) error {
	for wrong := error(nil); ; {
		standard := q.Default(a)
		text, err := ask(q, standard, wrong)
		if err != nil {
			return err
		}
		if wrong = q.set(a, cmp.Or(strings.TrimSpace(text), standard)); wrong == nil {
			return nil
		}
	}
}

// check returns what is wrong with what nobody is asked.
func (a *Answers) check() (wrong []error) {
	for _, text := range []string{a.DataDir, a.CertFile, a.KeyFile} {
		if text != mail.Printable(text) {
			wrong = append(wrong, fmt.Errorf("%q has a control character in it", text))
		}
	}
	if (a.CertFile == "") != (a.KeyFile == "") {
		wrong = append(wrong, errors.New("--cert and --key belong together"))
	}
	return wrong
}
