package account_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/account"
	"postern/relay/upstream/account/accounttest"
)

// pass lets time pass for nodes that cut off what has to be.
func pass(d time.Duration, nodes ...*node) {
	(&world{nodes: nodes}).pass(d)
}

// A write that was given up may take place yet. Until that is known nothing that it gives back is used, whenever it is
// that another node wants it.
func TestLateWriteTakesNothingThatIsUsed(t *testing.T) {
	for from := 9 * time.Second; from < 11*time.Second; from += 250 * time.Millisecond {
		for wanted := time.Duration(0); wanted < 1500*time.Millisecond; wanted += 50 * time.Millisecond {
			synctest.Test(t, func(t *testing.T) { lateWrite(t, from, wanted) })
		}
	}
}

func lateWrite(t *testing.T, from, wanted time.Duration) {
	p := &provider{t: t, limit: 2}
	m := accounttest.New(time.Hour)
	a, b := two(t, m, p)
	within(t, 2*time.Second, "a has both slots", func() bool { a.begin(); return len(a.sending) == 2 })
	a.lose()
	pass(from, a, b) // after a while a gives back what it has not used
	m.Set(accounttest.UntilLate)
	pass(500*time.Millisecond, a, b)
	m.Set(accounttest.None)
	for began := time.Now(); time.Since(began) < 5*time.Second; pass(50*time.Millisecond, a, b) {
		for len(a.sending) < 2 && a.begin() {
		}
		if time.Since(began) >= wanted {
			b.begin()
		}
	}
	if n := len(a.sending) + len(b.sending); n != 2 {
		t.Errorf("%d of 2 slots are used", n)
	}
	a.close(t)
	b.close(t)
}

// While an answer is on its way nothing is used that it gives back, whenever it is that a node wants it after all. At a
// rate of one only one of two slots is of use.
func TestWhatIsGivenBackIsNotTakenMeanwhile(t *testing.T) {
	for _, rate := range []int64{0, 1} {
		first, second := false, false
		for wanted := time.Duration(0); wanted < 3*time.Second; wanted += 30 * time.Millisecond {
			synctest.Test(t, func(t *testing.T) {
				a, b := givenBack(t, rate, wanted)
				first, second = first || a > 0, second || b > 0
			})
		}
		if !first || !second {
			t.Errorf("at a rate of %d one node had everything", rate)
		}
	}
}

func givenBack(t *testing.T, rate int64, wanted time.Duration) (first, second int) {
	p := &provider{t: t, limit: 2, rate: rate}
	m := accounttest.New(0)
	a, b := two(t, m, p)
	most := 2 - int(rate)
	within(t, 2*time.Second, "a has them", func() bool { a.begin(); return len(a.sending) == most })
	a.lose()
	m.Set(accounttest.Slow)
	for began := time.Now(); time.Since(began) < 6*time.Second; pass(30*time.Millisecond, a, b) {
		if len(b.sending) < 2 {
			b.begin()
		}
		for time.Since(began) >= wanted && len(a.sending) < most && a.begin() {
		}
	}
	first, second = len(a.sending), len(b.sending)
	for _, n := range []*node{a, b} {
		for len(n.sending) > 0 {
			n.end(works)
		}
		n.close(t)
	}
	return first, second
}

// Of two that find different faults at once one is believed, by both.
func TestNodesAgreeOnAFault(t *testing.T) {
	for _, fault := range []accounttest.Fault{accounttest.None, accounttest.Slow, accounttest.Unheard} {
		synctest.Test(t, func(t *testing.T) {
			p := &provider{t: t, limit: 3}
			m := accounttest.New(0)
			a, b := two(t, m, p)
			within(t, time.Second, "a", a.begin)
			within(t, 2*time.Second, "b", b.begin)
			m.Set(fault)
			a.end(account.News{Verdict: account.Fault, Early: true, Reply: mail.R(535, "5.7.8", "who are you?")})
			b.end(account.News{Verdict: account.Pressure, Reply: mail.R(421, "4.3.2", "busy")})
			pass(500*time.Millisecond, a, b)
			m.Set(accounttest.None)
			pass(2*time.Second, a, b)
			if x, y := status(a), status(b); x.Status == upstream.Ready || x.Status != y.Status || x.Reply != y.Reply {
				t.Errorf("%+v and %+v", x, y)
			}
			a.close(t)
			b.close(t)
		})
	}
}

