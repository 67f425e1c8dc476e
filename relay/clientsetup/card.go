package clientsetup

import (
	"fmt"
	"strings"

	"postern/mail"
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

// why says why mail programs cannot find a login's settings by themselves, "" where they can.
func (s *Setup) why(address mail.Address, known bool) string {
	switch domain := mail.ALabels(address.Domain); {
	case len(s.Domains) == 0:
		return "mail programs cannot find these settings by themselves: relay.toml has no [autoconfig] domains"
	case !known:
		return "the login has no address, so mail programs cannot find its settings by themselves"
	case !s.Has(domain):
		return "mail programs cannot find these settings by themselves: " + address.Domain +
			" is not in [autoconfig] domains"
	}
	return ""
}

func (s *Setup) told(name string, address mail.Address, known bool, covers func(string) bool) (t told) {
	note := func(format string, args ...any) { t.notes = append(t.notes, fmt.Sprintf(format, args...)) }
	if why := s.why(address, known); why != "" {
		note("%s", why)
		return t
	}
	if made := login(s.best().Username, address); mail.LowerASCII(made) != mail.LowerASCII(name) {
		note("mail programs that set themselves up take %s as the name of the outgoing server: correct it to %s", made,
			name)
	}
	var errs [4]error
	_, errs[0] = s.Thunderbird(mail.ALabels(address.Domain))
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
