package dnscheck

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// sight is how a check looks at DNS.
type sight struct {
	o    *Options
	ctx  context.Context // of the check
	s    *session
	tell *notes
}

// look returns what the world sees of a name: what the servers of its zone say, and what the resolver says where they
// cannot be asked. Where these differ, a finding says so. What the resolver calls broken is broken for the world too.
func (c *sight) look(name string, qtype uint16) (Answer, error) {
	mine, mineErr := c.s.resolve(c.ctx, name, qtype)
	said, _ := c.s.authoritative(c.ctx, name, qtype)
	good := c.speakers(said, mineErr)
	switch {
	case len(good) == 0, kindOf(mineErr) == ServFail, kindOf(mineErr) == CNAMELoop, kindOf(mineErr) == CNAMELong:
		return mine, mineErr
	}
	c.compareServers(name, good)
	c.compare(name, mine, mineErr, good[0])
	theirs, err := good[0].Answer, good[0].Err
	if err == nil && len(theirs.Records) == 0 && len(theirs.Chain) > 0 { // it leads out of the zone
		target := theirs.Chain[len(theirs.Chain)-1]
		end, endErr := c.s.resolve(c.ctx, target, qtype)
		end.Chain = append(slices.Clone(theirs.Chain), end.Chain...)
		if kindOf(endErr) == NXDomain {
			endErr = &Error{Kind: Dangling, Name: name, Type: dns.TypeToString[qtype], Chain: end.Chain}
		}
		return end, endErr
	}
	return theirs, err
}

// speakers are the servers that answered for their zone. What is wrong with the others is told.
func (c *sight) speakers(said []Said, mineErr error) []Said {
	var good, lame, silent []Said
	for _, s := range said {
		switch kindOf(s.Err) {
		case "", NXDomain:
			good = append(good, s)
		case Lame, ServFail:
			lame = append(lame, s)
		case Exhausted:
			c.failed(c.o.Domain, s.Err)
		default:
			if !ourTrouble(s.Err) {
				silent = append(silent, s)
			}
		}
	}
	switch {
	case len(said) == 0:
	case len(good) > 0:
		for _, s := range lame {
			c.tell.note("dns-lame", "%s is named as a name server of %s, but does not know the domain.",
				clean(s.Server), c.o.Domain)
		}
		for _, s := range silent {
			c.tell.note("dns-server-silent", "%s, a name server of %s, does not answer.", clean(s.Server), c.o.Domain)
		}
	case len(lame) == len(said):
		c.tell.note("dns-lame-all", "No name server that is named for %s knows the domain: %s.", c.o.Domain,
			joined(serverNames(said)))
	case mineErr == nil || kindOf(mineErr) == NXDomain:
		c.tell.note("dns-authority-unreachable", "The name servers of %s could not be asked from here: %s.", c.o.Domain,
			joined(serverNames(said)))
	}
	return good
}

// ourTrouble reports that a server has an address and there is no way from here, such as to IPv6 without having it.
func ourTrouble(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Kind == Unreachable && e.Err != nil
}

func serverNames(said []Said) []string {
	var names []string
	for _, s := range said {
		names = append(names, s.Server)
	}
	return names
}

// compareServers tells where the servers of a zone contradict each other.
func (c *sight) compareServers(name string, good []Said) {
	for _, other := range good[1:] {
		if fingerprint(other.Answer, other.Err) != fingerprint(good[0].Answer, good[0].Err) {
			c.tell.note("dns-servers-differ", "The name servers of %s do not say the same: %s and %s differ about %s.",
				c.o.Domain, clean(good[0].Server), clean(other.Server), clean(bare(name)))
			return
		}
	}
}

// compare tells where the resolver says something else than the zone. A resolver that calls itself authoritative has
// the zone of its own, as a Windows domain controller does; any other has an old answer.
func (c *sight) compare(name string, mine Answer, mineErr error, theirs Said) {
	k := kindOf(mineErr)
	if k != "" && k != NXDomain && k != Dangling {
		c.failed(name, mineErr)
		return
	}
	if fingerprint(mine, mineErr) == fingerprint(theirs.Answer, theirs.Err) {
		return
	}
	name = clean(bare(name))
	if mine.Authoritative {
		c.tell.note("dns-split-horizon", "Your own DNS server answers for %s differently from what the world sees.",
			name)
		return
	}
	ttl := time.Duration(0)
	if mineErr == nil && len(mine.Records) > 0 {
		ttl = time.Duration(mine.TTL) * time.Second
	}
	wait := "up to some hours"
	if ttl > 0 {
		wait = ttl.Round(time.Second).String()
	}
	c.tell.note("dns-stale", "%s was changed, but the resolver %s still has the old answer, for another %s.", name,
		clean(mine.Server), wait)
}

// fingerprint is what must be equal in two answers: where the first CNAME leads, or else the data of the records.
func fingerprint(a Answer, err error) string {
	if len(a.Chain) > 0 {
		return "CNAME " + a.Chain[0]
	}
	if err != nil {
		return string(kindOf(err))
	}
	var parts []string
	for _, rr := range a.Records {
		if txt, ok := rr.(*dns.TXT); ok {
			parts = append(parts, text(txt))
			continue
		}
		parts = append(parts, strings.ToLower(strings.TrimPrefix(rr.String(), rr.Header().String())))
	}
	slices.Sort(parts)
	return strings.Join(parts, "\n")
}

// failed tells why a name could not be looked up.
func (c *sight) failed(name string, err error) {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		e = &Error{Kind: Unreachable}
	}
	name = clean(bare(name))
	server := cmp.Or(clean(e.Server), "the resolver")
	switch e.Kind {
	case ServFail:
		c.tell.note("dns-servfail", "The resolver %s cannot look up %s: it answers SERVFAIL.", server, name)
	case Refused:
		c.tell.note("dns-refused", "The resolver %s refuses to look up %s.", server, name)
	case Timeout:
		c.tell.note("dns-timeout", "The resolver %s does not answer when it is asked for %s.", server, name)
	case Truncated:
		c.tell.note("dns-truncated", "The answer of %s about %s is too long for one packet, and asking by TCP does "+
			"not work.", server, name)
	case CNAMELoop:
		c.tell.note("dns-cname-loop", "The CNAME records of %s lead in a circle.", name)
	case CNAMELong:
		c.tell.note("dns-cname-long", "More than %d CNAME records stand in a row behind %s.", maxChain, name)
	case Dangling:
		c.tell.note("dns-dangling", "%s is a CNAME to %s, which does not exist.", name, joined(e.Chain))
	case Exhausted:
		c.tell.note("dns-exhausted", "The DNS of %s needs more than %d questions; not all of it was looked up.",
			c.o.Domain, maxQuestions)
	case Malformed:
		c.tell.note("dns-malformed", "The resolver %s answers about %s with something that is not DNS.", server, name)
	default:
		c.tell.note("dns-unreachable", "No resolver could be reached to look up %s.", name)
	}
}

// texts returns the TXT records of a name; of the checked domain, those that the world sees.
func (c *sight) texts(name string) ([]string, error) {
	if bare(canonical(name)) == c.o.Domain {
		a, err := c.look(c.o.Domain, dns.TypeTXT)
		return a.Texts(), err
	}
	a, err := c.s.resolve(c.ctx, name, dns.TypeTXT)
	return a.Texts(), err
}

// lookup is texts for go-msgauth, which has no context to give.
func (c *sight) lookup(name string) ([]string, error) {
	a, err := c.look(name, dns.TypeTXT)
	return a.Texts(), err
}
