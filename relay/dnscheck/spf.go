package dnscheck

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"

	spf "blitiri.com.ar/go/spf"
	"github.com/miekg/dns"
)

// spfCheck judges the SPF record of the domain, and what it says of senders.
type spfCheck struct {
	o    *Options
	see  *sight
	tell *notes

	known  bool   // whether there is one, and which, could be found out
	record string // "" without, or with several
	walk   *spfWalk
	usable bool     // receivers can evaluate it
	found  []string // all records that begin with v=spf1
}

// check judges the record itself. Whether it lets the senders through is judged with each of them.
func (c *spfCheck) check() {
	texts, err := c.see.texts(c.o.Domain)
	if err != nil {
		c.see.failed(c.o.Domain, err)
		return
	}
	c.known = true
	for _, text := range texts {
		if isSPF(text) {
			c.found = append(c.found, text)
		} else if looksLikeSPF(text) {
			c.tell.note("spf-unreadable", "A TXT record of %s looks like SPF, but receivers do not see it: %q.",
				c.o.Domain, clean(text))
		}
	}
	switch len(c.found) {
	case 0:
		if slices.ContainsFunc(c.o.Senders, func(s Sender) bool { return s.ReturnPath != PathReplaced }) {
			c.tell.note("spf-none", "%s has no SPF record.", c.o.Domain)
		} else {
			c.tell.note("spf-absent", "%s has no SPF record, and its mail passes without one.", c.o.Domain)
		}
		return
	case 1:
	default:
		c.tell.note("spf-several", "%s has %d SPF records; only one is allowed.", c.o.Domain, len(c.found))
		return
	}
	c.record = c.found[0]
	if len(c.record) > spfLongest {
		c.tell.note("spf-long", "The SPF record of %s has %d characters, more than %d.", c.o.Domain, len(c.record),
			spfLongest)
	}
	r, err := parseSPF(c.record)
	if err != nil {
		c.tell.note("spf-syntax", "The SPF record of %s has a mistake: %s.", c.o.Domain, clean(err.Error()))
		return
	}
	c.usable = true
	c.walk = c.walkOf(c.o.Domain, r)
	c.judgeTerms(r)
	c.judgeWalk()
}

// judgeTerms finds terms that are allowed and unwise.
func (c *spfCheck) judgeTerms(r spfRecord) {
	all, redirect := -1, false
	for i, t := range r.terms {
		if t.modifier {
			redirect = redirect || t.name == "redirect"
			continue
		}
		if all >= 0 {
			c.tell.note("spf-after-all", "In the SPF record of %s, %q stands behind %q and is never read.", c.o.Domain,
				t.text, r.terms[all].text)
			continue
		}
		switch t.name {
		case "all":
			all = i
			c.judgeAll(t)
		case "ptr":
			c.tell.note("spf-ptr", "The SPF record of %s uses %q.", c.o.Domain, t.text)
		case "ip4", "ip6":
			least := 16
			if t.name == "ip6" {
				least = 32
			}
			if t.prefix.Bits() < least && t.qualifier == '+' {
				c.tell.note("spf-wide", "The SPF record of %s lets a huge network send: %q.", c.o.Domain, t.text)
			}
		}
	}
	switch {
	case all < 0 && !redirect:
		c.tell.note("spf-no-all", "The SPF record of %s does not end with ~all or -all.", c.o.Domain)
	case all >= 0 && redirect:
		c.tell.note("spf-redirect-ignored", "The SPF record of %s has redirect= beside %q; redirect= is then not used.",
			c.o.Domain, r.terms[all].text)
	}
}

func (c *spfCheck) judgeAll(t term) {
	switch t.qualifier {
	case '+':
		c.tell.note("spf-plus-all", "The SPF record of %s lets the whole world send in its name: %q.", c.o.Domain,
			t.text)
	case '?':
		c.tell.note("spf-neutral-all", "The SPF record of %s ends with %q, which says nothing about strangers.",
			c.o.Domain, t.text)
	}
}

