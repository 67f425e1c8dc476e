package clientsetup

import (
	"fmt"
	"strings"

	"postern/mail"
	"postern/relay/config"
)

// Card is everything that a person needs to set up a mail program.
type Card struct {
	Login    string   `json:"login"`
	Address  string   `json:"address"`            // that mail is sent from; "": not known
	Outgoing []Server `json:"outgoing"`           // the best first
	Incoming *Server  `json:"incoming,omitempty"` // null: [autoconfig] does not say
	Families []Family `json:"families"`
	Records  []Record `json:"records"` // of the address's domain; empty where [autoconfig] has it not
	Notes    []string `json:"notes"`   // what does not fit
}

// Family is a kind of mail program, and what to do in it.
type Family struct {
	Name      string   `json:"name"`
	Automatic bool     `json:"automatic"` // it asks for an address and a password, and nothing else
	Steps     []string `json:"steps"`
}

// Card returns what a login needs. senders are the addresses that it may send from, if there are any in its account.
func (s *Setup) Card(name string, senders []string, covers func(host string) bool) Card {
	c := Card{Login: name, Outgoing: []Server{}, Records: []Record{}, Notes: []string{}}
	address, known := addressOf(name, senders)
	if known {
		c.Address = address.String()
	}
	for _, o := range s.Outgoing {
		o.Username = name
		c.Outgoing = append(c.Outgoing, o)
	}
	if s.Incoming != nil {
		in := *s.Incoming
		if in.Username = login(in.Username, address); !known {
			in.Username = ""
		}
		c.Incoming = &in
	}
	told := s.told(name, address, known, covers)
	c.Notes = append(c.Notes, told.notes...)
	if domain := mail.ALabels(address.Domain); known && s.Has(domain) {
		c.Records = append(c.Records, s.Records(domain, covers)...)
	}
	if len(s.Outgoing) == 0 {
		c.Notes = append(c.Notes, `there is no listener with TLS and auth = "required", so no mail program can log in`)
		return c
	}
	c.Families = s.families(&c, told)
	return c
}

// addressOf is the address that a login writes mail from: itself, or the first sender that is one.
func addressOf(name string, senders []string) (mail.Address, bool) {
	for _, text := range append([]string{name}, senders...) {
		if strings.ContainsAny(text, "*{") {
			continue
		}
		if address, err := mail.ParseAddress(text); err == nil {
			return address, true
		}
	}
	return mail.Address{}, false
}

// told says which formats tell a login its settings, and why others do not.
type told struct {
	thunderbird, outlook, apple bool
	notes                       []string
}

func (s *Setup) told(name string, address mail.Address, known bool, covers func(string) bool) (t told) {
	note := func(format string, args ...any) { t.notes = append(t.notes, fmt.Sprintf(format, args...)) }
	domain := mail.ALabels(address.Domain)
	switch {
	case len(s.Domains) == 0:
		note("mail programs cannot find these settings by themselves: relay.toml has no [autoconfig] domains")
		return t
	case !known:
		note("the login has no address, so mail programs cannot find its settings by themselves")
		return t
	case !s.Has(domain):
		note("mail programs cannot find these settings by themselves: %s is not in [autoconfig] domains", address.Domain)
		return t
	}
	if made := login(s.best().Username, address); mail.LowerASCII(made) != mail.LowerASCII(name) {
		note("mail programs that set themselves up take %s as the name of the outgoing server: correct it to %s", made, name)
	}
	var errs [4]error
	_, errs[0] = s.Thunderbird(domain)
	_, errs[1] = s.Outlook(address)
	_, errs[2] = s.Apple(address)
	_, errs[3] = s.PACC()
	for _, err := range errs {
		if err != nil {
			note("%s", err)
		}
	}
	if host := s.URL.Hostname(); !s.Proxied && !covers(host) {
		note("mail programs do not read the settings at %s: the certificate in [tls] is not one for it that they trust",
			host)
		return t
	}
	t.thunderbird, t.outlook, t.apple = errs[0] == nil, errs[1] == nil, errs[2] == nil
	return t
}

