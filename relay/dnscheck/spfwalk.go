package dnscheck

import (
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// Bounds of RFC 7208 §4.6.4, and ours of a walk that is over them anyway.
const (
	spfLookups  = 10 // terms that ask DNS
	spfVoid     = 2  // of them without an answer
	spfHosts    = 10 // hosts of one mx
	spfLongest  = 512
	walkLookups = 40
)

// spfWalk counts what the evaluation of an SPF record may ask, in the worst case: every term of every record that it
// refers to. Receivers stop at the first term that matches, so a sender at the end of a record meets this worst case.
type spfWalk struct {
	fetch   func(domain string) ([]string, error) // TXT records
	resolve func(domain string, qtype uint16) (Answer, error)

	lookups  int
	void     []string // terms without an answer
	visited  []string // domains whose records count
	networks []netip.Prefix
	macros   bool // something depends on the address or the sender, and was not followed
	faults   []spfFault
}

// spfFault is a fault of a record that ours refers to.
type spfFault struct {
	code   string
	term   string // of which record, for a sentence
	detail string
}

func (w *spfWalk) fault(code, term, detail string) {
	w.faults = append(w.faults, spfFault{code, clean(term), clean(detail)})
}

// walk counts the terms of one record. path are the domains that led here.
func (w *spfWalk) walk(domain string, r spfRecord, path []string) {
	w.visited = append(w.visited, domain)
	path = append(slices.Clone(path), domain)
	redirect := ""
	all := false
	for _, t := range r.terms {
		if w.lookups >= walkLookups {
			return
		}
		switch {
		case t.modifier && t.name == "redirect":
			redirect = t.value
		case t.modifier:
		case t.name == "all":
			all = true
		case t.name == "ip4" || t.name == "ip6":
			if t.qualifier == '+' {
				w.networks = append(w.networks, t.prefix)
			}
		case t.name == "include":
			w.lookups++
			w.follow(t.text, t.value, path)
		default:
			w.lookups++
			w.hosts(domain, t)
		}
	}
	if redirect != "" && !all { // RFC 7208 §6.1
		w.lookups++
		w.follow("redirect="+redirect, redirect, path)
	}
}

// follow goes on with the record of another domain.
func (w *spfWalk) follow(term, domain string, path []string) {
	if hasMacro(domain) {
		w.macros = true
		return
	}
	domain = bare(canonical(domain))
	if slices.Contains(path, domain) {
		w.fault("spf-loop", term, domain)
		return
	}
	texts, err := w.fetch(domain)
	if k := kindOf(err); k != "" && k != NXDomain && k != Dangling {
		w.fault("spf-unavailable", term, string(k))
		return
	}
	if err != nil || len(texts) == 0 {
		w.void = append(w.void, term)
	}
	records := slices.DeleteFunc(slices.Clone(texts), func(s string) bool { return !isSPF(s) })
	switch len(records) {
	case 0:
		w.fault("spf-include-none", term, domain)
		return
	case 1:
	default:
		w.fault("spf-include-broken", term, "it has several SPF records")
		return
	}
	r, err := parseSPF(records[0])
	if err != nil {
		w.fault("spf-include-broken", term, err.Error())
		return
	}
	w.walk(domain, r, path)
}

// hosts looks up what a, mx and exists name.
func (w *spfWalk) hosts(domain string, t term) {
	if t.name == "ptr" {
		return
	}
	if hasMacro(t.value) {
		w.macros = true
		return
	}
	if t.value != "" {
		domain = t.value
	}
	qtype := dns.TypeA
	if t.name == "mx" {
		qtype = dns.TypeMX
	}
	a, err := w.resolve(domain, qtype)
	if err == nil && len(a.Records) == 0 && t.name == "a" {
		a, err = w.resolve(domain, dns.TypeAAAA)
	}
	switch k := kindOf(err); {
	case k != "" && k != NXDomain && k != Dangling:
		w.fault("spf-unavailable", t.text, string(k))
	case len(a.Records) == 0:
		w.void = append(w.void, t.text)
	case t.name == "mx" && len(a.Records) > spfHosts:
		w.fault("spf-mx-many", t.text, "")
	}
	for _, rr := range a.Records {
		if host, ok := rr.(*dns.A); ok && t.qualifier == '+' && t.name == "a" {
			if addr, ok := netip.AddrFromSlice(host.A.To4()); ok {
				w.networks = append(w.networks, netip.PrefixFrom(addr, 32))
			}
		}
	}
}

// walkOf walks the record of a domain. Of the checked domain it takes what the world sees.
func (c *spfCheck) walkOf(domain string, r spfRecord) *spfWalk {
	w := &spfWalk{fetch: c.see.texts, resolve: func(name string, qtype uint16) (Answer, error) {
		return c.see.s.resolve(c.see.ctx, name, qtype)
	}}
	w.walk(domain, r, nil)
	return w
}