// judgeWalk tells what breaks the evaluation at receivers.
func (c *spfCheck) judgeWalk() {
	w := c.walk
	for _, f := range w.faults {
		switch f.code {
		case "spf-loop":
			c.tell.note(f.code, "The SPF record of %s leads in a circle: %q comes back to %s.", c.o.Domain, f.term,
				f.detail)
		case "spf-include-none":
			c.tell.note(f.code, "The SPF record of %s refers to %q, and %s has no SPF record.", c.o.Domain, f.term,
				f.detail)
		case "spf-include-broken":
			c.tell.note(f.code, "The SPF record of %s refers to %q, whose own record is broken: %s.", c.o.Domain,
				f.term, f.detail)
		case "spf-mx-many":
			c.tell.note(f.code, "%q in the SPF of %s stands for more than %d mail servers.", f.term, c.o.Domain,
				spfHosts)
		default:
			c.tell.note(f.code, "%q in the SPF of %s could not be looked up: %s.", f.term, c.o.Domain, f.detail)
			continue
		}
		c.usable = false
	}
	switch n := w.lookups; {
	case n >= walkLookups:
		c.tell.note("spf-lookups", "The SPF record of %s needs %d DNS look-ups or more; %d are allowed.", c.o.Domain, n,
			spfLookups)
	case n > spfLookups:
		c.tell.note("spf-lookups", "The SPF record of %s needs %d DNS look-ups; %d are allowed.", c.o.Domain, n,
			spfLookups)
	case n == spfLookups:
		c.tell.note("spf-lookups-near", "The SPF record of %s needs all %d DNS look-ups that are allowed.", c.o.Domain,
			n)
	}
	if len(w.void) > spfVoid {
		c.tell.note("spf-void", "The SPF record of %s names %d things that do not exist: %s.", c.o.Domain, len(w.void),
			joined(w.void))
	}
}

// spfVerdict is what SPF says of a sender.
type spfVerdict uint8

const (
	spfUnknown spfVerdict = iota
	spfPass
	spfFail
	spfElsewhere // SPF is judged by a domain of the provider
)

// of evaluates the record for a sender: by its addresses where these are known, else by those that its provider's
// include lets through.
func (c *spfCheck) of(s Sender) (spfVerdict, string) {
	switch {
	case s.ReturnPath == PathReplaced:
		return spfElsewhere, s.Provider + " puts its own address into the envelope, so SPF says nothing about " +
			c.o.Domain
	case !c.known:
		return spfUnknown, "SPF could not be looked up"
	case len(s.Addresses) > 0:
		return c.ofAddresses(s)
	case s.Include == "":
		return spfUnknown, "it is not known from which addresses " + s.Provider + " sends"
	case c.record == "":
		return spfFail, "there is no valid SPF record"
	}
	return c.ofInclude(s)
}

func (c *spfCheck) ofAddresses(s Sender) (spfVerdict, string) {
	if c.record == "" {
		return spfFail, "there is no valid SPF record"
	}
	for _, addr := range s.Addresses {
		result, err := c.evaluate(addr)
		switch result {
		case spf.Pass:
			continue
		case spf.TempError:
			return spfUnknown, "SPF could not be evaluated"
		case spf.PermError:
			return spfFail, "the SPF record cannot be evaluated: " + reason(err)
		}
		c.tell.note("spf-address-missing", "The SPF record of %s does not let %s send, from which %s sends.",
			c.o.Domain, addr, s.Name)
		return spfFail, addr.String() + " is not in the SPF record"
	}
	return spfPass, "SPF lets its addresses send"
}

// samples of a provider's networks are evaluated.
const samples = 6

