package dnscheck

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"

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
	s.mu.Lock()
	known, ok := s.zones[name]
	s.mu.Unlock()
	if ok {
		return known
	}
	z := s.findZone(ctx, name)
	s.mu.Lock()
	s.zones[name] = z
	s.mu.Unlock()
	return z
}

// findZone asks for the SOA of a name: the answer, or what stands beside it, names the zone.
func (s *session) findZone(ctx context.Context, name string) zone {
	a, err := s.resolveOnce(ctx, name, dns.TypeSOA)
	apex := a.zone
	if len(a.Records) > 0 && len(a.Chain) == 0 {
		apex = name
	}
	_, above, _ := strings.Cut(name, ".")
	switch k := kindOf(err); {
	case k == ServFail && above != "":
		return s.delegation(ctx, name, err)
	case k != "" && k != NXDomain:
		return zone{err: err}
	case apex == name:
		return s.serversOf(ctx, apex)
	case apex != "" && apex != "." && dns.IsSubDomain(apex, name):
		return s.zoneOf(ctx, apex)
	case above == "":
		return zone{err: err}
	}
	return s.zoneOf(ctx, above)
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
	z := s.zoneOf(ctx, parent)
	for _, server := range z.servers {
		if !server.addr.IsValid() {
			continue
		}
		a, err := s.ask(ctx, server.addr, domain, dns.TypeNS, false)
		k := kindOf(err)
		switch {
		case (k == "" || k == NXDomain) && a.Authoritative:
			return z // the name is in that zone itself
		case k == "" && len(a.referral) > 0:
			return s.located(ctx, zone{apex: domain}, a.referral)
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

// authoritative asks every server of the zone that a name is in, all at once: some may be silent.
func (s *session) authoritative(ctx context.Context, name string, qtype uint16) ([]Said, error) {
	z := s.zoneOf(ctx, name)
	if len(z.servers) == 0 {
		return nil, z.err
	}
	name = canonical(name)
	all := make([]Said, len(z.servers))
	var wg sync.WaitGroup
	for i, server := range z.servers {
		all[i].Server = server.name
		if !server.addr.IsValid() {
			all[i].Err = &Error{Kind: Unreachable, Name: name, Type: dns.TypeToString[qtype], Server: server.name}
			continue
		}
		wg.Go(func() {
			all[i].Answer, all[i].Err = s.remembered(question{server.addr.String(), name, qtype}, func() (Answer,
				error) {
				return s.askAuthority(ctx, server, name, qtype)
			})
		})
	}
	wg.Wait()
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