// A lease does not end because the database's clock was set: neither for who knew the clock before nor for who did not,
// while its holder cannot renew it.
func TestClockSetForwardEndsNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{t: t, limit: 1}
		m := accounttest.New(0)
		a := newNode(t.Context(), m, "a", p, nil)
		within(t, 2*time.Second, "a has the slot", a.begin)
		b := newNode(t.Context(), m, "b", p, nil)
		pass(time.Minute, a, b)
		a.link.cut.Store(true)
		m.Step(time.Hour)
		c := newNode(t.Context(), m, "c", p, nil)
		try := func(times int) {
			for range times {
				b.begin()
				c.begin()
				pass(100*time.Millisecond, a, b, c)
			}
		}
		if try(200); len(a.sending) != 1 || len(b.sending)+len(c.sending) > 0 {
			t.Error("a lease has ended too soon")
		}
		if try(300); len(a.sending) != 0 || len(b.sending)+len(c.sending) != 1 {
			t.Error("a lease that cannot be renewed has not ended")
		}
		a.link.cut.Store(false)
		for _, n := range []*node{a, b, c} {
			n.close(t)
		}
	})
}

// What a node that died has sent of a rate without telling counts from its end on.
func TestDeadNodesTokensCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{t: t, limit: 3, rate: 3}
		m := accounttest.New(0)
		a, b := two(t, m, p)
		within(t, 5*time.Second, "a has three slots and tokens", func() bool { a.begin(); return len(a.sending) == 3 })
		m.Set(accounttest.Away)
		pass(14*time.Second, a, b)
		for range 3 {
			a.end(works)
		}
		a.die()
		m.Set(accounttest.None)
		for range 1200 {
			if b.begin() {
				b.end(works)
			}
			pass(100*time.Millisecond, b)
		}
		if p.sum < 6 {
			t.Errorf("b sent %d, there is room for 3", p.sum-3)
		}
		b.close(t)
	})
}

// Two busy nodes share a rate, and use all of it.
func TestBusyNodesShareARate(t *testing.T) {
	for _, rate := range []int64{1, 6, 60, 1200} {
		synctest.Test(t, func(t *testing.T) {
			p := &provider{t: t, limit: 4, rate: rate}
			a, b := two(t, accounttest.New(time.Hour), p)
			var sent [2]int
			for range 6000 { // ten minutes
				for i, n := range []*node{a, b} {
					for range 4 {
						if n.begin() {
							n.end(works)
							sent[i]++
						}
					}
				}
				pass(100*time.Millisecond, a, b)
			}
			all := 10 * int(rate)
			if sum := sent[0] + sent[1]; sum < all*3/4 || min(sent[0], sent[1]) < sum/4 {
				t.Errorf("of %d messages in ten minutes %v were sent", all, sent)
			}
			a.close(t)
			b.close(t)
		})
	}
}

// An envelope is not split because the tokens for it are elsewhere.
func TestEnvelopeGetsItsTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{t: t, limit: 2}
		m := accounttest.New(0)
		change := func(set *upstream.Settings) {
			set.Rates = []upstream.Rate{{Count: 100, Unit: upstream.Recipients, Per: time.Minute}}
		}
		a, b := newNode(t.Context(), m, "a", p, change), newNode(t.Context(), m, "b", p, change)
		within(t, time.Second, "a", a.begin)
		within(t, time.Second, "b", b.begin)
		if got, _ := a.sending[0].slot.Claim(t.Context(), 60); got != 60 {
			t.Errorf("%d of 60", got)
		}
		a.sending[0].slot.Charge(60)
		if got, _ := b.sending[0].slot.Claim(t.Context(), 60); got < 30 || got > 40 {
			t.Errorf("%d of the 40 that are left", got)
		}
		a.close(t)
		b.close(t)
	})
}

