package relay

import (
	"context"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postern/auth"
	"postern/certs"
	"postern/relay/monitor"
	"postern/relay/stats"
	"postern/relay/status"
	relaystore "postern/relay/store"
	"postern/relay/trace"
	"postern/relay/upstream"
)

// gauges asks the parts of the server for their state when metrics are read. What is counted is counted by its owner.
type gauges struct {
	store     *relaystore.Store
	listeners *listeners
	inForce   func() monitor.InForce
	trace     *trace.Recorder
	stats     *stats.Counter
	certs     *certs.Manager
	sources   func() []auth.SourceState
	ready     func(context.Context) error
}

var (
	queueMessages = prometheus.NewDesc("postern_queue_messages",
		"Messages that wait, by state.", []string{"state"}, nil)
	queueBytes = prometheus.NewDesc("postern_queue_bytes",
		"Octets of messages that wait.", nil, nil)
	queueOldest = prometheus.NewDesc("postern_queue_oldest_seconds",
		"Age of the oldest message that waits.", nil, nil)
	connections = prometheus.NewDesc("postern_connections",
		"Client connections now.", []string{"listener"}, nil)
	upstreamConns = prometheus.NewDesc("postern_upstream_connections",
		"Connections to an upstream now.", []string{"upstream", "identity"}, nil)
	upstreamPaused = prometheus.NewDesc("postern_upstream_paused",
		"1 while an upstream identity is paused or backs off.", []string{"upstream", "identity"}, nil)
	storeCommits = prometheus.NewDesc("postern_store_commits_total",
		"Transactions committed, each one sync.", nil, nil)
	traceDropped = prometheus.NewDesc("postern_trace_dropped_total",
		"Trace events lost because the store could not keep up.", nil, nil)
	traceLeftOut = prometheus.NewDesc("postern_trace_untraced_total",
		"Refusals that were only counted because their login or address had too many of them.", nil, nil)
	recipients = prometheus.NewDesc("postern_recipients_total",
		"Recipients of messages by what became of them: accepted, delivered, deferred (each time), failed by class, "+
			"unclear.", []string{"listener", "outcome"}, nil)
	statsOther = prometheus.NewDesc("postern_statistics_other_total",
		"How often statistics had no room for a key of its own and counted as other.", nil, nil)
	sourceUp = prometheus.NewDesc("postern_login_source_up",
		"1 while a source of logins answers, as far as is known.", []string{"source"}, nil)
	certExpiry = prometheus.NewDesc("postern_certificate_expiry_timestamp_seconds",
		"End of a certificate of the listeners.", []string{"name", "key"}, nil)
	accepting = prometheus.NewDesc("postern_accepting_mail",
		"1 while new mail is taken: the listeners are up, the store has room, and this node is not drained.", nil, nil)
	nodesBy = prometheus.NewDesc("postern_nodes",
		"Nodes at the database, as this one sees them, by state: alive, drained, gone.", []string{"state"}, nil)
)

// buildInfo says which version runs.
func buildInfo(version string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "postern_build_info",
		Help:        "1, with the version that runs.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	}, func() float64 { return 1 })
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{queueMessages, queueBytes, queueOldest, connections, upstreamConns,
		upstreamPaused, storeCommits, traceDropped, traceLeftOut, recipients, statsOther, sourceUp, certExpiry,
		accepting, nodesBy} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	g.queue(ctx, gauge)
	for _, s := range g.sources() {
		up := 1.0
		if s.Err != nil {
			up = 0
		}
		gauge(sourceUp, up, s.Name)
	}
	for name, n := range g.listeners.connections() {
		gauge(connections, float64(n), name)
	}
	g.upstreams(gauge)
	ch <- prometheus.MustNewConstMetric(storeCommits, prometheus.CounterValue, float64(g.store.Commits()))
	ch <- prometheus.MustNewConstMetric(traceDropped, prometheus.CounterValue, float64(g.trace.Dropped()))
	ch <- prometheus.MustNewConstMetric(traceLeftOut, prometheus.CounterValue, float64(g.trace.LeftOut()))
	g.statistics(ch)
	g.machine(ctx, gauge)
}

// setGauge tells one value.
type setGauge = func(d *prometheus.Desc, v float64, labels ...string)

func (g *gauges) queue(ctx context.Context, gauge setGauge) {
	q, err := g.store.Stats(ctx)
	if err != nil {
		return // the others are told
	}
	gauge(queueMessages, float64(q.Messages-q.Held), "waiting")
	gauge(queueMessages, float64(q.Held), "held")
	gauge(queueBytes, float64(q.Bytes))
	age := 0.0
	if !q.Oldest.IsZero() {
		age = time.Since(q.Oldest).Seconds()
	}
	gauge(queueOldest, age)
}

func (g *gauges) upstreams(gauge setGauge) {
	for _, up := range g.inForce().Routes.Upstreams {
		for _, st := range up.States() {
			paused := 0.0
			if st.Status != upstream.Ready {
				paused = 1
			}
			gauge(upstreamConns, float64(st.InUse+st.Idle+st.Closing), up.Config.Name, st.Identity)
			gauge(upstreamPaused, paused, up.Config.Name, st.Identity)
		}
	}
}

// machine tells what this node is fit for, and what it sees of others.
func (g *gauges) machine(ctx context.Context, gauge setGauge) {
	for of, end := range ends(g.certs.Info()) {
		gauge(certExpiry, float64(end.Unix()), of.name, of.key)
	}
	taken := 1.0
	if g.ready(ctx) != nil {
		taken = 0
	}
	gauge(accepting, taken)
	if all, err := monitor.Nodes(ctx, g.store); err == nil && g.store.Shared() {
		for _, state := range []status.NodeState{status.NodeAlive, status.NodeDrained, status.NodeGone} {
			gauge(nodesBy, float64(countNodes(all, state)), string(state))
		}
	}
}

func countNodes(all []status.Node, state status.NodeState) (n int) {
	for _, one := range all {
		if one.State == state {
			n++
		}
	}
	return n
}

// certificate is what tells certificates apart: the first name in it, and the kind of its key.
type certificate struct{ name, key string }

// ends are the ends of certificates; of two that look the same, that which ends first.
func ends(of []certs.Info) map[certificate]time.Time {
	all := make(map[certificate]time.Time)
	for _, info := range of {
		c := certificate{info.Subject, info.Key}
		if len(info.Names) > 0 {
			c.name = info.Names[0]
		}
		if end, known := all[c]; !known || info.NotAfter.Before(end) {
			all[c] = info.NotAfter
		}
	}
	return all
}

// statistics tells what was counted since the start. There are as many listeners as the configuration has had.
func (g *gauges) statistics(ch chan<- prometheus.Metric) {
	byListener, other := g.stats.Totals()
	for listener, n := range byListener {
		for outcome, v := range map[string]int64{"accepted": n.Recipients, "delivered": n.Delivered,
			"deferred": n.Deferred(), "recipient-fault": n.RecipientFaults, "message-fault": n.MessageFaults,
			"given-up": n.GivenUp, "unclear": n.Unclear} {
			ch <- prometheus.MustNewConstMetric(recipients, prometheus.CounterValue, float64(v), listener, outcome)
		}
	}
	ch <- prometheus.MustNewConstMetric(statsOther, prometheus.CounterValue, float64(other))
}
