// Package monitor watches for what operators must know: mail that waits or is not accepted, paused upstreams, refused
// senders, expiring certificates and secrets, locked logins. It informs the hooks of [[alert]], `postern status` and
// /readyz.
//
// Failure semantics: it only watches, and never touches mail. A condition that cannot be checked keeps its last state.
package monitor

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"postern/auth"
	"postern/certs"
	"postern/relay/alert"
	"postern/relay/config"
	"postern/relay/finding"
	"postern/relay/outbound"
	relaystore "postern/relay/store"
	"postern/relay/trace"
)

// How many rounds pass between two checks.
const (
	queueAgeLook = 6
	expiryLook   = 120
)

// InForce is the configuration in force, and the routes made of it.
type InForce struct {
	Config *config.Config
	Routes *outbound.Routes
}

// Options are what a Monitor is made of.
type Options struct {
	DataDir string // where it is stored who was told what
	// Look is how often conditions are looked for. A pause of an upstream lasts five minutes at least.
	Look    time.Duration
	InForce func() InForce
	Room    *Room
	Store   *relaystore.Store
	Trace   *trace.Recorder
	Certs   func() []certs.Info                                  // of the listeners
	Lookup  func(context.Context, string) (auth.Identity, error) // auth.ErrUnknownLogin: nobody has this login
	Examine func(context.Context) ([]finding.Finding, error)     // by the doctor, once a day; nil: never
	Logger  *slog.Logger
	Metrics prometheus.Registerer
}

// Monitor checks for conditions that operators must hear of and alerts the hooks of [[alert]]. Most are checked every
// few seconds; what that would miss is reported as it happens: lockouts, and results of attempts.
type Monitor struct {
	Options
	alerter  *alert.Alerter
	delivery *prometheus.HistogramVec
	kick     chan struct{} // look at everything now
	open     atomic.Bool   // somebody was told that an upstream is paused: look at what is delivered

	// What attempts met since the last look, the last result winning. One delivery proves little: it may have been
	// under way when the others were refused.
	mu        sync.Mutex // guards what follows
	refusals  map[attempted]trace.Event
	delivered map[attempted]bool

	paused map[*outbound.Upstream]map[string]bool // identities seen paused; of the goroutine that looks
}

// deliveryBuckets reach from a hand-off over a good line to a message that the queue kept to its end, in seconds.
var deliveryBuckets = []float64{
	0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600, 48 * 3600,
}

// New makes a Monitor that tells nobody until Use and Run.
func New(o Options) *Monitor {
	m := &Monitor{Options: o, kick: make(chan struct{}, 1), paused: make(map[*outbound.Upstream]map[string]bool)}
	m.delivery = promauto.With(o.Metrics).NewHistogramVec(prometheus.HistogramOpts{
		Name: "postern_delivery_seconds", Buckets: deliveryBuckets,
		Help: "Time from a message's arrival to its delivery to the upstream, once for each recipient.",
	}, []string{"upstream"})
	alerts := promauto.With(o.Metrics).NewCounterVec(prometheus.CounterOpts{Name: "postern_alerts_total",
		Help: "Alerts for each hook, by what became of them: sent, failed (given up)."}, []string{"event", "outcome"})
	m.alerter = alert.New(alert.Options{
		File: filepath.Join(o.DataDir, relaystore.AlertsName), Logger: o.Logger, Nodes: nodesOf(o.Store),
		Count: func(e alert.Event, outcome string) { alerts.WithLabelValues(string(e), outcome).Inc() },
	})
	return m
}

// nodesOf are the nodes that tell the same hooks; nil: there is none beside this one.
func nodesOf(s *relaystore.Store) alert.Nodes {
	if s == nil || !s.Shared() {
		return nil
	}
	return s
}

// Use adopts the hooks of a configuration.
func (m *Monitor) Use(hostname string, hooks []alert.Hook) {
	m.alerter.Use(hostname, append(slices.Clone(hooks), m.journal()))
	m.open.Store(len(m.alerter.Open(alert.UpstreamPaused)) > 0)
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// Run checks until ctx ends, and then finishes sending.
func (m *Monitor) Run(ctx context.Context) {
	var telling sync.WaitGroup
	defer telling.Wait()
	telling.Go(func() { m.alerter.Run(ctx) })
	if m.Examine != nil {
		telling.Go(func() { doctor{m.Examine, m.alerter, m.Logger}.run(ctx) })
	}
	tick := time.NewTicker(m.Look)
	defer tick.Stop()
	for round := 0; ; round++ {
		m.look(ctx, round)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-m.kick:
			round = -1
		}
	}
}

func (m *Monitor) look(ctx context.Context, round int) {
	now := time.Now()
	check(m.Logger, "upstreams", func() { m.upstreams(m.InForce().Routes, now) })
	check(m.Logger, "disk", func() { m.disk(ctx, now) })
	if round%queueAgeLook == 0 {
		check(m.Logger, "queue", func() { m.queueAge(ctx, now) })
	}
	if round%expiryLook == 0 {
		check(m.Logger, "certificates", func() { m.certificates(ctx, now) })
		check(m.Logger, "secrets", func() { m.secrets(ctx, now) })
		check(m.Logger, "DKIM keys", func() { dkimKeys(ctx, m.InForce().Config, m.Store, m.alerter, now) })
		check(m.Logger, "accounts", func() { closeAccounts(ctx, m) })
	}
}

// closeAccounts closes the alerts about accounts that a person has dealt with.
func closeAccounts(ctx context.Context, m *Monitor) {
	users, err := m.Store.Users(ctx)
	elsewhere, err2 := m.Store.LockedElsewhere(ctx)
	if err == nil && err2 == nil {
		m.Accounts(append(users, elsewhere...), time.Time{})
	}
}

// check looks at one kind of condition. A panic in that, a fault of ours that the words of a provider bring out, is a
// look that saw nothing: who watches mail must not end it.
func check(log *slog.Logger, what string, look func()) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("a condition is not checked by a fault of ours", "condition", what,
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	look()
}

// Result traces an event of an attempt, and opens or closes alerts by it.
func (m *Monitor) Result(e trace.Event) {
	m.Trace.Record(e)
	if e.Kind == trace.Delivered {
		m.delivery.WithLabelValues(e.Upstream).Observe(e.Age.Seconds())
	}
	if !lostReport(e) {
		m.attempted(e)
		return
	}
	m.Logger.Error("a report about undelivered mail cannot be delivered: the sender does not know", "id", e.ID,
		"rcpt", e.To, "upstream", e.Upstream, "reply", e.Reply.String())
	m.alerter.Begin(reportCondition(e))
}

// lostReport reports that a delivery report of ours could not be delivered.
func lostReport(e trace.Event) bool { return e.Kind == trace.Failed && e.Login == "" && e.From == "" }

func reportCondition(e trace.Event) alert.Condition {
	return alert.Condition{
		Event: alert.ReportFailed, Subject: "reports",
		Summary: fmt.Sprintf("A report about undelivered mail did not reach %s, who does not know that the mail "+
			"failed: %q. "+
			"What to do: tell the sender; postern trace --id %s shows the report. Where the provider refuses the "+
			"report's sender, "+
			"set bounce_from in [delivery] to an address that it lets send, and try it: postern upstream test NAME",
			e.To, e.Reply.String(), e.ID),
		Over:  "No report has failed for a day.",
		Until: e.Time.Add(refusalLife),
		Details: map[string]string{"to": e.To, "id": e.ID, "upstream": e.Upstream, "reply": e.Reply.String(),
			"since": clock(e.Time)},
	}
}

// clock formats times in the details of an alert.
func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
