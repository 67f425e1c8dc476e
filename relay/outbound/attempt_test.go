package outbound

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/queue"
	"postern/relay/sign"
	"postern/relay/upstream"
)

// brittle is a transport with one slot, where what is sent panics.
type brittle struct {
	upstream.Transport
	taken, released int
	until           time.Time // paused, if not zero
	send            func(upstream.Transaction) []mail.Result
}

func (b *brittle) Reserve(time.Time, string) (upstream.Slot, time.Time) {
	if b.taken > b.released || !b.until.IsZero() {
		return nil, b.until
	}
	b.taken++
	return &brittleSlot{b: b}, time.Time{}
}

type brittleSlot struct {
	b    *brittle
	done bool
}

func (p *brittleSlot) Send(_ context.Context, t upstream.Transaction) []mail.Result {
	return p.b.send(t)
}

func (p *brittleSlot) Release() {
	if !p.done {
		p.done = true
		p.b.released++
	}
}

func queued(to ...string) *queue.Message {
	anna := mail.Address{Local: "anna", Domain: "example.com"}
	m := &queue.Message{ID: mail.NewID(time.Now()), Login: "anna@example.com", Attempts: 1, Author: anna,
		Envelope: mail.Envelope{From: anna}}
	for _, local := range to {
		to := mail.Address{Local: local, Domain: "example.net"}
		m.Recipients = append(m.Recipients, queue.Recipient{Recipient: mail.Recipient{To: to}, Status: queue.Pending})
	}
	return m
}

var content = mail.BytesContent("From: anna@example.com\r\nSubject: hello\r\n\r\nHello.\r\n")

// noStore has nothing.
type noStore struct{ Store }

func (noStore) Content(context.Context, string) (mail.Content, error) {
	return nil, errors.New("not there")
}

