// Package domains knows which domains a configuration sends for, and how their mail leaves, so that package dnscheck
// can look at each.
//
// Failure semantics: a key or an account that cannot be read is an error, since a report without it would be wrong.
// What
// DNS does not answer is part of the reports. At most 200 domains are checked, four at a time.
package domains

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"postern/auth"
	"postern/mail"
	"postern/relay/clientsetup"
	"postern/relay/config"
	"postern/relay/dnscheck"
	"postern/relay/outbound"
	"postern/relay/sign"
	"postern/relay/upstream/profile"
)

// Bounds of a check of all domains.
const (
	MostDomains = 200
	atOnce      = 4
)

// Store has accounts and keys.
type Store interface {
	outbound.KeyStore
	Users(context.Context) ([]auth.User, error)
}

// Options are what a Plan is made of.
type Options struct {
	Config   *config.Config
	Store    Store
	Resolver *dnscheck.Resolver // nil: the system's
	// Addresses of this machine as the world sees them. None: those of hostname that are public.
	Addresses []netip.Addr
}

// Plan is what is to be checked. It is immutable.
type Plan struct {
	Options
	keys    []sign.Key // that sign
	waiting []sign.Key // that will, once their records are seen
	ring    *sign.Ring
	domains []string
}

// New reads accounts and keys. An error says what could not be read.
func New(ctx context.Context, o Options) (*Plan, error) {
	if o.Resolver == nil {
		system, err := dnscheck.System()
		if err != nil {
			return nil, err
		}
		o.Resolver = system
	}
	p := &Plan{Options: o}
	var err error
	if p.keys, err = outbound.Keys(ctx, o.Config.DKIM, o.Store); err != nil {
		return nil, err
	}
	if p.waiting, err = outbound.WaitingKeys(ctx, o.Store); err != nil {
		return nil, err
	}
	p.ring = sign.NewRing(p.keys)
	users, err := o.Store.Users(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the accounts: %w", err)
	}
	p.domains = sendersOf(o.Config, users, slices.Concat(p.keys, p.waiting))
	if len(p.Addresses) == 0 && slices.ContainsFunc(o.Config.Upstreams, byAddress) {
		for _, addr := range o.Resolver.Addresses(ctx, o.Config.Hostname) {
			if isPublic(addr) {
				p.Addresses = append(p.Addresses, addr)
			}
		}
	}
	return p, nil
}

func isPublic(addr netip.Addr) bool {
	return addr.IsGlobalUnicast() && !addr.IsPrivate() && !addr.IsLoopback()
}

// Domains are those that anybody may send as, by alphabet, as A-labels.
func (p *Plan) Domains() []string { return p.domains }

// SenderPatterns are patterns of all addresses in the domains that mail is sent for. It asks no DNS.
func SenderPatterns(ctx context.Context, c *config.Config, s Store) (patterns []string, err error) {
	plan, err := New(ctx, Options{Config: c, Store: s, Resolver: new(dnscheck.Resolver),
		Addresses: []netip.Addr{netip.IPv4Unspecified()}})
	if err != nil {
		return nil, err
	}
	for _, domain := range plan.Domains() {
		patterns = append(patterns, "*@"+domain)
	}
	return patterns, nil
}

// Has reports whether anybody may send as a domain.
func (p *Plan) Has(domain string) bool { return slices.Contains(p.domains, domain) }

// Check looks at one domain, lower case and A-labels.
func (p *Plan) Check(ctx context.Context, domain string, now time.Time) dnscheck.Report {
	return dnscheck.Check(ctx, p.options(domain, now))
}

// CheckAll looks at all domains, in the order of Domains.
func (p *Plan) CheckAll(ctx context.Context, now time.Time) []dnscheck.Report {
	domains := p.domains[:min(len(p.domains), MostDomains)]
	reports := make([]dnscheck.Report, len(domains))
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, domain := range domains {
		g.Go(func() error {
			reports[i] = p.Check(ctx, domain, now)
			return nil
		})
	}
	g.Wait() // nothing fails
	return reports
}

func (p *Plan) options(domain string, now time.Time) dnscheck.Options {
	o := dnscheck.Options{Resolver: p.Resolver, Domain: domain, Hostname: p.Config.Hostname, Now: now}
	signing := p.ring.For(domain)
	covers := func(k sign.Key) bool { return k.Domain == domain || strings.HasSuffix(domain, "."+k.Domain) }
	for _, k := range p.keys {
		if covers(k) {
			same := func(s sign.Key) bool { return s.RecordName() == k.RecordName() }
			o.Keys = append(o.Keys, dnscheck.Key{Key: k, Signs: slices.ContainsFunc(signing, same)})
		}
	}
	for _, k := range p.waiting {
		if covers(k) {
			o.Keys = append(o.Keys, dnscheck.Key{Key: k, Waits: true})
		}
	}
	for _, u := range p.upstreamsFor(domain) {
		o.Senders = append(o.Senders, p.sender(u, domain))
	}
	o.ForClients = p.forClients(domain, now)
	return o
}

