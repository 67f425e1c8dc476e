package config

import (
	"net"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"postern/internal/local"
	"postern/mail"
)

// Autoconfig tells mail programs their settings, at the addresses where they ask. Without Domains it is off.
type Autoconfig struct {
	Domains []string `toml:"domains"` // of people's addresses
	// Address serves by HTTPS, with the certificate of [tls], what mail programs ask for and nothing else. "": the
	// admin address alone does.
	Address string `toml:"address"`
	// HTTPAddress leads those who ask by plain HTTP to URL. It tells no settings.
	HTTPAddress string `toml:"http_address"`
	// URL is where mail programs reach Address, or a proxy before the admin address. Default: https://, Hostname, and
	// the port of Address.
	URL string `toml:"url"`
	// Server is the name by which clients reach the listeners. Default: Hostname.
	Server   string `toml:"server"`
	Username string `toml:"username" default:"address"` // what a login here is: UserAddress or UserLocalPart
	Name     string `toml:"name"`                       // of the office, for people. Default: the first domain
	// ShortName is for small screens. Default: the first 20 characters of Name.
	ShortName string `toml:"short_name"`
	HelpURL   string `toml:"help_url"` // a page for people whose program does not find its way
	// Incoming is where people read mail. Postern has no mailboxes, and no format does without them.
	Incoming *Incoming `toml:"incoming"`
}

// Incoming is the server of people's mailboxes.
type Incoming struct {
	Protocol string `toml:"protocol" default:"imap"` // IMAP or POP3
	Host     string `toml:"host"`
	Port     int    `toml:"port"`                       // default: what goes with Protocol and TLS
	TLS      string `toml:"tls" default:"implicit"`     // Implicit or StartTLS
	Username string `toml:"username" default:"address"` // UserAddress or UserLocalPart
	// Authentication is ByPassword or ByOAuth2.
	Authentication string `toml:"authentication" default:"password"`
}

// What a login is, as mail programs make it of an address.
const (
	UserAddress   = "address"
	UserLocalPart = "localpart" // what stands before the @
)

// The protocols of mailboxes, and how people prove who they are there.
const (
	IMAP = "imap"
	POP3 = "pop3"

	ByPassword = "password"
	ByOAuth2   = "oauth2"
)

// Bounds of [autoconfig]. Names have the lengths that PACC allows, in characters.
const (
	maxClientDomains = 200
	maxClientName    = 60
	maxShortName     = 20
)

// On reports whether mail programs are told anything.
func (a *Autoconfig) On() bool { return len(a.Domains) > 0 }

// Listens returns the addresses that it has for itself, "" for none.
func (a *Autoconfig) Listens() (address, httpAddress string) {
	if !a.On() {
		return "", ""
	}
	return a.Address, a.HTTPAddress
}

// incomingPorts are the default ports, by protocol and TLS.
var incomingPorts = map[string]map[string]int{
	IMAP: {Implicit: 993, StartTLS: 143},
	POP3: {Implicit: 995, StartTLS: 110},
}

// deriveAutoconfig fills in what follows from other keys.
func deriveAutoconfig(c *Config) {
	a := &c.Autoconfig
	setDefault(&a.Server, c.doc.has("autoconfig.server"), strings.TrimSuffix(c.Hostname, "."))
	setDefault(&a.URL, c.doc.has("autoconfig.url"), httpsURL(c.Hostname, a.Address))
	if a.On() {
		setDefault(&a.Name, c.doc.has("autoconfig.name"), a.Domains[0])
	}
	setDefault(&a.ShortName, c.doc.has("autoconfig.short_name"), firstRunes(a.Name, maxShortName))
	if in := a.Incoming; in != nil {
		setDefault(&in.Port, c.doc.has("autoconfig.incoming.port"), incomingPorts[in.Protocol][in.TLS])
	}
}

func firstRunes(s string, n int) string {
	runes := []rune(s)
	return strings.TrimSpace(string(runes[:min(len(runes), n)]))
}

// Reachable are the listeners that other machines reach; all, where none is.
func (c *Config) Reachable() []Listener {
	others := slices.DeleteFunc(slices.Clone(c.Listeners), func(l Listener) bool {
		_, _, err := net.SplitHostPort(l.Address)
		return err != nil || l.IsLocal()
	})
	if len(others) == 0 {
		return slices.Clone(c.Listeners)
	}
	return others
}

// IsLocal reports that only programs of this machine reach a listener.
func (l *Listener) IsLocal() bool {
	host, _, err := net.SplitHostPort(l.Address)
	return err == nil && local.Host(host)
}

// ForPeople reports whether mail programs may use a listener: with TLS and a login.
func (l *Listener) ForPeople() bool {
	return l.TLS != NoTLS && l.Auth == AuthRequired && l.Profile == "standard"
}

func (v *validator) autoconfig() {
	a := &v.Autoconfig
	if !a.On() {
		if v.doc.has("autoconfig") && !v.doc.has("autoconfig.domains") {
			v.fail("autoconfig.domains", `is missing, write the domains of people's addresses such as `+
				`["example.com"], or [] to switch [autoconfig] off`)
		}
		return
	}
	v.autoconfigDomains()
	v.autoconfigAddresses()
	v.autoconfigWords()
	v.incoming()
	if !slices.ContainsFunc(v.Reachable(), func(l Listener) bool { return l.ForPeople() }) {
		v.fail("autoconfig.domains", `there is no listener that mail programs can use, with TLS and auth = `+
			`"required": write one such as address = ":465" with tls = "implicit"`)
	}
}

