package operate

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/mail"
	"postern/relay/dnscheck"
	"postern/relay/domains"
)

// Domains is what may be asked about the DNS of domains that mail is sent from.
type Domains struct {
	*desk
	seen *reports
}

// reports are the last looks, whoever looked, of at most domains.MostDomains domains. They are gone with the process.
type reports struct {
	mu sync.Mutex
	of map[string]dnscheck.Report
}

// DomainState is a domain, and what the last look at it found.
type DomainState struct {
	Domain string           `json:"domain"`
	Report *dnscheck.Report `json:"report"` // null: nobody has looked yet
}

// LookOptions change who is asked. The zero value asks the system's resolver.
type LookOptions struct {
	Resolver  *dnscheck.Resolver
	Addresses []netip.Addr // of this machine, as the world sees them

	Lookup func(ctx context.Context, name string) ([]netip.Addr, error) // of clients; nil: the system's
	// Seen is told what a look at one of our domains has found; may be nil.
	Seen func(r dnscheck.Report, ours []string)
}

// longestLook bounds a look at DNS: many servers may be silent.
const longestLook = 2 * time.Minute

// List returns the domains that relay.toml, the accounts and the keys name, with the last look at each.
func (d Domains) List(ctx context.Context, by Actor) ([]DomainState, error) {
	if err := by.May(SeeDomains); err != nil {
		return nil, err
	}
	plan, err := domains.New(ctx, domains.Options{Config: d.Config(), Store: d.Store})
	if err != nil {
		return nil, err
	}
	d.seen.mu.Lock()
	defer d.seen.mu.Unlock()
	states := []DomainState{}
	for _, name := range plan.Domains() {
		s := DomainState{Domain: name}
		if r, ok := d.seen.of[name]; ok {
			s.Report = &r
		}
		states = append(states, s)
	}
	return states, nil
}

// Look looks at the DNS of a domain. ours reports that somebody may send as it.
func (d Domains) Look(ctx context.Context, by Actor, name string, o LookOptions) (r dnscheck.Report, ours bool,
	err error) {
	domain, err := ParseDomain(name)
	if err != nil || strings.HasPrefix(domain, "[") {
		return r, false, fault(Invalid, "%q is no domain; write it as in example.com",
			mail.Printable(mail.Cut(name, maxNamed)))
	}
	domain = mail.ALabels(domain)
	err = d.act(ctx, by, LookAtDomain, domain, func(ctx context.Context, _ *string) error {
		ctx, cancel := context.WithTimeout(ctx, longestLook)
		defer cancel()
		plan, err := domains.New(ctx, domains.Options{Config: d.Config(), Store: d.Store, Resolver: o.Resolver,
			Addresses: o.Addresses})
		if err != nil {
			return err
		}
		r = plan.Check(ctx, domain, time.Now())
		d.seen.keep(r, plan.Domains())
		ours = plan.Has(domain)
		return nil
	})
	return r, ours, err
}

// keep remembers a report of one of our domains, and forgets those of others.
func (s *reports) keep(r dnscheck.Report, ours []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.of {
		if !slices.Contains(ours, name) {
			delete(s.of, name)
		}
	}
	before, known := s.of[r.Domain]
	if slices.Contains(ours, r.Domain) && (known || len(s.of) < domains.MostDomains) && !r.Time.Before(before.Time) {
		s.of[r.Domain] = r
	}
}
