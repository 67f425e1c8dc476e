package account

import (
	"context"
	"time"

	"postern/relay/upstream"
)

// Times of what an account has leased.
const (
	keepUnused = 10 * time.Second // how long slots and tokens that nobody uses stay here, unless another node wants them
	wishKept   = time.Second      // what is still wished for when slots are free
	probeKept  = 5 * time.Second  // the right to probe, while nobody does
	tellEvery  = time.Second      // what was sent
	claimTime  = time.Second      // how long a Send that has begun waits for tokens that another node may have
)

// lease is what an account has of what it shares with other nodes. Guarded by Table.mu.
type lease struct {
	id      string
	version int64
	known   *ledger // the row of that version; nil: not known. It is never changed in place
	looked  time.Time
	soon    bool // settle at once
	unsure  bool // a write got no answer: it may take place yet, until the version is another

	may    int       // slots
	ends   time.Time // until when
	others int       // slots that other nodes have
	alarm  *time.Timer
	term   context.Context // ends when what is sent has to be cut off; nil: nothing is leased
	cut    context.CancelFunc

	lack   bool // a slot was wanted
	lacked time.Time
	used   time.Time // when somebody asked for one last
	told   time.Time
	news   chan struct{} // closed when something was learned

	epoch   int64  // of the hold that the breaker has
	changes uint64 // of the breaker by this node
	dirty   bool   // one is not shared yet
	spent   bool   // it is for a quota
	met     bool   // the hold was looked at

	probes      bool // the right to probe is here
	probeWanted time.Time
}

// lent is what a meter has of a rate that is shared, or of a quota's memory. nil: it is not shared.
type lent struct {
	out, accounted int64  // as part.Out and part.Used
	used           int64  // all that was ever sent
	need           int64  // that somebody waits for
	recent         int64  // sent since it was told
	all            window // of all nodes; in flight is what is out
	clock          clock
}

// ready is what may be sent beside what is in flight.
func (m *meter) ready() int64 { return m.lent.out - (m.lent.used - m.lent.accounted) - m.flying }

// shareLocked makes an account one that is shared.
func (t *Table[H]) shareLocked(a *account[H]) {
	if t.o.Sharing == nil {
		return
	}
	a.lease = &lease{id: t.holder, news: make(chan struct{})}
	for i := range a.pace {
		m := &a.pace[i]
		m.lent = &lent{all: window{limit: m.limit, span: m.span}}
	}
}

// placesLocked is how many slots there may be now.
func (a *account[H]) placesLocked(now time.Time) int {
	switch l := a.lease; {
	case l == nil:
		return a.flow.now
	case !now.Before(l.ends):
		return 0
	default:
		return min(a.flow.now, l.may)
	}
}

// lackLocked notes that a slot, tokens or the right to probe is missing here, and has it asked for.
func (t *Table[H]) lackLocked(l *lease, now time.Time) {
	if l.soon || now.Sub(l.lacked) < lookEvery && l.known != nil {
		return // asked for already: the next look tells
	}
	l.lacked, l.soon = now, true
	t.o.Sharing.kick()
}

// mayProbeLocked reports whether nobody else probes.
func (t *Table[H]) mayProbeLocked(a *account[H], now time.Time) bool {
	l := a.lease
	if l == nil || a.breaker.Ready() {
		return true
	}
	l.probeWanted = now
	if l.probes && now.Before(l.ends) {
		return true
	}
	t.lackLocked(l, now)
	return false
}

// needLocked notes tokens that are missing.
func (t *Table[H]) needLocked(a *account[H], now time.Time, have, want share) {
	if a.lease == nil {
		return
	}
	for i := range a.pace {
		m := &a.pace[i]
		if n := want.of(m.unit) - have.of(m.unit); m.limit > 0 && n > m.ready() {
			m.lent.need = max(m.lent.need, min(n, m.limit))
		}
	}
	t.lackLocked(a.lease, now)
}

