// Package clientsetup makes what mail programs and people need for an account: Thunderbird's autoconfig, Outlook's
// autodiscover, Apple's profile, PACC, DNS records, and the values to type. Package admin/autoconfig serves them.
//
// Failure semantics: everything follows from relay.toml and an address, and nobody is asked whether the address has an
// account. A format that cannot say what is configured is not made: the *Unfit error says why. What came from a client
// stands in an answer as text that was escaped, and only where it is an address of a configured domain.
package clientsetup

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"

	"postern/mail"
	"postern/relay/config"
)

// Setup is what there is to tell.
type Setup struct {
	Domains         []string // of people's addresses, as A-labels; none: mail programs are told nothing
	Name, ShortName string
	HelpURL         string
	URL             *url.URL // where mail programs ask
	// Proxied reports that they ask a web server before us, whose certificate is not ours to judge.
	Proxied  bool
	Outgoing []Server // our listeners, the best first
	Incoming *Server  // nil: not known
}

// Server is a server as it is typed into a mail program.
type Server struct {
	Protocol string `json:"protocol"` // smtp, imap or pop3
	Host     string `json:"host"`     // A-labels
	Port     int    `json:"port"`
	TLS      string `json:"tls"`      // config.Implicit, or config.StartTLS
	Username string `json:"username"` // what the login is: config.UserAddress or UserLocalPart; of a Card, the login
	OAuth    bool   `json:"oauth,omitempty"`
}

// Unfit says why a format is not made.
type Unfit struct {
	Format string // for people: "PACC"
	Why    string // a sentence without its end
}

func (u *Unfit) Error() string { return u.Format + ": " + u.Why }

// Of returns what a configuration has to tell.
func Of(c *config.Config) *Setup {
	a := &c.Autoconfig
	s := &Setup{Name: a.Name, ShortName: a.ShortName, HelpURL: a.HelpURL, Proxied: a.Address == "",
		URL: &url.URL{}, Outgoing: outgoing(c)}
	for _, text := range a.Domains {
		if domain, err := mail.ParseDomain(text); err == nil {
			s.Domains = append(s.Domains, mail.ALabels(domain))
		}
	}
	if u, err := url.Parse(a.URL); err == nil {
		s.URL.Scheme, s.URL.Host = u.Scheme, hostName(u.Hostname())
		if port := u.Port(); port != "" {
			s.URL.Host = net.JoinHostPort(s.URL.Host, port)
		}
	}
	if in := a.Incoming; in != nil && a.On() {
		s.Incoming = &Server{in.Protocol, hostName(in.Host), in.Port, in.TLS, in.Username,
			in.Authentication == config.ByOAuth2}
	}
	return s
}

// hostName is a host in lower case and A-labels.
func hostName(text string) string {
	domain, err := mail.ParseDomain(text)
	if err != nil {
		return text // Validate has refused it
	}
	return mail.ALabels(domain)
}

// outgoing are the listeners for mail programs. Implicit TLS comes first (RFC 8314 §3.3), then the lowest port, so that
// 587 comes before others.
func outgoing(c *config.Config) []Server {
	all := []Server{}
	for _, l := range c.Reachable() {
		_, port, err := net.SplitHostPort(l.Address)
		n, _ := strconv.Atoi(port)
		if err != nil || n == 0 || !l.ForPeople() {
			continue
		}
		s := Server{Protocol: "smtp", Host: hostName(c.Autoconfig.Server), Port: n, TLS: l.TLS,
			Username: c.Autoconfig.Username}
		if l.TLS == config.Auto { // as everybody expects of the port
			s.TLS = config.StartTLS
			if n == 465 {
				s.TLS = config.Implicit
			}
		}
		if !slices.ContainsFunc(all, func(o Server) bool { return o.Port == n }) {
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(a, b Server) int {
		return cmp.Or(-cmp.Compare(implicit(a), implicit(b)), cmp.Compare(a.Port, b.Port))
	})
	return all
}

func implicit(s Server) int {
	if s.TLS == config.Implicit {
		return 1
	}
	return 0
}

// complete refuses to make a format without both servers.
func (s *Setup) complete(format string) error {
	switch {
	case s.Incoming == nil:
		return &Unfit{format, "it needs the server of the mailbox, which [autoconfig.incoming] of relay.toml names"}
	case len(s.Outgoing) == 0:
		return &Unfit{format, "there is no listener with TLS and a login"}
	}
	return nil
}

// byPassword is complete for formats that know nothing but passwords.
func (s *Setup) byPassword(format string) error {
	if err := s.complete(format); err != nil {
		return err
	}
	if s.Incoming.OAuth {
		return &Unfit{format, fmt.Sprintf("it knows passwords alone, and %s wants OAuth 2.0", s.Incoming.Host)}
	}
	return nil
}

// login is what an address logs in as.
func login(style string, address mail.Address) string {
	if style == config.UserLocalPart {
		return address.Local
	}
	return address.String()
}

// Has reports whether a domain, lower case and A-labels, is one of ours.
func (s *Setup) Has(domain string) bool { return slices.Contains(s.Domains, domain) }

// ParseAddress reads an address of one of our domains. It stays as it was typed, since logins are compared so; domain
// is the one of ours.
func (s *Setup) ParseAddress(text string) (address mail.Address, domain string, err error) {
	if address, err = mail.ParseAddress(text); err != nil {
		return address, "", err
	}
	if domain = mail.ALabels(address.Domain); !s.Has(domain) {
		return address, "", errors.New("its domain is not in [autoconfig] domains")
	}
	return address, domain, nil
}

// Server is the name by which mail programs reach the listeners, "" if there are none for them.
func (s *Setup) Server() string { return s.best().Host }
