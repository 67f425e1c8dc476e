package dnscheck

import (
	"context"

	"postern/relay/keyring"
)

// KeyLookup is a keyring.Lookup. Without a Resolver it asks the system's, which it finds anew for each key.
type KeyLookup struct{ Resolver *Resolver }

// DKIM implements keyring.Lookup.
func (l KeyLookup) DKIM(ctx context.Context, domain, selector string) (keyring.Answer, error) {
	r := l.Resolver
	if r == nil {
		system, err := System()
		if err != nil {
			return keyring.Answer{}, err
		}
		r = system
	}
	p := r.Published(ctx, domain, selector)
	a := keyring.Answer{Resolver: p.Resolver, ResolverErr: p.ResolverErr}
	for _, s := range p.Zone {
		a.Servers = append(a.Servers, keyring.Server{Name: s.Server, Texts: s.Texts, CNAME: s.CNAME != "", Err: s.Err})
	}
	return a, nil
}
