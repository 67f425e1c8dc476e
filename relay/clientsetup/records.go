package clientsetup

import (
	"cmp"
	"fmt"
	"net/url"
	"strconv"

	"postern/relay/config"
)

// Record is a DNS record to publish.
type Record struct {
	Name  string `json:"name"` // whole, without a dot at the end
	Type  string `json:"type"`
	Value string `json:"value"`
	For   string `json:"for"`            // what reads it
	Note  string `json:"note,omitempty"` // what else it takes
}

// The names that mail programs put before a domain.
const (
	AutoconfigPrefix   = "autoconfig."
	AutodiscoverPrefix = "autodiscover."
	PACCPrefix         = "ua-auto-config."
)

// Records are those of one of our domains. covers says for which names the certificate is.
func (s *Setup) Records(domain string, covers func(host string) bool) []Record {
	l := &list{domain: domain}
	for _, server := range s.servers() {
		l.add(serviceOf(server), "SRV", fmt.Sprintf("0 1 %d %s", server.Port, server.Host),
			"mail programs by RFC 6186", "")
	}
	if len(s.Domains) == 0 {
		return l.all
	}
	host := s.URL.Hostname()
	point := func(prefix, reader, without string) {
		if name := prefix + domain; host != name {
			l.add(prefix, "CNAME", host, reader, s.noteOfName(name, without, covers))
		}
	}
	if _, err := s.Thunderbird(domain); err == nil {
		point(AutoconfigPrefix, "Thunderbird and others",
			"until it does, they ask by plain HTTP, which http_address of [autoconfig] answers")
	}
	if s.byPassword("") == nil {
		l.add("_autodiscover._tcp.", "SRV", fmt.Sprintf("0 0 %d %s", portOf(s.URL), host), "Outlook", "")
		if !s.Proxied && covers(AutodiscoverPrefix+domain) {
			point(AutodiscoverPrefix, "Outlook, without a question before", "")
		}
	}
	if document, err := s.PACC(); err == nil {
		point(PACCPrefix, paccReaders, "PACC does not work without it")
		l.add("_ua-auto-config.", "TXT", PACCDigest(document), paccReaders,
			"it changes with [autoconfig] and the listeners")
	}
	return l.all
}

const paccReaders = "PACC (Apple, Evolution and others)"

// list is the records of a domain.
type list struct {
	domain string
	all    []Record
}

func (l *list) add(prefix, kind, value, reader, note string) {
	l.all = append(l.all, Record{prefix + l.domain, kind, value, reader, note})
}

// noteOfName says whether the certificate is for a name that a record leads here.
func (s *Setup) noteOfName(name, without string, covers func(string) bool) string {
	switch {
	case s.Proxied:
		return "the web server's certificate must cover " + name
	case covers(name):
		return ""
	}
	return "the certificate does not cover " + name + "; " + without
}

func (s *Setup) servers() []Server {
	if s.Incoming == nil {
		return s.Outgoing
	}
	return append(append([]Server{}, s.Outgoing...), *s.Incoming)
}

// serviceOf is the service of a server (RFC 6186 §3, RFC 8314 §5.1).
func serviceOf(s Server) string {
	name := cmp.Or(map[string]string{"smtp": "submission"}[s.Protocol], s.Protocol)
	if s.TLS == config.Implicit {
		name += "s"
	}
	return "_" + name + "._tcp."
}

func portOf(u *url.URL) int {
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		return 443
	}
	return port
}