var fault = account.News{Verdict: account.Fault, Early: true, Reply: mail.R(535, "5.7.8", "who are you?")}

func status(n *node) upstream.State { return n.table.States()[0] }

// paused has a fault at a, and b knows of it within a second.
func paused(t *testing.T, a, b *node) {
	t.Helper()
	within(t, time.Second, "a", a.begin)
	within(t, 2*time.Second, "b", b.begin)
	a.end(fault)
	within(t, time.Second, "b knows", func() bool { return status(b).Status == upstream.Paused })
	if s := status(b); s.Reply.Code != 535 || s.Failures != 1 {
		t.Errorf("%+v", s)
	}
	b.end(works) // was let in before: it says nothing of the pause
	if a.begin() || b.begin() || status(b).Status != upstream.Paused {
		t.Error("a paused account is used")
	}
}

func TestPauseIsKnownAndOneNodeProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{t: t, limit: 3}
		a, b := two(t, accounttest.New(-time.Hour), p)
		paused(t, a, b)
		pass(4*time.Minute+50*time.Second, a, b)
		if a.begin() || b.begin() {
			t.Error("a pause of five minutes ended too soon")
		}
		probes := func() (n int) {
			for range 50 {
				for _, n := range []*node{a, b} {
					n.begin()
				}
				pass(100*time.Millisecond, a, b)
			}
			return len(a.sending) + len(b.sending)
		}
		pass(10*time.Second, a, b)
		if n := probes(); n != 1 {
			t.Fatalf("%d probes", n)
		}
		prober, other := a, b
		if len(b.sending) == 1 {
			prober, other = b, a
		}
		prober.end(fault)
		within(t, time.Second, "the other knows", func() bool { return status(other).Failures == 2 })
		pass(9*time.Minute+50*time.Second, a, b)
		if n := probes(); n != 0 {
			t.Errorf("%d probes within the second pause", n)
		}
		pass(20*time.Second, a, b)
		if n := probes(); n != 1 {
			t.Fatalf("%d probes", n)
		}
		for _, n := range []*node{a, b} {
			if len(n.sending) == 1 {
				n.end(works)
			}
		}
		within(t, time.Second, "both are ready", func() bool {
			return status(a).Status == upstream.Ready && status(b).Status == upstream.Ready
		})
		within(t, 2*time.Second, "both send", func() bool {
			return (len(a.sending) > 0 || a.begin()) && (len(b.sending) > 0 || b.begin())
		})
		a.close(t)
		b.close(t)
	})
}

// A node that dies with the right to probe keeps nobody from it for longer than its lease.
func TestDeadProberIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{t: t, limit: 3}
		a, b := two(t, accounttest.New(time.Hour), p)
		paused(t, a, b)
		pass(5*time.Minute+10*time.Second, a, b)
		within(t, 2*time.Second, "a probes", a.begin)
		a.die()
		within(t, 45*time.Second, "b probes", b.begin)
		b.close(t)
	})
}

// TryAgain at one node ends the pause for all, by one probe. So does the start of a node, once.
func TestTryAgainAndStartProbeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{t: t, limit: 3}
		m := accounttest.New(0)
		a, b := two(t, m, p)
		paused(t, a, b)
		a.table.TryAgain()
		within(t, 2*time.Second, "one probes", func() bool { return b.begin() || a.begin() })
		pass(time.Second, a, b)
		if a.begin() || b.begin() {
			t.Error("two probe")
		}
		for _, n := range []*node{a, b} {
			if len(n.sending) > 0 {
				n.end(fault)
			}
		}
		within(t, time.Second, "both know", func() bool { return status(a).Failures == 2 && status(b).Failures == 2 })
		pass(10*time.Second, a, b)
		c := newNode(t.Context(), m, "c", p, nil)
		within(t, 2*time.Second, "c probes", c.begin)
		c.end(fault)
		pass(10*time.Second, a, b, c)
		if a.begin() || b.begin() || c.begin() {
			t.Error("a start has more than one probe")
		}
		for _, n := range []*node{a, b, c} {
			n.close(t)
		}
	})
}

