package account

import (
	"context"
	"time"

	"postern/relay/upstream"
)

// Times of what an account has leased.
const (
	keepUnused = 10 * time.Second // how long slots and tokens nobody uses stay here, unless another node wants them
	wishKept   = time.Second      // what is still wished for while slots are free
	probeKept  = 5 * time.Second  // the right to probe, while nobody does
	tellEvery  = time.Second      // what was sent
	claimTime  = time.Second      // how long a Send that has begun waits for tokens that another node may have
)

// lease is what an account has of what it shares with other nodes. Guarded by Table.mu.
type lease struct {
	id      string // of the table
	sharing *Sharing
	version int64
	known   *ledger // the row of that version; nil: not known. It is never changed in place
	looked  time.Time
	soon    bool // settle at once
	unsure  bool // a write got no answer: it may take place yet, until the version is another
	leaving bool // the table is closed

	may    int       // slots
	ends   time.Time // until when
	until  int64     // until when the row leases them
	others int       // slots that other nodes have
	alarm  *time.Timer
	term   *term // of what is sent; nil: nothing is leased

	lack   bool // a slot was wanted
	lacked time.Time
	vain   time.Time // when something was asked for last, if nothing has come since
	used   time.Time // when somebody asked for one last
	peak   int       // most that were wanted at once lately
	peaked time.Time
	told   time.Time
	news   chan struct{} // closed when something was learned

	epoch   int64  // of the hold that the breaker has
	changes uint64 // of the breaker by this node
	dirty   bool   // one is not shared yet
	spent   bool   // it is for a quota
	met     bool   // the hold was looked at

	probes      bool // the right to probe is here
	probeWanted time.Time
	barred      bool // somebody wanted to probe, and had not the right
}

// ask has the account settled at once, unless that was asked for in vain a moment ago: then the next look tells.
func (l *lease) ask(now time.Time) {
	if l.soon || l.known != nil && now.Sub(l.vain) < lookEvery {
		return
	}
	l.lacked, l.vain, l.soon = now, now, true
	l.sharing.kick()
}

// share makes an account one that is shared.
func (a *account[H]) share(id string, s *Sharing) {
	a.lease = &lease{id: id, sharing: s, news: make(chan struct{})}
	for i := range a.pace {
		m := &a.pace[i]
		m.lent = &lent{all: window{limit: m.limit, span: m.span}}
	}
}

// places is how many slots there may be now.
func (a *account[H]) places(now time.Time) int {
	if a.lease == nil {
		return a.flow.now
	}
	return min(a.flow.now, a.lease.places(now))
}

func (l *lease) places(now time.Time) int {
	if !now.Before(l.ends) {
		return 0
	}
	return l.may
}

// free reports whether there is a slot for one more; if not, one that another node has is asked for.
func (a *account[H]) free(now time.Time) bool {
	_, closing := a.held.Connections()
	used, places := a.inUse+closing, a.places(now)
	if l := a.lease; l != nil {
		l.used = now
		l.want(now, min(used+1, a.flow.now))
		switch {
		case used >= places && used < a.flow.now:
			l.lack = true
			l.ask(now)
		case used+1 < places:
			l.lack = false
		}
	}
	return used < places
}

// want notes that so many slots are wanted at once.
func (l *lease) want(now time.Time, slots int) {
	if slots >= l.peak {
		l.peak, l.peaked = slots, now
	}
}

// mayProbe reports whether nobody else probes an account that waits.
func (a *account[H]) mayProbe(now time.Time) bool {
	l := a.lease
	if l == nil || a.breaker.Ready() {
		return true
	}
	l.probeWanted = now
	if l.probes && now.Before(l.ends) {
		return true
	}
	l.barred = true
	l.ask(now)
	return false
}

// need asks for tokens that are missing.
func (a *account[H]) need(now time.Time, have, want share) {
	if a.lease == nil {
		return
	}
	for i := range a.pace {
		m := &a.pace[i]
		if n := want.of(m.unit) - have.of(m.unit); m.limit > 0 && n > m.ready() {
			m.lent.need = max(m.lent.need, min(n, m.limit))
		}
	}
	a.lease.ask(now)
}

// ahead asks for what the next message needs, where this one has taken the last slot or token that was here.
func (a *account[H]) ahead(now time.Time) {
	l := a.lease
	if l == nil {
		return
	}
	_, closing := a.held.Connections()
	used, places := a.inUse+closing, a.places(now)
	last := used >= places && places < a.flow.now
	if last {
		l.want(now, min(used+1, a.flow.now))
	}
	for i := range a.pace {
		last = last || a.pace[i].limit > 0 && a.pace[i].ready() <= 0
	}
	if last {
		l.ask(now)
	}
}

// moved tells others that the breaker has changed here.
func (a *account[H]) moved(spent bool) {
	if l := a.lease; l != nil {
		l.changes++
		l.dirty, l.spent, l.soon = true, spent && !a.breaker.Ready(), true
		l.sharing.kick()
	}
}

// gives has what is given back told at once where another node waits for it.
func (a *account[H]) gives() {
	l := a.lease
	if l == nil || l.known == nil || l.soon {
		return
	}
	if me, _ := l.known.holder(l.id); l.leaving || l.may < me.Held && a.open() < me.Held {
		l.soon = true
		l.sharing.kick()
	}
}

// open is how many slots are used, by connections or by who has reserved one.
func (a *account[H]) open() int {
	idle, closing := a.held.Connections()
	return a.inUse + idle + closing
}

// shed closes idle connections that there is no slot for.
func (a *account[H]) shed(now time.Time) {
	idle, _ := a.held.Connections()
	if n := a.open() - min(a.flow.most, a.lease.places(now)); n > 0 && idle > 0 {
		a.held.Shed(min(n, idle))
	}
}

// leased reports that the account may have something that is also somebody else's.
func (a *account[H]) leased() bool {
	return a.lease != nil && (a.lease.known != nil || a.lease.soon || a.lease.dirty)
}

// elsewhere is how many slots other nodes have.
func (a *account[H]) elsewhere() int {
	if a.lease == nil {
		return 0
	}
	return a.lease.others
}

// end cuts off what is sent.
func (l *lease) end() {
	stop(&l.alarm)
	if l.term != nil {
		l.term.endLocked()
		l.term = nil
	}
}

// fetch has the tokens asked for that a whole envelope needs, and waits for the answer, so that it is not split because
// they are elsewhere.
func (s *Slot[H]) fetch(ctx context.Context, want share) {
	if s.a.lease == nil {
		return
	}
	news := s.lacks(want)
	if news == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, claimTime)
	defer cancel()
	for news != nil && ctx.Err() == nil {
		select {
		case <-news:
			news = s.lacks(want)
		case <-ctx.Done():
		}
	}
}

// lacks asks for tokens that are missing. It returns what is closed when there is news of them; nil: none is missing.
func (s *Slot[H]) lacks(want share) (news <-chan struct{}) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	now := time.Now()
	want.recipients = s.a.pace.within(now, s.share, want.recipients)
	if _, busy := s.a.pace.wait(now, s.share, want); !busy {
		return nil
	}
	s.a.need(now, s.share, want)
	return s.a.lease.news
}

// within is for how many of n recipients there can be tokens at most.
func (p pace) within(now time.Time, have share, n int64) int64 {
	for i := range p {
		if m := &p[i]; m.unit == upstream.Recipients && m.limit > 0 {
			n = min(n, have.recipients+m.within(now))
		}
	}
	return n
}
