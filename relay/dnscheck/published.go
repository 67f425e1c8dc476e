package dnscheck

import (
	"context"
	"net/netip"

	"github.com/miekg/dns"
)

// Published is what stands in DNS under a DKIM selector.
type Published struct {
	Name        string   // of the record
	Resolver    []string // TXT records, each with its strings joined, as the resolver has them
	ResolverErr error    // *Error; nil where there is an answer, also that there is nothing
	Zone        []Served // as the servers of the zone have them
	ZoneErr     error    // *Error: they could not be found
}

// Served is what one server of a zone has.
type Served struct {
	Server string
	Texts  []string
	CNAME  string // where the name leads; Texts are then empty unless the server has that name too
	Err    error  // *Error; nil where there is an answer, also that there is nothing
}

// Published asks for the record of a DKIM key, at the resolver and at every server of its zone: a key that not all of
// them have is not seen by the whole world yet. It asks at most 300 questions and ends with the context.
func (r *Resolver) Published(ctx context.Context, domain, selector string) Published {
	s := r.begin()
	p := Published{Name: selector + "._domainkey." + domain}
	a, err := s.resolve(ctx, p.Name, dns.TypeTXT)
	p.Resolver, p.ResolverErr = a.Texts(), missingIsEmpty(err)
	said, err := s.authoritative(ctx, p.Name, dns.TypeTXT)
	p.ZoneErr = err
	for _, one := range said {
		served := Served{Server: one.Server, Texts: one.Answer.Texts(), Err: missingIsEmpty(one.Err)}
		if len(one.Answer.Chain) > 0 {
			served.CNAME = bare(one.Answer.Chain[0])
		}
		p.Zone = append(p.Zone, served)
	}
	return p
}

// Addresses returns the addresses of a host, IPv4 first; none if it has none, or they cannot be found.
func (r *Resolver) Addresses(ctx context.Context, host string) []netip.Addr {
	return r.begin().addresses(ctx, canonical(host))
}

func missingIsEmpty(err error) error {
	if k := kindOf(err); k == NXDomain || k == Dangling {
		return nil
	}
	return err
}

// HasKey reports whether a published record holds the key of an expected one and lets it sign mail.
func HasKey(published []string, expected string) bool {
	if len(published) != 1 {
		return false
	}
	code, _ := judgeKey(published[0], expected)
	return code == ""
}

// Everywhere reports whether the key of an expected record is seen at the resolver and at every server of the zone that
// answers. Where no server could be asked, the resolver decides. A server that leads on by CNAME is believed.
func (p Published) Everywhere(expected string) bool {
	if !HasKey(p.Resolver, expected) {
		return false
	}
	for _, s := range p.Zone {
		if s.Err == nil && s.CNAME == "" && !HasKey(s.Texts, expected) {
			return false
		}
	}
	return true
}