// When a probe has found out nothing, the other node, which asked for it once and waits to be told, is.
func TestProbeWithoutNewsPassesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{t: t, limit: 3}
		a, b := two(t, accounttest.New(0), p)
		paused(t, a, b)
		a.table.TryAgain()
		within(t, 2*time.Second, "one probes", b.begin)
		pass(time.Second, a, b)
		if a.begin() {
			t.Fatal("both probe")
		}
		pass(10*time.Second, a, b)
		told := a.changed.Load()
		b.end(account.News{})
		within(t, 7*time.Second, "the other is told", func() bool { return a.changed.Load() > told })
		within(t, time.Second, "it probes", a.begin)
		a.end(works)
		a.close(t)
		b.close(t)
	})
}

// A quota that is used up is so for all, also for a node that starts, until the first of what all have sent leaves it.
func TestQuotaIsUsedUpForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{t: t, limit: 3}
		m := accounttest.New(time.Hour)
		change := func(set *upstream.Settings) {
			set.Rates = []upstream.Rate{{Count: 1000, Unit: upstream.Messages, Per: 24 * time.Hour}}
		}
		a, b := newNode(t.Context(), m, "a", p, change), newNode(t.Context(), m, "b", p, change)
		for range 40 {
			for _, n := range []*node{a, b} {
				within(t, 5*time.Second, "a message", n.begin)
				n.end(works)
			}
		}
		pass(time.Hour, a, b)
		within(t, 5*time.Second, "a", a.begin)
		a.end(account.News{Verdict: account.Pressure, Spent: true, Window: 24 * time.Hour,
			Reply: mail.R(454, "4.7.0", "too many messages today")})
		within(t, time.Second, "b knows", func() bool { return status(b).Status == upstream.BackingOff })
		// 80 of both are our share; 40 alone would be too few to tell when the quota opens
		if left := time.Until(status(b).Until); left < 22*time.Hour || left > 24*time.Hour {
			t.Errorf("the quota opens in %v", left)
		}
		c := newNode(t.Context(), m, "c", p, change)
		within(t, 2*time.Second, "c knows", func() bool { return status(c).Status == upstream.BackingOff })
		pass(time.Minute, a, b, c)
		if a.begin() || b.begin() || c.begin() {
			t.Error("a quota that is used up is tried")
		}
		for _, n := range []*node{a, b, c} {
			n.close(t)
		}
	})
}

// A message costs no round trip while the account is in use, and nothing is asked while no account is.
func TestMessagesCostNoRoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{t: t, limit: 3, rate: 100_000}
		m := accounttest.New(0)
		a := newNode(t.Context(), m, "a", p, nil)
		within(t, time.Second, "a", a.begin)
		a.end(works)
		pass(time.Second, a)
		before := m.Swaps()
		for range 1000 {
			if !a.begin() {
				t.Fatal("a message has to wait")
			}
			a.end(works)
		}
		if n := m.Swaps() - before; n > 1 { // one may be for what the next message needs
			t.Errorf("1000 messages cost %d round trips", n)
		}
		a.close(t)
		before = m.Swaps()
		time.Sleep(time.Minute)
		if n := m.Swaps() - before; n != 0 {
			t.Errorf("a closed table asks %d times", n)
		}
	})
}

// A burst after a pause has the slots that nobody else wants after a few round trips, not after as many looks.
func TestBurstGetsItsSlotsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{t: t, limit: 20}
		a := newNode(t.Context(), accounttest.New(time.Hour), "a", p, nil)
		synctest.Wait()
		began, refused := time.Now(), 0
		for len(a.sending) < 20 && refused < 100 {
			if !a.begin() {
				refused++
				synctest.Wait() // for the answer
			}
		}
		if waited := time.Since(began); refused > 6 || waited > 0 {
			t.Errorf("%d slots after %d refusals and %v", len(a.sending), refused, waited)
		}
		a.close(t)
	})
}

