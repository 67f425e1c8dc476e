// Package dnscheck looks at what DNS says of a domain whose mail we send, and says what receivers make of it: SPF (RFC
// 7208), DKIM (RFC 6376), DMARC (RFC 9989), MX, the names of addresses that we send from, and blocklists. It asks the
// system's resolver and the servers of the domain's zone, and says where they differ.
//
// Failure semantics: a check always ends with a report, within the deadline of its context and 300 questions. What
// could not be asked is a finding of its own and makes an outcome unknown, never good or bad. What DNS says is hostile:
// answers are bounded (64 records, 8192 octets of a text) and printable in every text of the report. Nothing is
// written anywhere, and nothing is remembered from one check to the next.
package dnscheck

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"postern/mail"
	"postern/relay/finding"
	"postern/relay/sign"
)

// Options are what a check needs to know.
type Options struct {
	Resolver *Resolver // who is asked
	Domain   string    // of header authors, lower case, A-labels
	Keys     []Key     // ours, of the domain and of its parents
	Senders  []Sender  // the ways by which mail of the domain leaves
	Hostname string    // by which we greet, for what is about our own address
	// Blocklists are asked for addresses that receivers see as ours. nil: zen.spamhaus.org.
	Blocklists []string
	ReportTo   string // address for DMARC reports in suggested records; "": postmaster of the domain
	// ForClients are records by which mail programs find their settings: those that do not stand are to be published.
	ForClients []Record
	Now        time.Time
}

// Key is a DKIM key of ours.
type Key struct {
	sign.Key
	Signs bool // mail is signed with it now; others are only looked for
	Waits bool // it will sign once its record is seen
}

// What a provider does to the reverse-path, by whose domain SPF is judged.
const (
	PathKept     = "kept"     // it stays the sender's
	PathReplaced = "replaced" // it becomes one of the provider's, so SPF says nothing of the domain
	PathUnknown  = "unknown"
)

// As whom a provider signs itself.
const (
	SignsDomain   = "domain"   // as the sender's domain, once its records stand in DNS
	SignsProvider = "provider" // as itself, which is not aligned
	SignsNot      = "no"
	SignsUnknown  = "unknown"
)

// Sender is one way by which mail of the domain leaves, an upstream.
type Sender struct {
	Name       string       // of the upstream
	Provider   string       // for people: "Amazon SES"
	Addresses  []netip.Addr // that receivers see, where they are known
	Direct     bool         // the next server judges mail by our own address: direct delivery, a connector by address
	Own        []netip.Addr // that address, as the world sees it; none: not known
	Include    string       // of the domain's SPF record, so that the provider's addresses pass; "": not known
	ReturnPath string       // PathKept, PathReplaced or PathUnknown
	Ours       bool         // we sign, and the signature survives
	Signs      string       // the provider itself: SignsDomain, SignsProvider, SignsNot or SignsUnknown
	Selectors  []Selector   // of the provider's signature, as far as they have fixed names
	OwnDomains []string     // that belong to the provider: it signs for them, and nobody else publishes anything
}

// Selector is a DKIM record that a provider wants in the domain.
type Selector struct {
	Name   string // before ._domainkey
	Target string // of its CNAME; "" where the provider shows it to its customer only
	Usual  bool   // customers may have chosen another name: that it is missing says nothing
}

// Report is what a check found.
type Report struct {
	Domain   string            `json:"domain"`
	Time     time.Time         `json:"time"`
	Outcomes []Outcome         `json:"outcomes"` // one for each sender
	Findings []finding.Finding `json:"findings"` // the heaviest first
	Records  []Record          `json:"records"`  // to publish
}

// Fails reports that mail of the domain fails at an upstream.
func (r *Report) Fails() bool {
	return slices.ContainsFunc(r.Outcomes, func(o Outcome) bool { return o.Verdict == Fails })
}

// check is one check under way: its parts share how they look at DNS and what they tell.
type check struct {
	o        *Options
	see      *sight
	tell     *notes
	dmarc    *dmarcCheck
	spf      *spfCheck
	dkim     *dkimCheck
	hosts    *hostCheck
	outcomes []Outcome
}

func newCheck(ctx context.Context, o *Options) *check {
	tell := &notes{domain: o.Domain, told: map[string]bool{}, findings: []finding.Finding{}, records: []Record{}}
	see := &sight{o: o, ctx: ctx, s: o.Resolver.begin(), tell: tell}
	dmarc := &dmarcCheck{o: o, see: see, tell: tell}
	return &check{o: o, outcomes: []Outcome{}, see: see, tell: tell, dmarc: dmarc, spf: &spfCheck{o: o, see: see,
		tell: tell},
		dkim: &dkimCheck{o: o, see: see, tell: tell, dmarc: dmarc}, hosts: &hostCheck{o: o, see: see, tell: tell}}
}

// Check looks at a domain.
func Check(ctx context.Context, o Options) Report {
	if o.Blocklists == nil {
		o.Blocklists = []string{"zen.spamhaus.org"}
	}
	if o.ReportTo == "" {
		o.ReportTo = "postmaster@" + o.Domain
	}
	c := newCheck(ctx, &o)
	if !c.provided() {
		exists := c.exists()
		if exists {
			c.dmarc.check()
			c.spf.check()
			c.dkim.check()
			c.hosts.checkMX()
			c.hosts.checkAddresses()
		}
		c.decide()
		if exists {
			c.forClients()
		}
		c.tell.attach()
	}
	finding.Sort(c.tell.findings)
	return Report{Domain: o.Domain, Time: o.Now, Outcomes: c.outcomes, Findings: c.tell.findings,
		Records: c.tell.records}
}

// exists finds out whether DNS knows the domain at all.
func (c *check) exists() bool {
	_, err := c.see.look(c.o.Domain, dns.TypeTXT)
	switch kindOf(err) {
	case "":
		return true
	case NXDomain:
		c.tell.note("dns-nxdomain", "There is no domain %s in DNS.", c.o.Domain)
	default:
		c.see.failed(c.o.Domain, err)
	}
	return false
}

// provided ends the check of a domain that belongs to a provider, such as gmail.com.
func (c *check) provided() bool {
	if len(c.o.Senders) == 0 {
		return false
	}
	for _, s := range c.o.Senders {
		if !slices.Contains(s.OwnDomains, c.o.Domain) {
			return false
		}
	}
	for _, s := range c.o.Senders {
		c.conclude(s, ByDKIM, s.Provider+" owns the domain and signs its mail; there is nothing to publish.")
	}
	return true
}

// clean makes what DNS says fit for a text.
func clean(s string) string { return mail.Printable(mail.Cut(s, 200)) }

// joined lists names for a sentence.
func joined(names []string) string {
	shown := names
	if len(shown) > 6 {
		shown = shown[:6]
	}
	var list []string
	for _, name := range shown {
		list = append(list, bare(name))
	}
	text := clean(strings.Join(list, ", "))
	if len(shown) < len(names) {
		text += " and others"
	}
	return text
}
