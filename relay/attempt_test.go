package relay

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/queue"
	"postern/relay/upstream"
)

// brittle is a transport with one place, where what is sent panics.
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
	return &brittlePlace{b: b}, time.Time{}
}

type brittlePlace struct {
	b    *brittle
	done bool
}

func (p *brittlePlace) Send(_ context.Context, t upstream.Transaction) []mail.Result {
	return p.b.send(t)
}

func (p *brittlePlace) Release() {
	if !p.done {
		p.done = true
		p.b.released++
	}
}

func queued(to ...string) *queue.Message {
	m := &queue.Message{ID: mail.NewID(time.Now()), Login: rigLogin, Attempts: 1, Envelope: mail.Envelope{From: mail.Address{Local: "anna", Domain: "example.com"}}}
	for _, local := range to {
		m.Recipients = append(m.Recipients, queue.Recipient{Recipient: mail.Recipient{To: mail.Address{Local: local, Domain: "example.net"}}, Status: queue.Pending})
	}
	return m
}

// A message that makes an attempt panic, wherever, is deferred, and its place is there for the next.
func TestPanicGivesThePlaceBack(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	st := r.server.state.Load()
	b := &brittle{Transport: st.routes.Upstreams[0].Transport}
	st.routes.Upstreams[0].Transport = b
	defer func() { st.routes.Upstreams[0].Transport = b.Transport }()
	attempt := func(what string, c mail.Content) {
		t.Helper()
		m := queued("bob")
		ticket, wait := r.server.outbound.ReserveNow(time.Now(), m)
		if ticket == nil {
			t.Fatalf("%s: no place: %+v", what, wait)
		}
		results := ticket.Attempt(t.Context(), m, c, nil)
		if len(results) != 1 || results[0].Class != mail.Deferral {
			t.Errorf("%s: results %+v", what, results)
		}
		ticket.Release()
		if b.taken != b.released {
			t.Errorf("%s: %d places were taken and %d given back", what, b.taken, b.released)
		}
	}
	content := mail.BytesContent(plainMessage)
	b.send = func(upstream.Transaction) []mail.Result { panic("in the transport") }
	attempt("the transport panics", content)
	b.send = func(t upstream.Transaction) []mail.Result { t.Prefix(context.Background()); return nil }
	attempt("the signer panics", nil)
	b.send = func(upstream.Transaction) []mail.Result { return []mail.Result{{Recipient: 7}} }
	attempt("the results make no sense", content)
}

// A panic behind what was taken does not have that sent again.
func TestPanicKeepsWhatWasTaken(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	st := r.server.state.Load()
	b := &brittle{Transport: st.routes.Upstreams[0].Transport}
	st.routes.Upstreams[0].Transport = b
	defer func() { st.routes.Upstreams[0].Transport = b.Transport }()
	b.send = func(tx upstream.Transaction) []mail.Result {
		tx.Taken([]mail.Result{{Recipient: 1, Class: mail.Delivered, Reply: mail.R(250, "2.0.0", "taken")}})
		panic("in the second transaction")
	}
	m := queued("ann", "ben", "cid")
	ticket, _ := r.server.outbound.ReserveNow(time.Now(), m)
	if ticket == nil {
		t.Fatal("no place")
	}
	var classes []mail.Class
	for _, r := range ticket.Attempt(t.Context(), m, mail.BytesContent(plainMessage), nil) {
		classes = append(classes, r.Class)
	}
	if want := []mail.Class{mail.Deferral, mail.Delivered, mail.Deferral}; !slices.Equal(classes, want) {
		t.Errorf("results %v, want %v", classes, want)
	}
	ticket.Release()
}

// Nor does one in what is only said about the results.
func TestPanicInCommentsKeepsTheResults(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	up := r.server.state.Load().routes.Upstreams[0]
	b, storms := &brittle{Transport: up.Transport}, up.storms
	up.Transport, up.storms = b, nil // of which review makes a panic
	defer func() { up.Transport, up.storms = b.Transport, storms }()
	b.send = func(tx upstream.Transaction) []mail.Result {
		results := []mail.Result{{Class: mail.Delivered, Reply: mail.R(250, "2.0.0", "taken")}}
		if tx.Review(results) != upstream.Believed {
			t.Error("what cannot be reviewed is not believed")
		}
		return results
	}
	m := queued("ann")
	ticket, _ := r.server.outbound.ReserveNow(time.Now(), m)
	if ticket == nil {
		t.Fatal("no place")
	}
	if rs := ticket.Attempt(t.Context(), m, mail.BytesContent(plainMessage), nil); len(rs) != 1 || rs[0].Class != mail.Delivered {
		t.Errorf("results %+v", rs)
	}
	ticket.Release()
	if !strings.Contains(r.log.String(), "fault of ours") {
		t.Error("the log does not say it")
	}
}