// movedLocked notes that the breaker has changed here.
func (t *Table[H]) movedLocked(a *account[H], spent bool) {
	if l := a.lease; l != nil {
		l.changes++
		l.dirty, l.spent, l.soon = true, spent && !a.breaker.Ready(), true
		t.o.Sharing.kick()
	}
}

// givesLocked has what is given back told at once where another node waits for it.
func (t *Table[H]) givesLocked(a *account[H]) {
	l := a.lease
	if l == nil || l.known == nil || l.soon {
		return
	}
	if me, _ := l.known.holder(l.id); t.closed || l.may < me.Held && a.openLocked() < me.Held {
		l.soon = true
		t.o.Sharing.kick()
	}
}

func (a *account[H]) openLocked() int {
	idle, closing := a.held.Connections()
	return a.inUse + idle + closing
}

// collect implements member.
func (t *Table[H]) collect(now time.Time, c *clock, drafts []*draft) []*draft {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, a := range t.accounts {
		l := a.lease
		if !t.concernsLocked(key, a, now) {
			l.known, l.version = nil, 0
			continue
		}
		if !l.soon && now.Sub(l.looked) < lookEvery {
			continue
		}
		l.looked = now
		d := &draft{m: t, key: key, row: Row{Upstream: t.set.Name, Account: key, Version: l.version}}
		if c.known(now) {
			l.soon = false
			t.draftLocked(key, a, now, c, d)
		}
		drafts = append(drafts, d)
	}
	return drafts
}

// concernsLocked reports that what other nodes do with an account matters here.
func (t *Table[H]) concernsLocked(key string, a *account[H], now time.Time) bool {
	l := a.lease
	if l.soon || l.lack || l.dirty || !a.breaker.Ready() || a.busyLocked() || t.warmLocked(key) {
		return true
	}
	if l.known == nil {
		return now.Sub(l.used) < keepUnused && !l.used.IsZero() && !t.closed
	}
	_, held := l.known.holder(l.id)
	return held
}

// warmLocked reports that one slot shall be ready though nobody asks.
func (t *Table[H]) warmLocked(key string) bool { return !t.closed && key == t.keyOf(t.set.Username) }

// draftLocked settles an account in a draft. What is given back is used no more from here on; what is taken is not used
// before it is known to be there.
func (t *Table[H]) draftLocked(key string, a *account[H], now time.Time, c *clock, d *draft) {
	l := a.lease
	if l.known == nil {
		l.known = new(ledger)
	}
	q := t.askLocked(key, a, now, c)
	next := l.known.clone()
	d.may = next.settle(c.low(now), q)
	d.settled, d.changes, d.published = true, l.changes, next.Hold.Epoch != l.known.Hold.Epoch
	next.changed = next.changed || l.unsure
	l.may = min(l.may, d.may)
	for i := range a.pace {
		m := &a.pace[i]
		p := next.meter(m.unit, m.span).Parts[l.id]
		if p.Out-(m.lent.used-p.Used)-m.flying < m.ready() {
			m.lent.out, m.lent.accounted = p.Out, p.Used
		}
	}
	t.shedLocked(a, now)
	if next.changed {
		d.next, d.row.State = next, next.encode()
		d.row.Forget = next.forget(c.low(now))
	}
}

// askLocked is what an account wants.
func (t *Table[H]) askLocked(key string, a *account[H], now time.Time, c *clock) *ask {
	l := a.lease
	q := &ask{id: l.id, trust: !now.Before(c.doubtful), limit: a.flow.now, open: a.openLocked(), need: a.inUse,
		base: l.epoch, tell: now.Sub(l.told) >= tellEvery}
	_, closing := a.held.Connections()
	spare := a.inUse+closing < a.placesLocked(now)
	if l.lack && (t.closed || spare && now.Sub(l.lacked) >= wishKept) {
		l.lack = false
	}
	if l.lack {
		q.need += max(1, a.inUse)
	}
	q.need = min(q.need, a.flow.now)
	active := !t.closed && now.Sub(l.used) < keepUnused && !l.used.IsZero()
	q.like = max(q.need, min(q.open, a.flow.now))
	switch {
	case active && a.breaker.Ready():
		q.like = max(q.like, min(a.flow.now, q.need+1))
	case t.warmLocked(key):
		q.like = max(q.like, 1)
	}
	q.probe = !a.breaker.Ready() && (a.breaker.Probing || !t.closed && !l.probeWanted.IsZero() &&
		now.Sub(l.probeWanted) < probeKept)
	if l.dirty {
		q.hold = l.share(&a.breaker, now, c)
	}
	for i := range a.pace {
		q.rates = append(q.rates, a.pace[i].ask(active, t.warmLocked(key), int64(a.flow.now)))
	}
	return q
}