// ofInclude takes addresses of the provider's own record and evaluates ours for them. Where that names none, it is
// enough that ours refers to it.
func (c *spfCheck) ofInclude(s Sender) (spfVerdict, string) {
	missing := func() (spfVerdict, string) {
		if c.usable {
			c.tell.note("spf-include-missing", "The SPF record of %s does not let %s send.", c.o.Domain, s.Provider)
		}
		return spfFail, "include:" + s.Include + " is not in the SPF record"
	}
	direct := c.walk != nil && slices.Contains(c.walk.visited, bare(canonical(s.Include)))
	addresses, err := c.sampleOf(s.Include)
	if k := kindOf(err); k != "" && k != NXDomain && k != Dangling {
		return spfUnknown, "the SPF record of " + s.Provider + " could not be looked up"
	}
	if len(addresses) == 0 {
		switch {
		case direct && c.usable && c.walk.lookups <= spfLookups:
			return spfPass, "the SPF record includes " + s.Include
		case direct:
			return spfFail, "the SPF record includes " + s.Include + ", but cannot be evaluated"
		}
		return missing()
	}
	for _, addr := range addresses {
		result, err := c.evaluate(addr)
		switch result {
		case spf.Pass:
		case spf.TempError:
			return spfUnknown, "SPF could not be evaluated"
		case spf.PermError:
			return spfFail, "the SPF record cannot be evaluated: " + reason(err)
		default:
			return missing()
		}
	}
	return spfPass, "SPF lets " + s.Provider + " send"
}

// sampleOf returns addresses that a domain's SPF record lets send.
func (c *spfCheck) sampleOf(domain string) ([]netip.Addr, error) {
	texts, err := c.see.texts(domain)
	i := slices.IndexFunc(texts, isSPF)
	if err != nil || i < 0 {
		return nil, err
	}
	r, err := parseSPF(texts[i])
	if err != nil {
		return nil, nil
	}
	networks := c.walkOf(domain, r).networks
	var list []netip.Addr
	for i := range min(samples, len(networks)) {
		addr := networks[i*len(networks)/min(samples, len(networks))].Masked().Addr()
		list = append(list, addr)
	}
	return list, nil
}

// evaluate asks the SPF library, as a receiver would, about mail from an address.
func (c *spfCheck) evaluate(addr netip.Addr) (spf.Result, error) {
	return spf.CheckHostWithSender(net.IP(addr.Unmap().AsSlice()), c.o.Domain, "postmaster@"+c.o.Domain,
		spf.WithContext(c.see.ctx), spf.WithResolver(spfResolver{c}))
}

// reason says for people why SPF cannot be evaluated.
func reason(err error) string {
	switch {
	case errors.Is(err, spf.ErrLookupLimitReached):
		return "more than ten DNS look-ups"
	case errors.Is(err, spf.ErrVoidLookupLimitReached):
		return "more than two look-ups of things that do not exist"
	case err == nil:
		return "no reason is given"
	}
	return clean(err.Error())
}

// spfResolver answers the SPF library's questions. Its errors are those that the library knows.
type spfResolver struct{ c *spfCheck }

func (r spfResolver) LookupTXT(_ context.Context, name string) ([]string, error) {
	texts, err := r.c.see.texts(name)
	return texts, netError(name, err, len(texts))
}

func (r spfResolver) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	a, err := r.c.see.s.resolve(ctx, name, dns.TypeMX)
	var list []*net.MX
	for _, rr := range a.Records {
		mx := rr.(*dns.MX)
		list = append(list, &net.MX{Host: mx.Mx, Pref: mx.Preference})
	}
	return list, netError(name, err, len(list))
}

func (r spfResolver) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	var list []net.IPAddr
	for _, addr := range r.c.see.s.addresses(ctx, host) {
		list = append(list, net.IPAddr{IP: addr.AsSlice()})
	}
	_, err := r.c.see.s.resolve(ctx, host, dns.TypeA)
	if len(list) > 0 {
		err = nil
	}
	return list, netError(host, err, len(list))
}

func (r spfResolver) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	ip, err := netip.ParseAddr(strings.TrimSuffix(addr, "."))
	if err != nil {
		return nil, &net.DNSError{Err: "not an address", Name: addr, IsNotFound: true}
	}
	names, err := r.c.see.s.namesOf(ctx, ip)
	return names, netError(addr, err, len(names))
}

// netError is what package net would return.
func netError(name string, err error, answers int) error {
	k := kindOf(err)
	switch {
	case k == "" && answers > 0:
		return nil
	case k == "", k == NXDomain, k == Dangling:
		return &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return &net.DNSError{Err: string(k), Name: name, IsTemporary: true, IsTimeout: k == Timeout}
}
