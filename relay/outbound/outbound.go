// Package outbound makes delivery attempts: it decides which upstreams a recipient's mail goes to and under which
// identity. It joins queue and upstream, which do not know each other.
//
// Failure semantics: an attempt has a result for each pending recipient, whatever happens; after a fault of our own
// that is a deferral. The next upstream of a route is tried only if the fault lies with the account or the connection
// and the message cannot have been taken. A message that cannot be signed is deferred: there is no unsigned send.
package outbound

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/upstream"
	"postern/relay/upstream/oauth"
)

// Store is what upstreams and reports need of the store.
type Store interface {
	oauth.GrantStore
	upstream.QuotaStore
	KeyStore
	Content(ctx context.Context, id string) (mail.Content, error) // of a queued message
}

// Options are what a Dispatcher is made of.
type Options struct {
	Routes   func() *Routes // those in force now
	Store    Store
	Changed  func()          // an upstream may have a free slot, or is no longer paused
	Stopping <-chan struct{} // closed when the shutdown begins
	Logger   *slog.Logger
	Metrics  prometheus.Registerer
}

// Dispatcher joins the queue and the upstreams: it chooses the route of a message at each attempt, asks
// an upstream of that route for a slot, and makes the attempt. It implements queue.Dispatcher.
type Dispatcher struct {
	Options
	results *prometheus.CounterVec
	storms  *prometheus.CounterVec
}

// New makes a Dispatcher and registers its counters.
func New(o Options) *Dispatcher {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return promauto.With(o.Metrics).NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return &Dispatcher{
		Options: o,
		results: counter("postern_delivery_results_total", "Results of attempts, one for each recipient, by class.",
			"upstream", "class"),
		storms: counter("postern_bounce_storms_total", "Times that an upstream's refusals were not believed any more, "+
			"because hardly anything got through.", "upstream"),
	}
}

// Reserve takes a slot at the first upstream of the message's route that is not paused, or lets the message be
// prefetched. If that upstream is merely busy, the message waits for it: the next upstream of a route is for faults,
// not for load. If recipients have different routes, a paused one holds up no other.
func (d *Dispatcher) Reserve(now time.Time, m *queue.Message) (queue.Slot, queue.Wait) {
	a, up, wait := d.reserve(now, m)
	switch {
	case a == nil && up != nil && wait.Key == up.Config.Name && up.prefetch.admit():
		return &attempt{d: d, routes: d.Routes(), upstream: up, prefetched: true}, wait
	case a == nil:
		return nil, wait
	}
	return a, wait
}

// ReserveNow takes a slot for a hand-off: one that is free now and promised to nobody.
func (d *Dispatcher) ReserveNow(now time.Time, m *queue.Message) (queue.Slot, queue.Wait) {
	a, up, wait := d.reserve(now, m)
	switch {
	case a == nil:
		return nil, wait
	case up != nil && up.prefetch.waiting():
		a.Release()
		return nil, wait
	}
	return a, wait
}

// reserve takes a free slot. The upstream comes with it, and without it where all its slots are taken.
func (d *Dispatcher) reserve(now time.Time, m *queue.Message) (*attempt, *Upstream, queue.Wait) {
	r := d.Routes()
	pending := pendingOf(m)
	if len(pending) == 0 {
		return &attempt{d: d, routes: r}, nil, queue.Wait{} // nothing to send: the attempt finds that out
	}
	slot, up, wait := reserve(now, m, r.routeFor(m, m.Recipients[pending[0]].To))
	if !wait.Until.IsZero() && len(pending) > 1 && len(r.Rules) > 0 {
		slot, up, wait = reserveOther(now, m, r.groups(m)[1:], wait)
	}
	if slot == nil {
		return nil, up, wait
	}
	return &attempt{d: d, routes: r, slot: slot, upstream: up}, up, wait
}

func reserve(now time.Time, m *queue.Message, route []*Upstream) (upstream.Slot, *Upstream, queue.Wait) {
	var wait queue.Wait
	name := nameOf(route, m)
	for _, up := range route {
		identity := up.identityFor(m)
		key := up.keyFor(identity)
		slot, until := up.Reserve(now, identity)
		if slot != nil {
			return slot, up, queue.Wait{Key: key, Route: name}
		}
		if until.IsZero() {
			return nil, up, queue.Wait{Key: key, Route: name}
		}
		if wait.Until.IsZero() || until.Before(wait.Until) {
			wait = queue.Wait{Key: key, Route: name, Until: until}
		}
	}
	return nil, nil, wait
}

// reserveOther goes on to the routes of other recipients. wait says until when the first is paused; where all are,
// what is returned says until when, by the names of all.
func reserveOther(now time.Time, m *queue.Message, others []group, wait queue.Wait) (
	upstream.Slot, *Upstream, queue.Wait) {
	if len(others) == 0 {
		return nil, nil, wait
	}
	names := []string{cmp.Or(wait.Route, wait.Key)}
	for _, g := range others {
		slot, up, w := reserve(now, m, g.route)
		if slot != nil || w.Until.IsZero() {
			return slot, up, w
		}
		names = append(names, cmp.Or(w.Route, w.Key))
		if w.Until.Before(wait.Until) {
			wait.Key, wait.Until = w.Key, w.Until
		}
	}
	slices.Sort(names)
	wait.Route = strings.Join(names, "; ")
	return nil, nil, wait
}

// nameOf is what a message waits for while none of its route can be used.
func nameOf(route []*Upstream, m *queue.Message) string {
	if len(route) == 1 {
		return "" // the one key says it
	}
	keys := make([]string, len(route))
	for i, up := range route {
		keys[i] = up.keyFor(up.identityFor(m))
	}
	return strings.Join(keys, ", ")
}
