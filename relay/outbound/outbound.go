// Package outbound makes delivery attempts: it decides which upstreams a recipient's mail goes to and under which
// identity. It joins queue and upstream, which do not know each other.
//
// Failure semantics: an attempt has a result for each pending recipient, whatever happens; after a fault of our own
// that is a deferral. The next upstream of a route is tried only if the fault lies with the account or the connection
// and the message cannot have been taken. A message that cannot be signed is deferred: there is no unsigned send.
package outbound

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/account"
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
	Sharing  *account.Sharing // of accounts at upstreams with other nodes; nil: there are none
	Changed  func()           // an upstream may have a free slot, or is no longer paused
	Stopping <-chan struct{}  // closed when the shutdown begins
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
