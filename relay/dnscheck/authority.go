package dnscheck

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// zone is who answers for a part of DNS.
type zone struct {
	apex    string
	servers []authority
	err     error // of the search for them
}

// authority is one server of a zone.
type authority struct {
	name string
	addr netip.AddrPort // not valid: its name has no address
}

// zoneOf finds the zone that a name is in, and its servers.
func (s *session) zoneOf(ctx context.Context, name string) zone {
	name = canonical(name)
	var err error
	for at := name; at != "" && at != "."; _, at, _ = strings.Cut(at, ".") {
		s.mu.Lock()
		known, ok := s.zones[at]
		s.mu.Unlock()
		if ok {
			return known
		}
		var a Answer
		a, err = s.resolveOnce(ctx, at, dns.TypeSOA)
		if kindOf(err) == ServFail && strings.Contains(bare(at), ".") {
			return s.delegation(ctx, at, err)
		}
		if k := kindOf(err); k != "" && k != NXDomain {
			return zone{err: err}
		}
		apex := a.zone
		if len(a.Records) > 0 && len(a.Chain) == 0 {
			apex = at
		}
		if apex != "" && apex != "." && dns.IsSubDomain(apex, name) {
			z := s.serversOf(ctx, apex)
			s.mu.Lock()
			s.zones[apex] = z
			s.mu.Unlock()
			return z
		}
	}
	return zone{err: err}
}

// serversOf finds the addresses of a zone's servers, IPv4 first: not every office has IPv6.
func (s *session) serversOf(ctx context.Context, apex string) zone {
	z := zone{apex: apex}
	a, err := s.resolve(ctx, apex, dns.TypeNS)
	if err != nil {
		z.err = err
		return z
	}
	var names []string
	for _, rr := range a.Records {
		names = append(names, canonical(rr.(*dns.NS).Ns))
	}
	return s.located(ctx, z, names)
}

// delegation asks the zone above which servers a domain has, where the resolver gets no answer from any of them: that
// they are the wrong ones is the usual reason.
func (s *session) delegation(ctx context.Context, domain string, why error) zone {
	_, parent, _ := strings.Cut(domain, ".")
	for _, server := range s.zoneOf(ctx, parent).servers {
		if !server.addr.IsValid() {
			continue
		}
		a, err := s.ask(ctx, server.addr, domain, dns.TypeNS, false)
		if err == nil && len(a.referral) > 0 {
			z := s.located(ctx, zone{apex: domain}, a.referral)
			s.mu.Lock()
			s.zones[domain] = z
			s.mu.Unlock()
			return z
		}
	}
	return zone{err: why}
}

// located adds the servers of a zone with their addresses.
func (s *session) located(ctx context.Context, z zone, names []string) zone {
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if len(z.servers) == maxServers {
			break
		}
		server := authority{name: bare(name)}
		for _, addr := range s.addresses(ctx, name) {
			if s.mayVisit(addr) {
				server.addr = netip.AddrPortFrom(addr, cmp.Or(s.r.AuthorityPort, 53))
				break
			}
		}
		z.servers = append(z.servers, server)
	}
	return z
}

// mayVisit keeps a zone from sending us to services of this machine.
func (s *session) mayVisit(addr netip.Addr) bool {
	if s.r.AuthorityPort != 0 {
		return true
	}
	return !addr.IsLoopback() && !addr.IsUnspecified() && !addr.IsMulticast() && !addr.IsLinkLocalUnicast()
}

// addresses returns the addresses of a host, IPv4 first, none if it has none or they cannot be found.
func (s *session) addresses(ctx context.Context, host string) []netip.Addr {
	var list []netip.Addr
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		a, _ := s.resolve(ctx, host, qtype)
		for _, rr := range a.Records {
			switch rr := rr.(type) {
			case *dns.A:
				if addr, ok := netip.AddrFromSlice(rr.A); ok {
					list = append(list, addr.Unmap())
				}
			case *dns.AAAA:
				if addr, ok := netip.AddrFromSlice(rr.AAAA); ok {
					list = append(list, addr)
				}
			}
		}
	}
	return list
}

// Said is what one server of a zone says.
type Said struct {
	Server string // its name
	Answer Answer
	Err    error
}

// authoritative asks every server of the zone that a name is in.
func (s *session) authoritative(ctx context.Context, name string, qtype uint16) ([]Said, error) {
	z := s.zoneOf(ctx, name)
	if len(z.servers) == 0 {
		return nil, z.err
	}
	name = canonical(name)
	var all []Said
	for _, server := range z.servers {
		said := Said{Server: server.name}
		if !server.addr.IsValid() {
			said.Err = &Error{Kind: Unreachable, Name: name, Type: dns.TypeToString[qtype], Server: server.name}
		} else {
			said.Answer, said.Err = s.remembered(question{server.addr.String(), name, qtype}, func() (Answer, error) {
				return s.askAuthority(ctx, server, name, qtype)
			})
		}
		all = append(all, said)
	}
	return all, nil
}

// askAuthority asks a server of a zone; one that does not speak for the zone is lame (RFC 1912 §2.8).
func (s *session) askAuthority(ctx context.Context, server authority, name string, qtype uint16) (Answer, error) {
	a, err := s.ask(ctx, server.addr, name, qtype, false)
	k := kindOf(err)
	if k == Refused || (k == "" || k == NXDomain) && !a.Authoritative {
		err = &Error{Kind: Lame, Name: name, Type: dns.TypeToString[qtype], Server: server.name, Err: err}
	}
	return a, err
}