// ask is what a meter wants: while the account is used, twice what was sent lately, and one for each slot.
func (m *meter) ask(active, warm bool, slots int64) rateAsk {
	r := rateAsk{unit: m.unit, span: m.span, limit: m.limit, used: m.lent.used, flying: m.flying}
	if m.limit == 0 {
		return r
	}
	if active {
		r.need = m.lent.need
		r.like = max(r.need, min(slots+2*m.lent.recent, m.limit/4))
	} else if warm {
		r.like = 1
	}
	return r
}

// share is the breaker's state for others.
func (l *lease) share(b *Breaker, now time.Time, c *clock) *hold {
	h := &hold{Status: b.Status, Pressure: b.Pressure, Faults: b.Faults, Early: b.Early, Spent: l.spent, Reply: b.Reply}
	if !b.Ready() {
		h.Wait = int64(b.Until.Sub(now))
		h.Until, h.Since = c.high(now)+h.Wait, c.low(now)-int64(now.Sub(b.Since))
	}
	return h
}

// learn implements member.
func (t *Table[H]) learn(now time.Time, c *clock, d *draft, answer Answer) (news bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.accounts[d.key]
	if a == nil {
		return false, nil
	}
	l := a.lease
	first := l.version == 0 && !l.met
	switch {
	case answer.Swapped:
		l.known, l.version, l.unsure = d.next, answer.Version, false
		if d.changes == l.changes {
			l.dirty = false
		}
		if d.published {
			l.epoch = d.next.Hold.Epoch
		}
		l.told = now
		for i := range a.pace {
			a.pace[i].lent.recent = 0
		}
	case answer.Version != d.row.Version:
		known, err := decodeLedger(answer.State)
		if err != nil {
			return false, err
		}
		l.known, l.version, l.soon, l.unsure = known, answer.Version, true, false
	case l.known == nil:
		l.known = new(ledger)
	case d.next != nil:
		l.soon = true // faster than the snapshot that was looked at
	}
	l.met = true
	close(l.news)
	l.news = make(chan struct{})
	if l.known.Hold.Epoch != l.epoch {
		t.adoptLocked(a, now, c, first)
		news = true
	}
	return t.applyLocked(a, now, c, d, answer) || news, nil
}

// applyLocked uses what the row has for this table, and reports whether there is more than before.
func (t *Table[H]) applyLocked(a *account[H], now time.Time, c *clock, d *draft, answer Answer) (more bool) {
	l := a.lease
	me, held := l.known.holder(l.id)
	places, probed := a.placesLocked(now), l.probes
	l.others = 0
	for _, h := range l.known.Holders {
		if h.ID != l.id {
			l.others += h.Held
		}
	}
	current := answer.Swapped || answer.Version == d.row.Version && d.settled && d.next == nil
	switch {
	case current:
		l.may = d.may
	default: // it is settled anew at once
		l.may = min(l.may, me.Held)
	}
	ends := time.Time{}
	if held {
		ends = now.Add(time.Duration(me.Until-c.high(now)) - cutBefore)
	}
	t.termLocked(a, now, ends)
	l.probes = l.known.Probe == l.id
	for i := range a.pace {
		more = a.pace[i].learn(l, now, c, current) || more
	}
	t.shedLocked(a, now)
	return more || a.placesLocked(now) > places || l.probes && !probed
}

