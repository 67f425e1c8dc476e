package dnscheck

import (
	"cmp"
	"context"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// hostCheck judges the servers that get replies, and our own addresses.
type hostCheck struct {
	o       *Options
	see     *sight
	tell    *notes
	replies bool // they find a mail server
}

// checkMX looks whether replies and bounces can come back.
func (c *hostCheck) checkMX() {
	a, err := c.see.look(c.o.Domain, dns.TypeMX)
	if err != nil {
		c.see.failed(c.o.Domain, err)
		return
	}
	if len(a.Records) == 0 {
		if len(c.see.s.addresses(c.see.ctx, c.o.Domain)) > 0 { // RFC 5321 §5.1
			c.tell.note("mx-implicit", "%s has no MX record; mail to it goes to the address of its web site.",
				c.o.Domain)
		} else {
			c.tell.note("mx-none", "%s has no MX record, so nobody can write to it.", c.o.Domain)
		}
		return
	}
	working := 0
	for i, rr := range a.Records {
		if i == maxServers*2 {
			break
		}
		if c.checkHost(rr.(*dns.MX), len(a.Records)) {
			working++
		}
	}
	c.replies = working > 0
	if working == 0 && !c.tell.told["mx-null"] {
		c.tell.note("mx-dead", "No mail server that is named for %s exists, so nobody can write to it.", c.o.Domain)
	}
}

// checkHost looks at one mail server of the domain.
func (c *hostCheck) checkHost(mx *dns.MX, of int) bool {
	host := bare(canonical(mx.Mx))
	if host == "" { // RFC 7505
		if of > 1 {
			c.tell.note("mx-null-mixed", "%s has the MX record \".\", which says that it takes no mail, beside others.",
				c.o.Domain)
		} else {
			c.tell.note("mx-null", "%s says by its MX record \".\" that it takes no mail.", c.o.Domain)
		}
		c.tell.told["mx-null"] = true
		return false
	}
	if _, err := netip.ParseAddr(host); err == nil {
		c.tell.note("mx-address", "The MX record of %s is an address (%s) instead of a name.", c.o.Domain, host)
		return false
	}
	a, err := c.see.s.resolve(c.see.ctx, host, dns.TypeA)
	if len(a.Chain) > 0 {
		c.tell.note("mx-cname", "The mail server %s of %s is a CNAME.", clean(host), c.o.Domain)
	}
	if len(c.see.s.addresses(c.see.ctx, host)) > 0 {
		return true
	}
	if k := kindOf(err); k != "" && k != NXDomain && k != Dangling {
		c.see.failed(host, err)
		return true // nobody knows
	}
	c.tell.note("mx-unresolvable", "The mail server %s of %s has no address.", clean(host), c.o.Domain)
	return false
}

// checkAddresses looks at our own addresses, where the next server judges mail by them.
func (c *hostCheck) checkAddresses() {
	seen := map[netip.Addr]bool{}
	for _, s := range c.o.Senders {
		if !s.Direct {
			continue
		}
		if len(s.Own) == 0 {
			c.tell.note("address-unknown", "Upstream %s judges mail by the public address of this server, which is "+
				"not known.", s.Name)
		}
		for _, addr := range s.Own {
			if !seen[addr] && len(seen) < maxServers {
				seen[addr] = true
				c.checkName(addr)
				c.checkBlocklists(addr)
			}
		}
	}
}

// namesOf returns the names of an address.
func (s *session) namesOf(ctx context.Context, addr netip.Addr) ([]string, error) {
	name, err := dns.ReverseAddr(addr.String())
	if err != nil {
		return nil, err
	}
	a, err := s.resolve(ctx, name, dns.TypePTR)
	var names []string
	for _, rr := range a.Records {
		names = append(names, canonical(rr.(*dns.PTR).Ptr))
	}
	return names, err
}

// checkName looks whether the name of an address leads back to it.
func (c *hostCheck) checkName(addr netip.Addr) {
	names, err := c.see.s.namesOf(c.see.ctx, addr)
	if k := kindOf(err); k != "" && k != NXDomain && k != Dangling {
		c.see.failed(addr.String(), err)
		return
	}
	if len(names) == 0 {
		c.tell.note("ptr-missing", "The address %s, from which we send, has no name in DNS (PTR).", addr)
		return
	}
	confirmed := ""
	for i, name := range names {
		if i == maxServers {
			break
		}
		for _, back := range c.see.s.addresses(c.see.ctx, name) {
			if back == addr {
				confirmed = bare(name)
			}
		}
	}
	switch {
	case confirmed == "":
		c.tell.note("ptr-unconfirmed", "The address %s has the name %s, but that name does not lead back to it.", addr,
			joined(names))
	case c.o.Hostname != "" && !strings.EqualFold(confirmed, c.o.Hostname):
		c.tell.note("ptr-hostname", "Postern greets as %s, but its address %s is called %s.", clean(c.o.Hostname), addr,
			clean(confirmed))
	}
}

// checkBlocklists asks the blocklists for an address (RFC 5782).
func (c *hostCheck) checkBlocklists(addr netip.Addr) {
	reverse, err := dns.ReverseAddr(addr.String())
	if err != nil {
		return
	}
	for _, suffix := range []string{"in-addr.arpa.", "ip6.arpa."} {
		reverse = strings.TrimSuffix(reverse, suffix)
	}
	for _, list := range c.o.Blocklists {
		a, err := c.see.s.resolve(c.see.ctx, reverse+list, dns.TypeA)
		if k := kindOf(err); k != "" && k != NXDomain {
			c.tell.note("dnsbl-unavailable", "The blocklist %s could not be asked.", list)
			continue
		}
		for _, rr := range a.Records {
			if host, ok := rr.(*dns.A); ok {
				if code, ok := netip.AddrFromSlice(host.A.To4()); ok {
					c.judgeListing(addr, list, code)
				}
			}
		}
	}
}

// judgeListing reads what a blocklist answers; the codes are those of Spamhaus, which others follow.
func (c *hostCheck) judgeListing(addr netip.Addr, list string, code netip.Addr) {
	four := code.As4()
	refusals := map[byte]string{252: "the name of the list is mistyped",
		254: "the question came by a public resolver", 255: "too many questions were asked"}
	switch {
	case four[0] == 127 && four[1] == 255 && four[2] == 255:
		c.tell.note("dnsbl-refused", "The blocklist %s does not answer us: %s (%s).", list,
			cmp.Or(refusals[four[3]], "it gives an error"), code)
	case code == netip.AddrFrom4([4]byte{127, 0, 0, 10}), code == netip.AddrFrom4([4]byte{127, 0, 0, 11}):
		c.tell.note("dnsbl-policy", "The address %s is on the list %s of addresses that should not send mail "+
			"themselves (%s).", addr, list, code)
	case four[0] != 127:
		c.tell.note("dnsbl-broken", "The blocklist %s answers with %s, which is no listing: somebody changes DNS "+
			"answers.", list, code)
	default:
		c.tell.note("dnsbl-listed", "The address %s is on the blocklist %s (%s).", addr, list, code)
	}
}