// So has a burst of messages so quick that all slots are free again each time the account is settled.
func TestQuickMessagesGetTheirSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{t: t, limit: 20}
		a := newNode(t.Context(), accounttest.New(time.Hour), "a", p, nil)
		within(t, time.Second, "a slot", a.begin)
		began, rounds := time.Now(), 0
		for p.most.Load() < 20 && rounds < 100 {
			rounds++
			for a.begin() {
			}
			for len(a.sending) > 0 {
				a.end(works)
			}
			synctest.Wait() // for the answer
		}
		if waited := time.Since(began); rounds > 25 || waited > 0 {
			t.Errorf("%d slots after %d rounds and %v", p.most.Load(), rounds, waited)
		}
		a.close(t)
	})
}

// Who takes the last slot asks for the next one, and does so for what will be wanted, not for what is used by then.
func TestLastSlotAsksAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{t: t, limit: 20}
		a := newNode(t.Context(), accounttest.New(time.Hour), "a", p, nil)
		synctest.Wait()
		for n := range 10 { // one slot more each time, all at once, and free again before the answer
			for range n {
				if !a.begin() {
					t.Fatalf("no slot number %d", len(a.sending)+1)
				}
			}
			for len(a.sending) > 0 {
				a.end(works)
			}
			synctest.Wait()
		}
		a.close(t)
	})
}

// Connections that are open and idle make nobody ask for more: beside the looks there are no round trips.
func TestIdleConnectionsCostNoRoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, m := &provider{t: t, limit: 20}, accounttest.New(time.Hour)
		a := newNode(t.Context(), m, "a", p, nil)
		within(t, time.Second, "three at once", func() bool { a.begin(); return len(a.sending) == 3 })
		for len(a.sending) > 0 {
			a.end(works)
		}
		send := func(messages int) {
			for range messages {
				if !a.begin() {
					t.Fatal("a message has to wait")
				}
				a.end(works)
				pass(10*time.Millisecond, a)
			}
		}
		send(1500) // until only the open connections keep slots
		before := m.Swaps()
		send(500)
		if n := m.Swaps() - before; n > 25 {
			t.Errorf("500 messages in 5 s cost %d round trips", n)
		}
		a.close(t)
	})
}

// Who gets nothing asks four times a second, however often somebody wants a slot.
func TestRefusalsCostNoRoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, m := &provider{t: t, limit: 3}, accounttest.New(time.Hour)
		a, b := two(t, m, p)
		within(t, 2*time.Second, "a has all slots", func() bool { a.begin(); return len(a.sending) == 3 })
		before := m.Swaps()
		for range 1000 {
			if b.begin() {
				t.Fatal("b has a slot")
			}
			pass(10*time.Millisecond, a, b)
		}
		if n := m.Swaps() - before; n > 2*2*40 { // two nodes, each of which may have to look again
			t.Errorf("1000 refusals in 10 s cost %d round trips", n)
		}
		a.close(t)
		b.close(t)
	})
}

// A table gives everything back when it is closed, at once, and its successor in the same process has it.
func TestClosedTableGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{t: t, limit: 2, rate: 10}
		m := accounttest.New(0)
		a, b := two(t, m, p)
		within(t, 3*time.Second, "a has both", func() bool { a.begin(); return len(a.sending) == 2 })
		for len(a.sending) > 0 {
			a.end(works)
		}
		a.close(t)
		within(t, time.Second, "b has both", func() bool { b.begin(); return len(b.sending) == 2 })
		b.close(t)
	})
}