// learn takes over what the row has of a rate. Tokens that a draft would give back are not used before it is known what
// became of it, so that only a settled row makes more of them.
func (m *meter) learn(l *lease, now time.Time, c *clock, current bool) (more bool) {
	e := m.lent
	k := common{Unit: m.unit, Span: m.span}
	for i := range l.known.Meters {
		if o := &l.known.Meters[i]; o.Unit == m.unit && o.Span == m.span {
			k = *o
		}
	}
	e.clock = *c
	e.all = k.window(c.low(now))
	e.all.limit, e.all.flying = m.limit, k.out()
	before := m.ready()
	p, ok := k.Parts[l.id]
	if !ok {
		p.Used = e.used
	}
	if after := p.Out - (e.used - p.Used) - m.flying; current || after < before {
		e.out, e.accounted = p.Out, p.Used
	}
	if m.ready() >= e.need {
		e.need = 0
	}
	return m.limit > 0 && before <= 0 && m.ready() > 0
}

// termLocked notes until when slots may be used.
func (t *Table[H]) termLocked(a *account[H], now, ends time.Time) {
	l := a.lease
	l.ends = ends
	if !now.Before(ends) {
		t.endLocked(a)
		return
	}
	if l.term == nil {
		l.term, l.cut = context.WithCancel(context.Background())
	}
	if l.alarm == nil {
		l.alarm = time.AfterFunc(ends.Sub(now), func() { t.Update(func() { t.overLocked(a) }) })
	} else {
		l.alarm.Reset(ends.Sub(now))
	}
}

// overLocked ends what is sent when the lease is over by our clock.
func (t *Table[H]) overLocked(a *account[H]) {
	if now := time.Now(); !now.Before(a.lease.ends) {
		if a.busyLocked() {
			t.o.Log.Warn("the lease of an upstream account has run out, its connections are closed",
				"identity", a.name)
		}
		t.endLocked(a)
		t.shedLocked(a, now)
	}
}

func (t *Table[H]) endLocked(a *account[H]) {
	l := a.lease
	stop(&l.alarm)
	if l.term != nil {
		l.cut()
		l.term, l.cut = nil, nil
	}
}

// shedLocked closes idle connections that there is no slot for.
func (t *Table[H]) shedLocked(a *account[H], now time.Time) {
	idle, _ := a.held.Connections()
	if n := a.openLocked() - min(a.flow.most, a.sharedPlacesLocked(now)); n > 0 && idle > 0 {
		a.held.Shed(min(n, idle))
	}
}

// sharedPlacesLocked is how many slots are leased.
func (a *account[H]) sharedPlacesLocked(now time.Time) int {
	if !now.Before(a.lease.ends) {
		return 0
	}
	return a.lease.may
}

// adoptLocked makes the breaker what another node has found. A pause that is older than this table is probed at once,
// as after every start: what the account logs in with may have been mended.
func (t *Table[H]) adoptLocked(a *account[H], now time.Time, c *clock, first bool) {
	l, h := a.lease, &a.lease.known.Hold
	l.epoch, l.dirty, l.spent = h.Epoch, false, h.Spent
	if h.ready() {
		if a.breaker.Ready() && a.breaker.blank() {
			return
		}
		a.breaker = Breaker{epoch: a.breaker.epoch + 1}
	} else {
		until := now.Add(min(time.Duration(h.Wait), c.local(h.Until, now).Sub(now)))
		a.breaker = Breaker{Status: h.Status, Until: until, Pressure: h.Pressure, Faults: h.Faults,
			Reply: h.Reply, Early: h.Early, Since: c.local(h.Since, now), epoch: a.breaker.epoch + 1}
		if first && h.Status == upstream.Paused && h.Early && !h.Spent && a.breaker.Since.Before(t.born) &&
			now.Before(a.breaker.Until) {
			a.breaker.Until = now
			t.movedLocked(a, false)
		}
	}
	a.spentLocked(h.Spent)
	t.armLocked(a, now)
	a.breaker.log(t.o.Log.With("found_by", "another node"), a.name)
}