// provider is an upstream of transport t.
func provider(t *testing.T, name string, transport upstream.Transport) *Upstream {
	t.Helper()
	up, err := NewUpstream(transport, config.Upstream{Name: name, Username: "relay", MaxConnections: 8,
		MaxRecipients: 100,
		DKIM:          config.DKIMSign}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return up
}

// dispatcherFor is one of some upstreams, and its log.
func dispatcherFor(t *testing.T, ups ...*Upstream) (*Dispatcher, *bytes.Buffer) {
	t.Helper()
	signer, _, err := sign.Generate(sign.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	routes := &Routes{Upstreams: ups, hostname: "relay.example.com",
		Ring: sign.NewRing([]sign.Key{{Domain: "example.com", Selector: "s", Signer: signer}})}
	return New(Options{
		Routes: func() *Routes { return routes }, Changed: func() {},
		Store: noStore{}, Logger: slog.New(slog.NewTextHandler(&log, nil)), Metrics: prometheus.NewRegistry(),
	}), &log
}

// A message that makes an attempt panic, wherever, is deferred, and its slot is there for the next.
func TestPanicGivesTheSlotBack(t *testing.T) {
	b := &brittle{}
	d, _ := dispatcherFor(t, provider(t, "provider", b))
	attempt := func(what string, c mail.Content) {
		t.Helper()
		m := queued("bob")
		slot, wait := d.ReserveNow(time.Now(), m)
		if slot == nil {
			t.Fatalf("%s: no slot: %+v", what, wait)
		}
		results := slot.Attempt(t.Context(), m, c, nil, nil)
		if len(results) != 1 || results[0].Class != mail.Deferral {
			t.Errorf("%s: results %+v", what, results)
		}
		slot.Release()
		if b.taken != b.released {
			t.Errorf("%s: %d slots were taken and %d given back", what, b.taken, b.released)
		}
	}
	b.send = func(upstream.Transaction) []mail.Result { panic("in the transport") }
	attempt("the transport panics", content)
	b.send = func(t upstream.Transaction) []mail.Result { t.Prefix(context.Background()); return nil }
	attempt("the signer panics", nil)
	b.send = func(upstream.Transaction) []mail.Result { return []mail.Result{{Recipient: 7}} }
	attempt("the results make no sense", content)
}

// What cannot be prepared for an upstream stays here, and nobody blames a key for it.
func TestWhatCannotBePreparedStays(t *testing.T) {
	b := &brittle{send: func(upstream.Transaction) []mail.Result { t.Error("it was sent"); return nil }}
	up := provider(t, "provider", b)
	up.fields = []mail.Field{mail.NewField("X-Stream", "outbound")}
	d, _ := dispatcherFor(t, up)
	m := queued("bob")
	slot, _ := d.ReserveNow(time.Now(), m)
	results := slot.Attempt(t.Context(), m, mail.BytesContent("no header at all"), nil, nil)
	slot.Release()
	if len(results) != 1 || results[0].Class != mail.Deferral || results[0].Err == nil ||
		results[0].Reply.Enhanced != "4.3.0" || strings.Contains(results[0].Reply.Text, "sign") {
		t.Errorf("results %+v", results)
	}
	if b.taken != b.released {
		t.Errorf("%d slots were taken and %d given back", b.taken, b.released)
	}
}

// A panic behind what was taken does not have that sent again.
func TestPanicKeepsWhatWasTaken(t *testing.T) {
	b := &brittle{}
	d, _ := dispatcherFor(t, provider(t, "provider", b))
	b.send = func(tx upstream.Transaction) []mail.Result {
		tx.Taken([]mail.Result{{Recipient: 1, Class: mail.Delivered, Reply: mail.R(250, "2.0.0", "taken")}})
		panic("in the second transaction")
	}
	m := queued("ann", "ben", "cid")
	slot, _ := d.ReserveNow(time.Now(), m)
	if slot == nil {
		t.Fatal("no slot")
	}
	var classes []mail.Class
	for _, r := range slot.Attempt(t.Context(), m, content, nil, nil) {
		classes = append(classes, r.Class)
	}
	if want := []mail.Class{mail.Deferral, mail.Delivered, mail.Deferral}; !slices.Equal(classes, want) {
		t.Errorf("results %v, want %v", classes, want)
	}
	slot.Release()
}

// Nor does one in what is only said about the results.
func TestPanicInCommentsKeepsTheResults(t *testing.T) {
	b := &brittle{}
	up := provider(t, "provider", b)
	up.storms = nil // of which review makes a panic
	d, log := dispatcherFor(t, up)
	b.send = func(tx upstream.Transaction) []mail.Result {
		results := []mail.Result{{Class: mail.Delivered, Reply: mail.R(250, "2.0.0", "taken")}}
		if tx.Review(results) != upstream.Believed {
			t.Error("what cannot be reviewed is not believed")
		}
		return results
	}
	m := queued("ann")
	slot, _ := d.ReserveNow(time.Now(), m)
	if slot == nil {
		t.Fatal("no slot")
	}
	if rs := slot.Attempt(t.Context(), m, content, nil, nil); len(rs) != 1 || rs[0].Class != mail.Delivered {
		t.Errorf("results %+v", rs)
	}
	slot.Release()
	if !strings.Contains(log.String(), "fault of ours") {
		t.Error("the log does not say it")
	}
}

// Where the route of one recipient is paused, the message is tried for the others; it waits for a slot of theirs too.
func TestPausedRouteHoldsUpNoOther(t *testing.T) {
	taken := func(upstream.Transaction) []mail.Result {
		return []mail.Result{{Class: mail.Delivered, Reply: mail.R(250, "2.0.0", "taken")}}
	}
	ups := [2]*brittle{{send: taken}, {send: taken}}
	d, _ := dispatcherFor(t, provider(t, "provider", ups[0]), provider(t, "second", ups[1]))
	err := d.Routes().compile([]config.Route{{Recipients: []string{"ann@example.net"}, Upstreams: []string{"provider"}},
		{Recipients: []string{"ben@example.net"}, Upstreams: []string{"second"}}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	ups[0].until = now.Add(2 * time.Hour)
	m := queued("ann", "ben")
	slot, _ := d.ReserveNow(now, m)
	if slot == nil {
		t.Fatal("no slot at the upstream that works")
	}
	if _, wait := d.ReserveNow(now, m); !wait.Until.IsZero() || wait.Key != "second" {
		t.Errorf("wait %+v while the other is busy", wait)
	}
	results := slot.Attempt(t.Context(), m, content, nil, nil)
	if len(results) != 2 || results[0].Class != mail.BackPressure || results[1].Class != mail.Delivered {
		t.Errorf("results %+v", results)
	}
	slot.Release()
	ups[1].until = now.Add(time.Hour)
	for _, to := range [][]string{{"ann", "ben"}, {"ben", "ann"}} {
		_, wait := d.ReserveNow(now, queued(to...))
		if want := (queue.Wait{Key: "second", Route: "provider; second", Until: ups[1].until}); wait != want {
			t.Errorf("%v: wait %+v, want %+v", to, wait, want)
		}
	}
	if _, wait := d.ReserveNow(now, queued("ann")); wait.Key != "provider" || wait.Route != "" {
		t.Errorf("wait %+v", wait)
	}
}

// A slot that took mail is kept until Release; one that did not is free at once.
func TestPlaceIsKeptByWhatWasTaken(t *testing.T) {
	b := &brittle{}
	d, _ := dispatcherFor(t, provider(t, "provider", b))
	for class, kept := range map[mail.Class]int{mail.Delivered: 1, mail.RecipientFault: 0, mail.Deferral: 0,
		mail.AccountFault: 0} {
		b.send = func(upstream.Transaction) []mail.Result {
			return []mail.Result{{Class: class, Reply: mail.R(250, "2.0.0", "said")}}
		}
		m := queued("bob")
		slot, _ := d.ReserveNow(time.Now(), m)
		if slot == nil {
			t.Fatal("no slot")
		}
		slot.Attempt(t.Context(), m, content, nil, nil)
		if n := b.taken - b.released; n != kept {
			t.Errorf("%v: %d slots are kept, want %d", class, n, kept)
		}
		slot.Release()
		slot.Release()
		if b.taken != b.released {
			t.Errorf("%v: %d slots were taken and %d given back", class, b.taken, b.released)
		}
	}
}

// Where an attempt goes on after some recipients were taken, it says so first.
func TestPartsAreToldBeforeTheRest(t *testing.T) {
	b := &brittle{}
	d, _ := dispatcherFor(t, provider(t, "provider", b))
	var told []string
	b.send = func(tx upstream.Transaction) []mail.Result {
		results := make([]mail.Result, len(tx.Recipients))
		for i := range results {
			results[i] = mail.Result{Recipient: i, Class: mail.Delivered, Reply: mail.R(250, "2.0.0", "taken")}
		}
		tx.Taken(slices.Clone(results[:1])) // as if the envelope had been split
		told = append(told, "sent")
		return results
	}
	m := queued("ann", "ben", "cid")
	m.Recipients[0].Status = queue.Delivered // by an earlier attempt
	slot, _ := d.ReserveNow(time.Now(), m)
	if slot == nil {
		t.Fatal("no slot")
	}
	defer slot.Release()
	slot.Attempt(t.Context(), m, content, nil, func(taken []mail.Result) {
		for _, r := range taken {
			told = append(told, fmt.Sprint(r.Recipient))
		}
	})
	if want := []string{"1", "sent"}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}

// onePlace keeps the transaction that it is given.
type onePlace struct{ sent upstream.Transaction }

func (p *onePlace) Send(_ context.Context, t upstream.Transaction) []mail.Result {
	p.sent = t
	return []mail.Result{{Class: mail.Deferral, Uncertain: true, Reply: mail.R(451, "4.4.2", "closed")}}
}
func (p *onePlace) Release() {}

// An upstream is told how often it may have got the message, and when this is the last try without an answer.
func TestDoubtsAreToldToTheUpstream(t *testing.T) {
	up := provider(t, "provider", nil)
	d, _ := dispatcherFor(t, up)
	for doubts, last := range map[int]bool{0: false, 1: false, 2: true} {
		p, m := &onePlace{}, queued("bob")
		m.Recipients[0].Doubts = doubts
		a := &attempt{d: d, routes: d.Routes(), message: m, content: content}
		a.transact(t.Context(), p, up, []int{0})
		if p.sent.Doubts != doubts || p.sent.Last != last {
			t.Errorf("%d doubts: the upstream hears of %d, last %v", doubts, p.sent.Doubts, p.sent.Last)
		}
	}
}

// What one identity may have delivered, before its next connection was not let in, is not sent as another at once.
func TestNoOtherIdentityInDoubt(t *testing.T) {
	b := &brittle{}
	up := provider(t, "provider", b)
	d, _ := dispatcherFor(t, up)
	up.Config.OAuth = &config.OAuth{Identity: config.IdentitySender}
	sent := 0
	for uncertain, want := range map[bool]int{true: 1, false: 2} {
		sent = 0
		b.send = func(tx upstream.Transaction) []mail.Result {
			sent++
			if sent > 1 {
				return []mail.Result{{Class: mail.Delivered, Reply: mail.R(250, "2.0.0", "taken"),
					Identity: up.Config.Username}}
			}
			return []mail.Result{{Class: mail.AccountFault, Stage: mail.StageAuth, Reply: mail.R(535, "5.7.8", "no"),
				Identity: "anna@example.com", Uncertain: uncertain}}
		}
		tk := &attempt{d: d, routes: d.Routes(), message: queued("bob"), content: content}
		slot, _ := b.Reserve(time.Now(), "")
		b.taken = 0 // there are slots enough
		results := tk.sendAs(t.Context(), slot, up, []int{0})
		if sent != want || results[0].Uncertain != uncertain {
			t.Errorf("uncertain %v: sent %d times, %+v", uncertain, sent, results)
		}
		tk.Release()
		b.taken, b.released = 0, 0
	}
}

// Another upstream is tried for what concerns this one, never for the message or its recipients, nor where this one may
// have the message already.
func TestFailOver(t *testing.T) {
	results := []mail.Result{
		{Class: mail.Delivered}, {Class: mail.RecipientFault}, {Class: mail.MessageFault}, {Class: mail.Deferral},
		{Class: mail.AccountFault}, {Class: mail.BackPressure},
		{Class: mail.AccountFault, Uncertain: true}, {Class: mail.BackPressure, Uncertain: true}, {Class: mail.Deferral,
			Uncertain: true},
	}
	for i := range results {
		results[i].Recipient = i
	}
	if got := failOver(results); !slices.Equal(got, []int{4, 5}) {
		t.Errorf("the next upstream is tried for %v", got)
	}
}

// What is sent knows its lease, and that it ran out is no reason to try the next upstream.
func TestAttemptPassesTheLeaseOn(t *testing.T) {
	var left []time.Duration
	first := &brittle{send: func(tx upstream.Transaction) []mail.Result {
		left = append(left, tx.Left())
		return []mail.Result{{Class: mail.Deferral, Stage: mail.StageData, Reply: upstream.ReplyLease,
			Err: upstream.ErrLease}}
	}}
	second := &brittle{send: func(upstream.Transaction) []mail.Result {
		t.Error("the next upstream was tried")
		return nil
	}}
	d, _ := dispatcherFor(t, provider(t, "first", first), provider(t, "second", second))
	for _, lease := range []*queue.Lease{nil, {}} { // neither ends
		m := queued("bob")
		slot, _ := d.ReserveNow(time.Now(), m)
		results := slot.Attempt(t.Context(), m, content, lease, nil)
		if len(results) != 1 || results[0].Class != mail.Deferral || results[0].Reply != upstream.ReplyLease {
			t.Errorf("results %+v", results)
		}
		slot.Release()
	}
	if len(left) != 2 || min(left[0], left[1]) < 24*time.Hour {
		t.Errorf("left %v", left)
	}
}