func (v *validator) autoconfigDomains() {
	domains := v.Autoconfig.Domains
	if len(domains) > maxClientDomains {
		v.fail("autoconfig.domains", "has %d domains, write at most %d", len(domains), maxClientDomains)
		return
	}
	seen := map[string]bool{}
	for i, text := range domains {
		key := element("autoconfig.domains", i)
		domain, err := mail.ParseDomain(text)
		switch domain = mail.ALabels(domain); {
		case err != nil || strings.HasPrefix(domain, "["):
			v.fail(key, "%q is no domain, write one such as \"example.com\"", text)
		case seen[domain]:
			v.fail(key, "%q stands twice, remove one", text)
		}
		seen[domain] = true
	}
}

// autoconfigAddresses checks where mail programs ask.
func (v *validator) autoconfigAddresses() {
	a := &v.Autoconfig
	if a.Address == "" && v.Admin.Address == "" {
		v.fail("autoconfig.address", `is missing, and there is no admin address either: write ":443"`)
	}
	addr := v.ownListen("autoconfig.address", a.Address, v.Admin.Address)
	v.ownListen("autoconfig.http_address", a.HTTPAddress, v.Admin.Address, a.Address)
	u, err := url.Parse(a.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		strings.Trim(u.Path, "/") != "" {
		v.fail("autoconfig.url", "%q is not where mail programs ask, write https:// and a host such as "+
			"\"https://relay.example.com\"", a.URL)
		return
	}
	if v.doc.has("autoconfig.url") { // DNS records lead to its host
		v.serverName("autoconfig.url", u.Hostname())
		return
	}
	admin, err := parseListen(v.Admin.Address)
	switch {
	case a.Address == "" && (err != nil || admin.host.IsLoopback()):
		v.warn("autoconfig.domains", "mail programs of other machines do not reach the admin address %s: write "+
			"address = \":443\" in [autoconfig], or url = where your web server passes it on", v.Admin.Address)
	case a.Address != "" && addr.port != 443:
		v.warn("autoconfig.address", "mail programs ask on port 443 only: write \":443\", or have port 443 led here "+
			"and write url")
	}
}

// ownListen checks an address that nothing else may have.
func (v *validator) ownListen(key, text string, others ...string) listenAddress {
	if text == "" {
		return listenAddress{}
	}
	addr, err := parseListen(text)
	if err != nil {
		v.fail(key, "%s", err)
		return addr
	}
	for i := range v.Listeners {
		others = append(others, v.Listeners[i].Address)
	}
	for _, o := range others {
		if other, err := parseListen(o); err == nil && addr.conflicts(other) {
			v.fail(key, "%s is used already, by %s: write another port", text, o)
			return addr
		}
	}
	return addr
}

// autoconfigWords checks what people are shown, and names.
func (v *validator) autoconfigWords() {
	a := &v.Autoconfig
	if v.doc.has("autoconfig.server") { // hostname is checked elsewhere
		v.serverName("autoconfig.server", a.Server)
	}
	v.oneOf("autoconfig.username", a.Username, UserAddress, UserLocalPart)
	for _, w := range []struct {
		key, text string
		most      int
	}{{"autoconfig.name", a.Name, maxClientName}, {"autoconfig.short_name", a.ShortName, maxShortName}} {
		odd := func(r rune) bool { return !unicode.IsPrint(r) }
		switch n := utf8.RuneCountInString(w.text); {
		case n == 0 || n > w.most:
			v.fail(w.key, "has %d characters, write 1 to %d", n, w.most)
		case !utf8.ValidString(w.text) || strings.ContainsFunc(w.text, odd) ||
			strings.Join(strings.Fields(w.text), " ") != w.text:
			v.fail(w.key, "%q has control characters or needless spaces, write plain words", w.text)
		}
	}
	if u, err := url.Parse(a.HelpURL); a.HelpURL != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		v.fail("autoconfig.help_url", "%q is no page, write https:// and where it is", a.HelpURL)
	}
}

func (v *validator) serverName(key, name string) {
	domain, err := mail.ParseDomain(name)
	if err != nil || strings.HasPrefix(domain, "[") || isAddress(name) {
		v.fail(key, "%q is no host name, write the name that the server's certificate is for", name)
	}
}

func (v *validator) incoming() {
	in := v.Autoconfig.Incoming
	if in == nil {
		v.fail("autoconfig.incoming", "is missing: no mail program sets up an account without the server of its "+
			"mailbox, write [autoconfig.incoming] with host")
		return
	}
	const key = "autoconfig.incoming."
	v.oneOf(key+"protocol", in.Protocol, IMAP, POP3)
	v.oneOf(key+"tls", in.TLS, Implicit, StartTLS)
	v.oneOf(key+"username", in.Username, UserAddress, UserLocalPart)
	v.oneOf(key+"authentication", in.Authentication, ByPassword, ByOAuth2)
	v.serverName(key+"host", in.Host)
	if v.doc.has(key + "port") {
		v.between(key+"port", in.Port, 1, 65535)
	}
}