// gone implements member.
func (t *Table[H]) gone() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed || !t.empty {
		return false
	}
	for _, a := range t.accounts {
		if a.lease.known != nil {
			if _, held := a.lease.known.holder(a.lease.id); held {
				return false
			}
		}
	}
	return true
}

// Bound returns a context for what is sent with the slot: it ends with ctx, and early enough before the slot is another
// node's. cancel is to be called when the sending has ended.
func (s *Slot[H]) Bound(ctx context.Context) (bound context.Context, cancel context.CancelFunc) {
	if s.term == nil {
		return ctx, func() {}
	}
	bound, cut := context.WithCancel(ctx)
	stop := context.AfterFunc(s.term, cut)
	return bound, func() { stop(); cut() }
}

// lost implements member.
func (t *Table[H]) lost(d *draft) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.accounts[d.key]; a != nil {
		a.lease.unsure = a.lease.unsure || d.next != nil
		a.lease.dirty = a.lease.dirty || d.published
	}
}

// leasedLocked reports that the account may have something that is also somebody else's.
func (a *account[H]) leasedLocked() bool {
	return a.lease != nil && (a.lease.known != nil || a.lease.soon || a.lease.dirty)
}

// othersLocked is how many slots other nodes have.
func (a *account[H]) othersLocked() int {
	if a.lease == nil {
		return 0
	}
	return a.lease.others
}

// fetch has the tokens asked for that a whole envelope needs, and waits for the answer, so that it is not split because
// they are elsewhere.
func (s *Slot[H]) fetch(ctx context.Context, want share) {
	t, l := s.t, s.a.lease
	if l == nil {
		return
	}
	now := time.Now()
	t.mu.Lock()
	_, busy := s.a.pace.wait(now, s.share, want)
	if busy {
		t.needLocked(s.a, now, s.share, want)
	}
	news := l.news
	t.mu.Unlock()
	if !busy {
		return
	}
	timer := time.NewTimer(claimTime)
	defer timer.Stop()
	select {
	case <-news:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// room is how much more may be taken here now.
func (m *meter) room(now time.Time) int64 {
	if m.lent == nil {
		return m.window.room(now)
	}
	m.advance(now)
	return m.ready()
}

// roomOfAll is how much more all nodes together may take.
func (m *meter) roomOfAll(now time.Time) int64 {
	if m.lent == nil {
		return m.window.room(now)
	}
	return max(0, m.lent.all.room(m.lent.now(now)))
}

// until is when there may be room for n more, zero if only asking can tell.
func (m *meter) until(now time.Time, n int64) time.Time {
	if m.lent == nil {
		return m.window.until(now, n)
	}
	e := m.lent
	missing, there := n-m.ready(), e.now(now)
	if e.all.span == 0 || e.all.room(there) >= missing {
		return time.Time{}
	}
	at := e.all.until(there, missing)
	if at.IsZero() {
		return time.Time{}
	}
	return now.Add(at.Sub(there))
}

// now is the time of the clock that the windows of all go by.
func (e *lent) now(now time.Time) time.Time {
	if e.clock.got.IsZero() {
		return now
	}
	return time.Unix(0, e.clock.low(now))
}

// charge notes what was sent.
func (m *meter) charge(n int64) {
	if m.lent != nil {
		m.lent.used += n
		m.lent.recent += n
	}
}

// seen is how much was sent within the window, by all nodes, and when the first of it leaves.
func (m *meter) seen(now time.Time) (sum int64, oldest time.Time) {
	if m.lent == nil {
		m.advance(now)
		return m.sum, m.oldest(now)
	}
	there := m.lent.now(now)
	m.lent.all.advance(there)
	if oldest = m.lent.all.oldest(there); !oldest.IsZero() {
		oldest = now.Add(oldest.Sub(there))
	}
	return m.lent.all.sum, oldest
}

func (m *meter) frees(now time.Time) time.Time {
	_, oldest := m.seen(now)
	return oldest
}
