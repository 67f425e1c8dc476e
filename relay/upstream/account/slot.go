package account

import (
	"context"
	"time"
)

// Slot is one that was reserved. It is for one user at a time.
type Slot[H Held] struct {
	t         *Table[H]
	a         *account[H]
	admission Admission
	share     share // of the rates; guarded by Table.mu
	lonely    bool  // there was no other slot when this one was taken, at no node
	term      *term // of the slot's lease; nil: it is not leased
	taken     uint64
	recorded  bool
	released  bool
}

// Identity is the account's name.
func (s *Slot[H]) Identity() string { return s.a.name }

// Held is what the protocol has for the account; see Table.Update.
func (s *Slot[H]) Held() H { return s.a.held }

// Record tells the account what came of the slot. Only the first call counts. slowed reports a complaint of too much
// at a time: what is held and not used should go, since it counts over there.
func (s *Slot[H]) Record(n News) (slowed bool) {
	if s.recorded {
		return false
	}
	s.recorded = true
	t, a, now := s.t, s.a, time.Now()
	t.mu.Lock()
	n, slowed = s.adaptLocked(now, n)
	a.pace.record(now, &s.share, share{})
	moved := a.breaker.Record(now, s.admission, n, t.set.Jitter())
	if moved {
		t.armLocked(a, now)
	}
	if moved {
		a.moved(n.Spent)
	}
	if moved && a.spentLocked(n.Spent) {
		t.saveSoonLocked(0)
	}
	b := a.breaker
	t.mu.Unlock()

	if moved {
		b.log(t.o.Log, a.name)
		t.Changed()
	}
	return slowed
}

// adaptLocked lets the number of slots follow what the provider answers. Only a complaint that no slot is left to
// take away for, or that was met alone, makes the account wait.
func (s *Slot[H]) adaptLocked(now time.Time, n News) (adapted News, slowed bool) {
	a := s.a
	switch {
	case n.Verdict == Works:
		a.flow.worked(a.inUse + a.elsewhere())
	case n.Verdict == Pressure && n.Slow && a.breaker.Ready():
		slowed = true
		if floor := a.flow.slowed(); !floor && !s.aloneLocked() {
			s.t.o.Log.Info("upstream wants fewer connections at once", "identity", a.name, "places", a.flow.now,
				"reply", n.Reply.String())
			return News{Verdict: Reached, Reply: n.Reply, Early: n.Early}, true
		}
	}
	if n.Spent {
		n.AtLeast = max(n.AtLeast, a.pace.quotaOpens(now, n.Window))
	}
	return n, slowed
}

// aloneLocked reports that there was no other slot since this one was taken: what the provider says of too many
// connections is not about ours.
func (s *Slot[H]) aloneLocked() bool { return s.lonely && s.taken == s.a.taken }

// Release gives the slot back; see upstream.Slot. last, if not nil, runs in an Update and is told whether a connection
// may be kept for the next message.
func (s *Slot[H]) Release(last func(keep bool)) {
	if s.released {
		return
	}
	s.Record(News{})
	s.released = true
	t, a := s.t, s.a
	t.Update(func() {
		a.inUse--
		if last != nil {
			idle, closing := a.held.Connections()
			last(!t.closed && a.inUse+idle+closing < a.places(time.Now()))
		}
		a.gives()
	})
	t.Changed()
}

// Claim waits for room for a further transaction to n recipients, not for long: whoever has begun holds a connection.
// It returns for how many there is room; for none, wait says when there may be.
func (s *Slot[H]) Claim(ctx context.Context, n int) (got int, wait time.Duration) {
	s.fetch(ctx, share{1, int64(n)})
	for began := time.Now(); ; {
		now := time.Now()
		s.t.mu.Lock()
		got, until := s.a.pace.claim(now, &s.share, n)
		if got == 0 {
			s.a.need(now, s.share, least)
		}
		s.t.mu.Unlock()
		if got > 0 {
			return got, 0
		}
		if wait = until.Sub(now); until.IsZero() {
			wait = time.Second // somebody else's message has to end
		}
		if now.Add(wait).Sub(began) > maxWait {
			return 0, wait
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, wait
		}
	}
}

// Charge counts a transaction that the provider has seen.
func (s *Slot[H]) Charge(recipients int) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	s.a.pace.record(time.Now(), &s.share, share{1, int64(recipients)})
	s.t.saveSoonLocked(saveEvery)
}
