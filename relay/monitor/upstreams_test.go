package monitor

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postern/certs"
	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/alert"
	"postern/relay/config"
	"postern/relay/outbound"
	"postern/relay/queue"
	relaystore "postern/relay/store"
	"postern/relay/trace"
	"postern/relay/upstream"
)

// allEvents is a hook that hears of everything.
var allEvents = alert.Hook{URL: "https://hook.example.com", QueueAge: 2 * time.Hour, Events: []alert.Event{
	alert.UpstreamPaused, alert.QueueAge, alert.CertificateExpiry}}

// stand is a Monitor that looks when it is told to; what it tells stays open in its alerter.
func stand(t testing.TB, o Options) *Monitor {
	t.Helper()
	o.DataDir, o.Logger, o.Metrics = t.TempDir(), slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	m := New(o)
	m.Use("relay.example.com", []alert.Hook{allEvents})
	return m
}

// office is an upstream of a transport that says what it is told to.
func office(t testing.TB, says *fixed, block config.Upstream) *outbound.Upstream {
	t.Helper()
	block.Name = "provider"
	up, err := outbound.NewUpstream(says, block, nil)
	if err != nil {
		t.Fatal(err)
	}
	return up
}

func TestAnOldQueueIsTold(t *testing.T) {
	t.Parallel()
	s, err := relaystore.Open(t.Context(), relaystore.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	now := time.Now()
	m := &queue.Message{ID: mail.NewID(now), Login: "anna@example.com", Received: now, NextAttempt: now,
		Expires: now.Add(48 * time.Hour),
		Recipients: []queue.Recipient{{Recipient: mail.Recipient{To: mail.Address{Local: "b", Domain: "example.net"}},
			Status: queue.Pending}}}
	if err := s.Add(t.Context(), queue.NewMessage{Message: m,
		Content: mail.BytesContent("From: anna@example.com\r\n\r\n")}); err != nil {
		t.Fatal(err)
	}
	a := stand(t, Options{Store: s})
	look := func(age time.Duration) int {
		a.queueAge(t.Context(), now.Add(age))
		n := 0
		for _, c := range a.alerter.Open(alert.QueueAge) {
			if c.Threshold == 2*time.Hour { // the other one is the journal's
				n++
			}
		}
		return n
	}
	for _, c := range []struct {
		age  time.Duration
		want int
	}{{119 * time.Minute, 0}, {121 * time.Minute, 1}, {119 * time.Minute, 1}, {61 * time.Minute, 1}, {59 * time.Minute,
		0}, {119 * time.Minute, 0}, {3 * time.Hour, 1}} {
		if got := look(c.age); got != c.want {
			t.Errorf("%d conditions at an age of %s, want %d", got, c.age, c.want)
		}
	}
	d := a.alerter.Open(alert.QueueAge)[0]
	if d.Subject != "queue" || d.Details["messages"] != "1" || d.Details["threshold"] != "2h0m0s" ||
		!strings.Contains(d.Summary, "the oldest message for 3h") {
		t.Errorf("%+v", d)
	}
}

func TestCertificatesThatEndAreTold(t *testing.T) {
	t.Parallel()
	ca := testkit.NewCA(t)
	day := 24 * time.Hour
	soon := ca.Leaf(testkit.LeafOptions{NotAfter: time.Now().Add(20 * day)})
	later := ca.Leaf(testkit.LeafOptions{NotAfter: time.Now().Add(100 * day)})
	end := time.Now().Add(300 * day)
	a := stand(t, Options{
		Certs: func() []certs.Info { return []certs.Info{{File: "self-signed.crt", SelfSigned: true, NotAfter: end}} },
		InForce: func() InForce {
			up := office(t, &fixed{}, config.Upstream{CertFile: soon.CertFile})
			return InForce{Config: &config.Config{}, Routes: &outbound.Routes{Upstreams: []*outbound.Upstream{up}}}
		},
	})
	at := func(now time.Time) map[string]alert.Condition {
		a.certificates(t.Context(), now)
		all := make(map[string]alert.Condition)
		for _, c := range a.alerter.Open(alert.CertificateExpiry) {
			all[c.Subject] = c
		}
		return all
	}
	d, ok := at(time.Now())[soon.CertFile]
	if !ok || !strings.Contains(d.Summary, "in 19 days") || d.Details["used_by"] != "upstream provider" {
		t.Errorf("%+v", d)
	}
	for _, c := range []struct {
		now  time.Time
		want bool
	}{{end.Add(-30 * day), false}, {end.Add(-28 * day), true}, {end.Add(time.Hour), true}} {
		if _, got := at(c.now)["self-signed.crt"]; got != c.want {
			t.Errorf("%s before the end of a self-signed certificate: told %v", end.Sub(c.now), got)
		}
	}
	if err := os.WriteFile(soon.CertFile, later.CertPEM, 0o644); err != nil {
		t.Fatal(err)
	}
	if d, ok := at(time.Now())[soon.CertFile]; ok {
		t.Errorf("%+v", d)
	}
}

// What is known to help stands in the alert.
func TestAPausedUpstreamIsToldWithAdvice(t *testing.T) {
	u := config.Upstream{Name: "office", Provider: "microsoft365", Host: "smtp.office365.com",
		Username: "scan@contoso.example"}
	st := upstream.State{Identity: u.Username, Status: upstream.Paused,
		Until: time.Date(2026, 11, 22, 10, 5, 0, 0, time.UTC),
		Reply: mail.R(535, "5.7.139", "Authentication unsuccessful, SmtpClientAuthentication is disabled for the "+
			"Tenant.")}
	c := pausedCondition(u, st)
	for _, want := range []string{"535 5.7.139", "tried again at 10:05 UTC",
		"switched off for the whole Microsoft 365 tenant", "Set-CASMailbox -Identity scan@contoso.example"} {
		if !strings.Contains(c.Summary, want) {
			t.Errorf("no %q in %s", want, c.Summary)
		}
	}
	u.Provider, st.Reply = "generic", mail.R(535, "5.7.8", "no")
	if c = pausedCondition(u, st); !strings.Contains(c.Summary, "What to do: ") {
		t.Errorf("%s", c.Summary)
	}
}

// Only what an upstream took proves that it works.
func TestWhatEndsAPause(t *testing.T) {
	t.Parallel()
	a := stand(t, Options{})
	up := office(t, &fixed{}, config.Upstream{Username: "relay"})
	st := &outbound.Routes{Upstreams: []*outbound.Upstream{up}}
	holds := func(want bool, what string) {
		t.Helper()
		if open := a.alerter.Open(alert.UpstreamPaused); (len(open) > 0) != want {
			t.Errorf("%s: %+v", what, open)
		}
	}
	begin := func(u config.Upstream) {
		a.alerter.Begin(pausedCondition(u, upstream.State{Identity: "relay", Reply: mail.R(535, "5.7.8", "no")}))
		a.upstreams(st, time.Now())
	}
	begin(up.Config)
	holds(true, "an identity that was not tried, as after a restart")
	a.attempted(trace.Event{Kind: trace.Deferred, Class: mail.Deferral.String(), Upstream: "provider",
		Identity: "relay"})
	a.attempted(trace.Event{Kind: trace.Delivered, Upstream: "other", Identity: "relay"})
	a.attempted(trace.Event{Kind: trace.Delivered, Upstream: "provider", Identity: "another"})
	a.upstreams(st, time.Now())
	holds(true, "what proves nothing")
	a.attempted(trace.Event{Kind: trace.Delivered, Upstream: "provider", Identity: "relay"})
	a.upstreams(st, time.Now())
	holds(false, "a delivery")
	refused := trace.Event{Kind: trace.Deferred, Class: mail.AccountFault.String(), Stage: string(mail.StageDot),
		Upstream: "provider", Identity: "relay", From: "a@example.com"}
	delivered := refused
	delivered.Kind, delivered.Class = trace.Delivered, mail.Delivered.String()
	a.attempted(refused)
	a.upstreams(st, time.Now())
	holds(true, "a sender that is refused")
	a.attempted(refused)
	a.attempted(delivered)
	a.upstreams(st, time.Now())
	holds(false, "a sender whose mail was taken last")
	a.attempted(delivered)
	a.attempted(refused)
	a.upstreams(st, time.Now())
	holds(true, "a sender whose mail was refused last")
	a.attempted(delivered)
	a.upstreams(st, time.Now())
	holds(false, "the end of it")
	begin(up.Config)
	a.paused = map[*outbound.Upstream]map[string]bool{up: {"relay": true}}
	a.upstreams(st, time.Now())
	holds(false, "what was seen paused and works")
	begin(up.Config)
	a.paused = map[*outbound.Upstream]map[string]bool{up: {"relay": true}}
	a.attempted(delivered)
	a.attempts(st, time.Now())
	holds(true, "a delivery that was under way when the others were refused")
	a.upstreams(st, time.Now())
	gone := up.Config
	gone.Name = "gone"
	begin(gone)
	holds(false, "an upstream that left the configuration")
}

// fixed is a transport that says what it is told to. It lets in nobody but the username, which delivers.
type fixed struct {
	upstream.Transport
	states []upstream.State
}

func (f *fixed) States() []upstream.State { return f.states }

func (f *fixed) Reserve(_ time.Time, identity string) (upstream.Slot, time.Time) {
	return fixedSlot(identity), time.Time{}
}

type fixedSlot string

func (s fixedSlot) Release() {}

func (s fixedSlot) Send(context.Context, upstream.Transaction) []mail.Result {
	if s != "" {
		return []mail.Result{{Class: mail.AccountFault, Stage: mail.StageAuth, Reply: mail.R(535, "5.7.8", "no"),
			Identity: string(s)}}
	}
	return []mail.Result{{Class: mail.Delivered, Reply: mail.R(250, "2.0.0", "taken"), Identity: "relay"}}
}

// deliver sends one message of a login's own mailbox.
func deliver(t *testing.T, routes *outbound.Routes, from mail.Address) {
	t.Helper()
	d := outbound.New(outbound.Options{Routes: func() *outbound.Routes { return routes }, Changed: func() {},
		Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	m := &queue.Message{ID: "m", Login: from.String(), Envelope: mail.Envelope{From: from},
		Recipients: []queue.Recipient{{Recipient: mail.Recipient{To: from}, Status: queue.Pending}}}
	slot, _ := d.ReserveNow(time.Now(), m)
	if slot == nil {
		t.Fatal("no slot")
	}
	defer slot.Release()
	slot.Attempt(t.Context(), m, mail.BytesContent("From: "+from.String()+"\r\n\r\n"), nil, nil)
}

func TestWhichPausesAreTold(t *testing.T) {
	t.Parallel()
	a := stand(t, Options{})
	says := &fixed{}
	up := office(t, says, config.Upstream{Username: "relay", OAuth: &config.OAuth{Identity: config.IdentitySender}})
	st := &outbound.Routes{Upstreams: []*outbound.Upstream{up}}
	now := time.Now()
	look := func(identity string, status upstream.Status, since time.Duration, want bool) {
		t.Helper()
		says.states = nil
		if status != "" {
			says.states = []upstream.State{{Identity: identity, Status: status, Since: now.Add(-since)}}
		}
		a.upstreams(st, now)
		if open := a.alerter.Open(alert.UpstreamPaused); (len(open) > 0) != want {
			t.Errorf("%s %s since %s: %+v", identity, status, since, open)
		}
	}
	look("relay", upstream.BackingOff, time.Hour, false) // it cannot be reached: nobody's account
	look("relay", upstream.Paused, 0, true)
	look("relay", upstream.BackingOff, time.Hour, true) // that proves nothing
	look("relay", upstream.Ready, 0, false)
	look("relay", upstream.Paused, 0, true)
	look("relay", "", 0, false) // only what works is forgotten
	const person = "anna@contoso.example"
	look(person, upstream.Paused, time.Second, false) // it may have no mailbox, then its mail goes as relay
	look(person, upstream.Paused, identityGrace, true)
	deliver(t, st, mail.Address{Local: "anna", Domain: "contoso.example"})
	look(person, upstream.Paused, time.Hour, false)
}
