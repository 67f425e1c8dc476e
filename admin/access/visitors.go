package access

import (
	"context"
	"net/url"
	"sync/atomic"
	"time"
)

// Visitors are logins by OpenID Connect of people who need not be users of the console: the provider says who they are,
// and whoever asks decides what that is worth. It is safe for concurrent use.
type Visitors struct {
	*flows
	provider atomic.Pointer[provider] // nil: none
}

// NewVisitors returns Visitors without a provider. key, of 32 octets, seals what browsers keep between the two steps,
// and is for nothing else.
func NewVisitors(key []byte, ended EndedFlows, now func() time.Time) (*Visitors, error) {
	f, err := newFlows(key, "postern visitor flow", ended, now)
	return &Visitors{flows: f}, err
}

// Use takes over a provider, nil for none. Its RedirectURL is needed.
func (v *Visitors) Use(p *Provider) {
	if p == nil {
		v.provider.Store(nil)
		return
	}
	v.provider.Store(newProvider(*p, v.clock, v.provider.Load()))
}

// On reports whether there is a provider.
func (v *Visitors) On() bool { return v.provider.Load() != nil }

// Begin returns where to send a browser that wants to log in, and a cookie for Finish.
func (v *Visitors) Begin(ctx context.Context) (to, cookie string, err error) {
	p := v.provider.Load()
	if p == nil {
		return "", "", refusef(ReasonOIDC, "there is no provider")
	}
	var f flow
	if to, err = p.begin(ctx, &f, false); err != nil {
		return "", "", err
	}
	cookie, err = v.sealFlow(f)
	return to, cookie, err
}

// Finish takes what the provider sent the browser back with, once, and returns the issuer and what it says of the
// person. Claims that are wanted are asked for where the ID token has them not.
func (v *Visitors) Finish(ctx context.Context, cookie string, query url.Values, want ...string) (issuer string,
	c Claims, err error) {
	p := v.provider.Load()
	if p == nil {
		return "", Claims{}, refusef(ReasonOIDC, "there is no provider")
	}
	f, err := v.openFlow(flowOIDC, cookie)
	if err != nil {
		return "", Claims{}, err
	}
	if c, err = p.claims(ctx, f, query, want...); err != nil {
		return "", Claims{}, err
	}
	if err := v.endFlow(ctx, f); err != nil {
		return "", Claims{}, err
	}
	return p.Issuer, c, nil
}