// best is the best outgoing server, the zero Server if there is none.
func (s *Setup) best() Server {
	if len(s.Outgoing) == 0 {
		return Server{}
	}
	return s.Outgoing[0]
}

// families says what to do in each kind of program.
func (s *Setup) families(c *Card, t told) []Family {
	best, start := c.Outgoing[0], startTLS(c.Outgoing)
	typed := func(where string) string {
		return fmt.Sprintf("%s: %s, %s; user name %s; the password of this login.", where, best.Host,
			security(best), c.Login)
	}
	incoming := "The incoming server stays as your mailbox provider says."
	switch {
	case c.Incoming == nil:
	case c.Incoming.OAuth:
		incoming = fmt.Sprintf("The incoming server is %s, which wants OAuth 2.0: the mailbox is set up as its provider "+
			"says, and only the outgoing server is changed.", c.Incoming.Host)
	default:
		incoming = fmt.Sprintf("Incoming server (%s): %s, %s; user name %s; the password of the mailbox.",
			protocols[c.Incoming.Protocol], c.Incoming.Host, security(*c.Incoming), c.Incoming.Username)
	}
	const apart = "If the mailbox has another password than this login, the program asks for it once more."
	pick := func(automatic bool, steps, otherwise []string) ([]string, bool) {
		if automatic {
			return steps, true
		}
		return append([]string{incoming}, otherwise...), false
	}
	var all []Family
	add := func(name string, automatic bool, steps, otherwise []string) {
		done, auto := pick(automatic, steps, otherwise)
		all = append(all, Family{name, auto, done})
	}
	add("Thunderbird", t.thunderbird,
		[]string{"Account settings, Add mail account: type your name, " + c.Address + " and the password, press " +
			"Continue, then Done.", apart},
		[]string{typed("Settings, Outgoing server (SMTP), Add")})
	add("Outlook, classic (Windows)", t.outlook,
		[]string{"File, Add account: type " + c.Address + " and press Connect.", apart},
		[]string{typed("File, Account settings, Change, More settings, Outgoing server and Advanced"),
			`There, tick "My outgoing server (SMTP) requires authentication"; leave "Secure Password Authentication" off.`})
	all = append(all, Family{"Outlook, new (Windows, Mac, telephones)", false, []string{
		"It reads and sends through servers of Microsoft, which keep the password: it works only where the listener " +
			"can be reached from the Internet, and not for logins that are bound to networks.",
		"Add account, Choose provider, IMAP.", incoming, typed("SMTP")}})
	add("Apple Mail, iPhone, iPad", t.apple,
		[]string{"Open this page in Safari and install the profile in Settings: " + s.ProfileURL(c.Address),
			"It asks for the password of the mailbox and for that of this login."},
		[]string{typed("Settings, Mail, Accounts, Add account, Other; Outgoing mail server")})
	add("Android: Thunderbird, K-9 Mail, FairEmail", t.thunderbird,
		[]string{"Add account: type " + c.Address + " and the password.", apart},
		[]string{typed("Outgoing server settings")})
	all = append(all, Family{"Any other mail program", false, []string{incoming, typed("Outgoing server (SMTP)"),
		`Authentication is "normal password", never "encrypted password", SPA or NTLM.`}})
	application := typed("SMTP")
	if start != nil && start.Port != best.Port {
		application += fmt.Sprintf(" .NET's SmtpClient knows STARTTLS alone: %s, %s.", start.Host, security(*start))
	}
	return append(all, Family{"Applications (PHP, .NET, Python, Node.js)", false, []string{application}})
}

// startTLS is the first server with STARTTLS, nil without one.
func startTLS(servers []Server) *Server {
	for i := range servers {
		if servers[i].TLS == config.StartTLS {
			return &servers[i]
		}
	}
	return nil
}

// security says port and encryption as programs name them.
func security(s Server) string {
	if s.TLS == config.StartTLS {
		return fmt.Sprintf("port %d, STARTTLS", s.Port)
	}
	return fmt.Sprintf("port %d, SSL/TLS", s.Port)
}