// Who waits with a slot is told before another node may have it, and not if he has begun.
func TestSlotIsOverBeforeTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{t: t, limit: 3}
		a, _ := two(t, accounttest.New(0), p)
		within(t, time.Second, "a has a slot", a.begin)
		within(t, time.Second, "a has another", a.begin)
		began, told := time.Now(), make(chan time.Duration, 2)
		tell := func() { told <- time.Since(began) }
		waits, begun := a.sending[0].slot.Over(tell), a.sending[1].slot.Over(tell)
		if waits == nil || !begun() {
			t.Fatal("slots that another node may have do not say so")
		}
		a.link.cut.Store(true)
		time.Sleep(time.Minute)
		if len(told) != 1 {
			t.Fatalf("%d were told", len(told))
		}
		if after := <-told; after > 40*time.Second {
			t.Errorf("told after %v, when another node may have the slot", after)
		}
		a.link.cut.Store(false)
		a.cuts()
		a.close(t)
	})
}

// A process that stood still for longer than its lease knows by the clock that what it sends has to end.
func TestClockEndsWhatIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := two(t, accounttest.New(0), &provider{t: t, limit: 3})
		within(t, time.Second, "a has a slot", a.begin)
		a.link.cut.Store(true)
		s := a.sending[0]
		s.slot.StandStill()
		time.Sleep(20 * time.Second)
		if err := s.bound.Err(); err != nil {
			t.Fatalf("within its lease: %v", err)
		}
		time.Sleep(20 * time.Second)
		select {
		case <-s.bound.Done():
			t.Fatal("it was told without a look")
		default:
		}
		if err := s.bound.Err(); err != context.Canceled {
			t.Errorf("behind its lease: %v", err)
		}
		<-s.bound.Done()
		a.link.cut.Store(false)
		a.cuts()
		a.close(t)
	})
}

// What is derived from the contexts of many messages ends with the one that they have in common, and with the lease,
// and with its own message; who has stopped is not called.
func TestManyAreToldOfTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := map[string]func(a *node, cut func()){
			"context": func(_ *node, cut func()) { cut() },
			"lease":   func(a *node, _ func()) { a.link.cut.Store(true); time.Sleep(time.Minute) },
			"clock": func(a *node, _ func()) {
				a.link.cut.Store(true)
				a.sending[0].slot.StandStill()
				time.Sleep(time.Minute)
				for _, x := range a.sending {
					if x.bound.Err() == nil {
						t.Error("a message goes on behind its lease")
					}
				}
			},
			"message": func(a *node, _ func()) {
				for _, x := range a.sending {
					x.end()
				}
			},
		}
		for name, end := range ends {
			const many = 100
			a := newNode(t.Context(), accounttest.New(0), "a", &provider{t: t, limit: many}, nil)
			ctx, cut := context.WithCancel(a.ctx)
			a.ctx = ctx
			within(t, time.Second, name, func() bool { a.begin(); return len(a.sending) == many })
			var told, stopped atomic.Int64
			var children []context.Context
			for _, x := range a.sending[1:] { // of the first one nobody wants to be told
				child, stop := context.WithTimeout(x.bound, time.Hour)
				defer stop()
				children = append(children, child)
				context.AfterFunc(x.bound, func() { told.Add(1) })
				x.bound.(interface {
					AfterFunc(f func()) (stop func() bool)
				}).AfterFunc(func() { told.Add(1) })
				if !context.AfterFunc(x.bound, func() { stopped.Add(1) })() {
					t.Error("it has ended")
				}
			}
			end(a, cut)
			synctest.Wait()
			for _, child := range children {
				if child.Err() != context.Canceled {
					t.Fatalf("%s: %v", name, child.Err())
				}
			}
			if told.Load() != 2*(many-1) || stopped.Load() != 0 {
				t.Errorf("%s: %d were told, and %d that had stopped", name, told.Load(), stopped.Load())
			}
			if err := a.sending[0].bound.Err(); err != context.Canceled {
				t.Errorf("%s: who asks hears %v", name, err)
			}
			cut()
			a.link.cut.Store(false)
			a.close(t)
		}
	})
}
