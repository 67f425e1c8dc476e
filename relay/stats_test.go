package relay

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"postern/relay/stats"
	"postern/relay/trace"
)

// statsBy are the sums of a key in the last days, as the command line sees them.
func (r *rig) statsBy(by stats.Dimension, key string) stats.Counts {
	r.t.Helper()
	s := r.store()
	if !s.AwaitEvents(r.t.Context()) {
		r.t.Fatal("the daemon does not answer")
	}
	table, err := s.Statistics(r.t.Context(), stats.Query{By: by, OnlyKey: &key}, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	return table.Total
}

// plain are counts without times, to compare.
func plain(n stats.Counts) stats.Counts {
	n.Times = stats.Histogram{}
	return n
}

func (r *rig) wantStats(by stats.Dimension, key string, want stats.Counts) {
	r.t.Helper()
	if got := plain(r.statsBy(by, key)); !got.Equal(&want) {
		r.t.Errorf("%s %q: %+v, want %+v", by, key, got, want)
	}
}

func TestStatisticsOfHandOffs(t *testing.T) {
	p := newProvider(t)
	p.onRcpt = func(to string) error {
		if strings.HasPrefix(to, "nobody@") {
			return refusal(550, smtp.EnhancedCode{5, 1, 1}, "no such user")
		}
		return nil
	}
	r := newRig(t, p, "")
	if _, err := r.send(rigLogin, []string{"bob@Example.NET", "carol@example.org"}, plainMessage); err != nil {
		t.Fatal(err)
	}
	size := r.events(trace.Accepted)[0].Size
	for i := range 2 {
		if _, err := r.send(rigLogin, []string{"nobody@example.net"}, plainMessage); code(err) != 550 {
			t.Fatal(i, err)
		}
	}
	if _, err := r.send("ceo@example.com", []string{"bob@example.net"}, plainMessage); code(err) != 550 {
		t.Fatal(err)
	}
	r.wantStats(stats.Login, rigLogin, stats.Counts{Messages: 1, Recipients: 2, Octets: size, Delivered: 2,
		RecipientFaults: 2, Refused: 3})
	r.wantStats(stats.Listener, "submission", stats.Counts{Messages: 1, Recipients: 2, Octets: size, Delivered: 2,
		RecipientFaults: 2, Refused: 3})
	r.wantStats(stats.Upstream, "provider", stats.Counts{Octets: size, Delivered: 2, RecipientFaults: 2})
	r.wantStats(stats.RecipientDomain, "example.org", stats.Counts{Messages: 1, Recipients: 1, Octets: size,
		Delivered: 1})
	families, err := r.server.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "postern_recipients_total" && len(f.GetMetric()) == 7 {
			return
		}
	}
	t.Error("the metric of recipients is missing")
}

// The time to delivery is that since the message was accepted, also over a restart, and nothing is counted twice.
func TestStatisticsOfTheQueue(t *testing.T) {
	p := newProvider(t)
	var open atomic.Bool
	p.onMail = func(string) error {
		if !open.Load() {
			return refusal(451, smtp.EnhancedCode{4, 7, 1}, "later")
		}
		return nil
	}
	r := newRig(t, p, "listener:handoff = \"0s\"\n[delivery]\nretry = [\"1s\"]\n")
	began := time.Now()
	if _, err := r.send(rigLogin, []string{"bob@example.net", "carol@example.net"}, plainMessage); err != nil {
		t.Fatal(err)
	}
	accepted := time.Now()
	r.eventually("deferred", func() bool { return len(r.events(trace.Deferred)) > 0 })
	r.close()
	r.start()
	least := time.Since(accepted)
	open.Store(true)
	r.eventually("delivered", func() bool { return len(r.events(trace.Delivered)) == 2 })
	most := time.Since(began)
	got := r.statsBy(stats.Upstream, "provider")
	deferred := int64(len(r.events(trace.Deferred)))
	if got.Delivered != 2 || got.Octets != r.events(trace.Accepted)[0].Size || got.Deferred() != deferred {
		t.Errorf("%+v, %d were deferred", got, deferred)
	}
	median, _ := got.Times.Quantile(0.5)
	slack := 1 + stats.MaxError
	if float64(median)*slack < float64(least) || float64(median) > float64(most)*slack {
		t.Errorf("the median is %s, not from %s to %s", median, least, most)
	}
	r.wantStats(stats.RecipientDomain, "example.net", plain(stats.Counts{Messages: 1, Recipients: 2, Octets: got.Octets,
		Delivered: 2, Deferrals: got.Deferrals, AccountFaults: got.AccountFaults, BackPressure: got.BackPressure}))
}

// search finds the events of a recipient, once they are written.
func search(r *rig, to string) []trace.Event {
	r.t.Helper()
	s := r.store()
	if !s.AwaitEvents(r.t.Context()) {
		r.t.Fatal("the daemon does not answer")
	}
	found, err := s.Events(r.t.Context(), trace.Query{To: to})
	if err != nil {
		r.t.Fatal(err)
	}
	return found
}

// With [privacy] no recipient and no client is written into the trace, and who knows an address finds it.
func TestPrivacyOfTheTrace(t *testing.T) {
	r := newRig(t, newProvider(t), "[privacy]\nrecipients = \"hash\"\nclients = \"cut\"\n")
	if _, err := r.send(rigLogin, []string{"bob@example.net"}, plainMessage); err != nil {
		t.Fatal(err)
	}
	delivered := r.events(trace.Delivered)[0]
	if !strings.HasPrefix(delivered.To, "~") || !strings.HasSuffix(delivered.To, "@example.net") {
		t.Errorf("%+v", delivered)
	}
	accepted := r.events(trace.Accepted)[0]
	if accepted.Client != "127.0.0.0/24" || accepted.From != rigLogin {
		t.Errorf("%+v", accepted)
	}
	if found := search(r, "Bob@example.net"); len(found) != 2 {
		t.Errorf("%+v", found)
	}
	r.write("[privacy]\nrecipients = \"keep\"\n[[listener]]\nname = \"other\"\naddress = \"192.0.2.1:25\"\n")
	if err := r.server.Reload(t.Context()); err == nil { // that address is not ours
		t.Fatal("a listener was opened elsewhere")
	}
	if _, err := r.send("anna@example.com", []string{"carol@example.net"}, plainMessage); err != nil {
		t.Fatal(err)
	}
	if found := search(r, "carol@example.net"); len(found) != 2 || !strings.HasPrefix(found[0].To, "~") {
		t.Errorf("a refused reload is in force: %+v", found)
	}
	r.write("[privacy]\nrecipients = \"keep\"\n")
	if err := r.server.Reload(t.Context()); err != nil && !errors.Is(err, errStopping) {
		t.Fatal(err)
	}
	if _, err := r.send(rigLogin, []string{"bob@example.net"}, plainMessage); err != nil {
		t.Fatal(err)
	}
	if all := r.events(trace.Delivered); len(all) != 3 || all[2].To != "bob@example.net" {
		t.Errorf("%+v", all)
	}
}