// Where the route of one recipient is paused, the message is tried for the others; it waits for a place of theirs too.
func TestPausedRouteHoldsUpNoOther(t *testing.T) {
	p := newProvider(t)
	_, port, _ := strings.Cut(p.address, ":")
	r := newRig(t, p, fmt.Sprintf(`[[upstream]]
		name = "second"
		host = "127.0.0.1"
		port = %s
		ca_file = %q
		username = "relay"
		password = "upstream secret"
		[[route]]
		recipients = ["ann@example.net"]
		upstreams = ["provider"]
		[[route]]
		recipients = ["ben@example.net"]
		upstreams = ["second"]`, port, p.caFile))
	st := r.server.state.Load()
	var ups [2]*brittle
	for i, name := range []string{"provider", "second"} {
		up := st.routes.upstream(name)
		was := up.Transport
		ups[i] = &brittle{Transport: was, send: func(tx upstream.Transaction) []mail.Result {
			return []mail.Result{{Class: mail.Delivered, Reply: mail.R(250, "2.0.0", "taken")}}
		}}
		up.Transport = ups[i]
		defer func() { up.Transport = was }()
	}
	now := time.Now()
	ups[0].until = now.Add(2 * time.Hour)
	m := queued("ann", "ben")
	ticket, _ := r.server.outbound.ReserveNow(now, m)
	if ticket == nil {
		t.Fatal("no place at the upstream that works")
	}
	if _, wait := r.server.outbound.ReserveNow(now, m); !wait.Until.IsZero() || wait.Key != "second" {
		t.Errorf("wait %+v while the other is busy", wait)
	}
	results := ticket.Attempt(t.Context(), m, mail.BytesContent(plainMessage), nil)
	if len(results) != 2 || results[0].Class != mail.BackPressure || results[1].Class != mail.Delivered {
		t.Errorf("results %+v", results)
	}
	ticket.Release()
	ups[1].until = now.Add(time.Hour)
	for _, to := range [][]string{{"ann", "ben"}, {"ben", "ann"}} {
		_, wait := r.server.outbound.ReserveNow(now, queued(to...))
		if want := (queue.Wait{Key: "second", Route: "provider; second", Until: ups[1].until}); wait != want {
			t.Errorf("%v: wait %+v, want %+v", to, wait, want)
		}
	}
	if _, wait := r.server.outbound.ReserveNow(now, queued("ann")); wait.Key != "provider" || wait.Route != "" {
		t.Errorf("wait %+v", wait)
	}
}

// A place that took mail is kept until Release; one that did not is free at once.
func TestPlaceIsKeptByWhatWasTaken(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	st := r.server.state.Load()
	b := &brittle{Transport: st.routes.Upstreams[0].Transport}
	st.routes.Upstreams[0].Transport = b
	defer func() { st.routes.Upstreams[0].Transport = b.Transport }()
	for class, kept := range map[mail.Class]int{mail.Delivered: 1, mail.RecipientFault: 0, mail.Deferral: 0, mail.AccountFault: 0} {
		b.send = func(upstream.Transaction) []mail.Result {
			return []mail.Result{{Class: class, Reply: mail.R(250, "2.0.0", "said")}}
		}
		m := queued("bob")
		ticket, _ := r.server.outbound.ReserveNow(time.Now(), m)
		if ticket == nil {
			t.Fatal("no place")
		}
		ticket.Attempt(t.Context(), m, mail.BytesContent(plainMessage), nil)
		if n := b.taken - b.released; n != kept {
			t.Errorf("%v: %d places are kept, want %d", class, n, kept)
		}
		ticket.Release()
		ticket.Release()
		if b.taken != b.released {
			t.Errorf("%v: %d places were taken and %d given back", class, b.taken, b.released)
		}
	}
}

