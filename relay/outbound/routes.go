package outbound

import (
	"context"
	"fmt"
	"slices"

	"postern/mail"
	"postern/policy"
	"postern/relay/config"
	"postern/relay/queue"
	"postern/relay/sign"
)

// Routes is what an attempt follows: the upstreams, which of them a recipient's mail goes to, and the keys that sign
// it. It never changes once it is published: a reload makes a new one, and an attempt under way goes on with its own.
type Routes struct {
	Upstreams []*Upstream // in file order
	Rules     []Rule
	Ring      *sign.Ring // of the keys that sign

	hostname   string
	bounceFrom mail.Address
}

// Rule is a compiled [[route]].
type Rule struct {
	Upstreams []*Upstream
	match     policy.Matcher
}

// NewRoutes builds the routes of a configuration, with the keys of the store. Upstreams whose blocks did not change are
// reused from before, which may be nil, with their connections, back-off and rates.
//
// The new upstreams of routes that do not come into force have to be closed: see Beside.
func (d *Dispatcher) NewRoutes(ctx context.Context, c *config.Config, before *Routes) (_ *Routes, err error) {
	r := &Routes{hostname: c.Hostname}
	defer func() {
		if err == nil {
			return
		}
		for _, up := range r.Beside(before) {
			_ = up.Close(ctx) // nobody has used it
		}
	}()
	if r.Ring, err = d.ring(ctx, c); err != nil {
		return nil, err
	}
	if c.Delivery.BounceFrom != "" {
		if r.bounceFrom, err = mail.ParseAddress(c.Delivery.BounceFrom); err != nil {
			return nil, fmt.Errorf("delivery.bounce_from: %w", err)
		}
	}
	for i := range c.Upstreams {
		up, err := d.upstream(c, c.Upstreams[i], before)
		if err != nil {
			return nil, err
		}
		r.Upstreams = append(r.Upstreams, up)
	}
	return r, r.compile(c.Routes)
}

// WithKeys is r with the keys that the configuration and the store have now.
func (d *Dispatcher) WithKeys(ctx context.Context, c *config.Config, r *Routes) (*Routes, error) {
	ring, err := d.ring(ctx, c)
	if err != nil {
		return nil, err
	}
	with := *r
	with.Ring = ring
	return &with, nil
}

// Run starts what routes in force need beside their upstreams. Closing an upstream ends it.
func (r *Routes) Run() {
	for _, up := range r.Upstreams {
		if up.upkeep != nil {
			up.upkeep.run()
		}
	}
}

// TryAgain asks again for the mail that waits because of a grant: a person may have logged in.
func (r *Routes) TryAgain() {
	for _, up := range r.Upstreams {
		if up.Tokens != nil {
			up.TryAgain()
		}
	}
}

// Retire returns the upstreams that are not in after, for the caller to close. Attempts stop waiting for their slots.
func (r *Routes) Retire(after *Routes) []*Upstream {
	var gone []*Upstream
	for _, old := range r.Beside(after) {
		for _, up := range after.Upstreams {
			if up.Config.Name == old.Config.Name { // the provider goes on counting
				up.Inherit(old.HandOver())
			}
		}
		old.prefetch.end()
		gone = append(gone, old)
	}
	return gone
}

// Beside returns the upstreams of r that others, which may be nil, do not have.
func (r *Routes) Beside(others *Routes) (own []*Upstream) {
	for _, up := range r.Upstreams {
		if others == nil || !slices.Contains(others.Upstreams, up) {
			own = append(own, up)
		}
	}
	return own
}

func (r *Routes) compile(blocks []config.Route) error {
	for i, block := range blocks {
		match, err := policy.NewMatcher(block.Match())
		if err != nil {
			return fmt.Errorf("route[%d]: %w", i+1, err)
		}
		compiled := Rule{match: match}
		for _, name := range block.Upstreams {
			compiled.Upstreams = append(compiled.Upstreams, r.upstream(name))
		}
		r.Rules = append(r.Rules, compiled)
	}
	return nil
}

func (r *Routes) upstream(name string) *Upstream {
	i := slices.IndexFunc(r.Upstreams, func(u *Upstream) bool { return u.Config.Name == name })
	return r.Upstreams[i] // config.Load has checked that it exists
}

// routeFor returns the upstreams for one recipient of a message: those of the first route that matches,
// or all in file order.
func (r *Routes) routeFor(m *queue.Message, to mail.Address) []*Upstream {
	facts := policy.Facts{Login: m.Login, Groups: m.Groups, Listener: m.Listener, Sender: m.Envelope.From,
		Recipient: to}
	for i := range r.Rules {
		if r.Rules[i].match.Matches(facts) {
			return r.Rules[i].Upstreams
		}
	}
	return r.Upstreams
}

// groups sorts the pending recipients of a message by route.
func (r *Routes) groups(m *queue.Message) []group {
	var groups []group
next:
	for _, i := range pendingOf(m) {
		ups := r.routeFor(m, m.Recipients[i].To)
		for g := range groups {
			if slices.Equal(groups[g].route, ups) {
				groups[g].pending = append(groups[g].pending, i)
				continue next
			}
		}
		groups = append(groups, group{route: ups, pending: []int{i}})
	}
	return groups
}

// group is the pending recipients of a message that share a route, as indexes.
type group struct {
	route   []*Upstream
	pending []int
}

// InParts reports that the recipients of a message do not fit into one transaction, by their routes or by their number.
func (d *Dispatcher) InParts(m *queue.Message) bool {
	if len(m.Recipients) == 1 {
		return false
	}
	groups := d.Routes().groups(m)
	if len(groups) != 1 {
		return true
	}
	return slices.ContainsFunc(groups[0].route,
		func(up *Upstream) bool { return len(m.Recipients) > up.Config.MaxRecipients })
}

// pendingOf returns the indexes of the recipients that still wait.
func pendingOf(m *queue.Message) []int {
	var pending []int
	for i := range m.Recipients {
		if m.Recipients[i].Status == queue.Pending {
			pending = append(pending, i)
		}
	}
	return pending
}