// forClients are the records by which mail programs find their settings.
func (p *Plan) forClients(domain string, now time.Time) (records []dnscheck.Record) {
	setup := clientsetup.Of(p.Config)
	if !setup.Has(domain) {
		return nil
	}
	covers := clientsetup.Covers(p.Config.CertOptions(slog.New(slog.DiscardHandler)), now)
	for _, r := range setup.Records(domain, covers) {
		note := "read by " + r.For
		if r.Note != "" {
			note += "; " + r.Note
		}
		records = append(records, dnscheck.Record{Name: r.Name, Type: r.Type, Value: r.Value, Note: note})
	}
	return records
}

// sender says how mail of a domain leaves by an upstream.
func (p *Plan) sender(u config.Upstream, domain string) dnscheck.Sender {
	known, ok := profile.Get(u.Provider)
	if !ok { // Validate refuses it
		known, _ = profile.Get(profile.Generic)
	}
	s := dnscheck.Sender{Name: u.Name, Provider: shortTitle(known.Title), Include: known.DNS.Include,
		ReturnPath: known.DNS.ReturnPath, Ours: u.DKIM == config.DKIMSign, Signs: known.DNS.Signs}
	if known.Name == profile.Generic {
		s.Provider = u.Host
	}
	for _, sel := range known.DNS.SelectorsFor(domain) {
		s.Selectors = append(s.Selectors, dnscheck.Selector(sel))
	}
	if known.DNS.Owns(domain) {
		s.OwnDomains = []string{domain}
	}
	if byAddress(u) {
		s.Direct, s.Own = true, p.Addresses
		if s.Include == "" { // receivers see it too
			s.Addresses = p.Addresses
		}
	}
	return s
}

// shortTitle is a provider's name without what tells its services apart.
func shortTitle(title string) string {
	if i := strings.IndexAny(title, "(,:"); i > 0 {
		title = title[:i]
	}
	return strings.TrimSpace(title)
}

// byAddress reports whether an upstream judges mail by our address. One that gets our certificate does not need it.
func byAddress(u config.Upstream) bool {
	known, ok := profile.Get(u.Provider)
	return ok && known.DNS.ByAddress && u.CertFile == ""
}

// upstreamsFor are the upstreams that mail of a domain may take. Routes are read in order up to one that takes all mail
// of the domain; conditions other than the sender's domain may or may not be met.
func (p *Plan) upstreamsFor(domain string) []config.Upstream {
	if len(p.Config.Routes) == 0 {
		return p.Config.Upstreams
	}
	var names []string
	rest := true
	for _, r := range p.Config.Routes {
		concerns := func(pattern string) bool { return concerns(pattern, domain) }
		if len(r.Senders) > 0 && !slices.ContainsFunc(r.Senders, concerns) {
			continue
		}
		names = append(names, r.Upstreams...)
		covers := func(pattern string) bool { return pattern == "*" || pattern == "*@"+domain }
		others := len(r.Logins) + len(r.Groups) + len(r.Listeners) + len(r.Recipients)
		if others == 0 && (len(r.Senders) == 0 || slices.ContainsFunc(r.Senders, covers)) {
			rest = false
			break
		}
	}
	return slices.DeleteFunc(slices.Clone(p.Config.Upstreams), func(u config.Upstream) bool {
		return !rest && !slices.Contains(names, u.Name)
	})
}

// concerns reports whether a sender pattern may match an address of a domain.
func concerns(pattern, domain string) bool {
	if pattern == "*" || pattern == "{login}" {
		return true
	}
	of := domainOf(pattern)
	if below, ok := strings.CutPrefix(of, "*."); ok {
		return strings.HasSuffix(domain, "."+below)
	}
	return of == domain
}

// domainOf is what stands behind the last @ of a pattern, as A-labels; "" where there is no domain.
func domainOf(pattern string) string {
	i := strings.LastIndexByte(pattern, '@')
	if i < 1 { // @group
		return ""
	}
	text, below := strings.CutPrefix(pattern[i+1:], "*.")
	domain, err := mail.ParseDomain(text)
	if err != nil || strings.HasPrefix(domain, "[") || !strings.Contains(domain, ".") {
		return ""
	}
	if domain = mail.ALabels(domain); below {
		return "*." + domain
	}
	return domain
}

// sendersOf lists the domains of all that may send: policies, accounts, keys, and our own reports.
func sendersOf(c *config.Config, users []auth.User, keys []sign.Key) []string {
	var patterns []string
	for _, p := range c.Policies {
		patterns = append(patterns, p.Senders...)
	}
	for _, u := range users {
		patterns = append(patterns, u.Senders...)
		if len(u.Senders) == 0 { // {login} of the default policy
			patterns = append(patterns, u.Login)
		}
	}
	patterns = append(patterns, c.Delivery.BounceFrom)
	var list []string
	for _, text := range patterns {
		if domain := strings.TrimPrefix(domainOf(text), "*."); domain != "" {
			list = append(list, domain)
		}
	}
	for _, k := range keys {
		list = append(list, k.Domain)
	}
	slices.Sort(list)
	return slices.Compact(list)
}