// Where an attempt goes on after some recipients were taken, it says so first.
func TestPartsAreToldBeforeTheRest(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	st := r.server.state.Load()
	b := &brittle{Transport: st.routes.Upstreams[0].Transport}
	st.routes.Upstreams[0].Transport = b
	defer func() { st.routes.Upstreams[0].Transport = b.Transport }()
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
	ticket, _ := r.server.outbound.ReserveNow(time.Now(), m)
	if ticket == nil {
		t.Fatal("no place")
	}
	defer ticket.Release()
	ticket.Attempt(t.Context(), m, mail.BytesContent(plainMessage), func(taken []mail.Result) {
		for _, r := range taken {
			told = append(told, fmt.Sprint(r.Recipient))
		}
	})
	if want := []string{"1", "sent"}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}

// What goes in more than one transaction is durable before the first: a kill between two repeats nothing.
func TestPartsAreNotHandedOff(t *testing.T) {
	p := newProvider(t)
	r := newRig(t, p, "upstream:max_recipients = 2\n")
	reply, err := r.send("anna@example.com", []string{"ann@example.net", "ben@example.net", "cid@example.net"}, plainMessage)
	if err != nil || !strings.Contains(reply, "queued as") {
		t.Errorf("got %q, %v; want it queued", reply, err)
	}
	if got := p.wait(2); len(got[0].to)+len(got[1].to) != 3 {
		t.Errorf("%v and %v", got[0].to, got[1].to)
	}
	reply, err = r.send("anna@example.com", []string{"ann@example.net", "ben@example.net"}, plainMessage)
	if err != nil || !strings.Contains(reply, "taken by") {
		t.Errorf("got %q, %v; want it handed off", reply, err)
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
	r := newRig(t, newProvider(t), "")
	st := r.server.state.Load()
	for doubts, last := range map[int]bool{0: false, 1: false, 2: true} {
		m := &queue.Message{ID: "m", Login: rigLogin, Envelope: mail.Envelope{From: mail.Address{Local: "anna", Domain: "example.com"}},
			Author:     mail.Address{Local: "anna", Domain: "example.com"},
			Recipients: []queue.Recipient{{Recipient: mail.Recipient{To: mail.Address{Local: "bob", Domain: "example.net"}}, Status: queue.Pending, Doubts: doubts}}}
		p := &onePlace{}
		a := &attempt{d: r.server.outbound, routes: st.routes, message: m, content: mail.BytesContent([]byte(plainMessage))}
		a.transact(t.Context(), p, st.routes.Upstreams[0], []int{0})
		if p.sent.Doubts != doubts || p.sent.Last != last {
			t.Errorf("%d doubts: the upstream hears of %d, last %v", doubts, p.sent.Doubts, p.sent.Last)
		}
	}
}

// What one identity may have delivered, before its next connection was not let in, is not sent as another at once.
func TestNoOtherIdentityInDoubt(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	st := r.server.state.Load()
	was := st.routes.Upstreams[0]
	up, _ := NewUpstream(was.Transport, was.Config, nil)
	up.Config.OAuth = &config.OAuth{Identity: config.IdentitySender}
	sent := 0
	b := &brittle{Transport: was.Transport}
	up.Transport = b
	for uncertain, want := range map[bool]int{true: 1, false: 2} {
		sent = 0
		b.send = func(tx upstream.Transaction) []mail.Result {
			sent++
			if sent > 1 {
				return []mail.Result{{Class: mail.Delivered, Reply: mail.R(250, "2.0.0", "taken"), Identity: up.Config.Username}}
			}
			return []mail.Result{{Class: mail.AccountFault, Stage: mail.StageAuth, Reply: mail.R(535, "5.7.8", "no"), Identity: "anna@example.com", Uncertain: uncertain}}
		}
		tk := &attempt{d: r.server.outbound, routes: st.routes, message: queued("bob"), content: mail.BytesContent(plainMessage)}
		slot, _ := b.Reserve(time.Now(), "")
		b.taken = 0 // there are places enough
		results := tk.sendAs(t.Context(), slot, up, []int{0})
		if sent != want || results[0].Uncertain != uncertain {
			t.Errorf("uncertain %v: sent %d times, %+v", uncertain, sent, results)
		}
		tk.Release()
		b.taken, b.released = 0, 0
	}
}
