package account

import "time"

// lent is what a meter has of a rate that is shared, or of a quota's memory.
type lent struct {
	out, accounted int64  // as part.Out and part.Used
	used           int64  // all that was ever sent
	need           int64  // that somebody waits for, until it is taken or was here for a while
	recent         int64  // sent since it was told
	all            window // of all nodes; in flight is what is out
	elsewhere      int64  // of what is out
	clock          clock
}

// ready is what may be sent beside what is in flight.
func (m *meter) ready() int64 { return m.lent.out - (m.lent.used - m.lent.accounted) - m.flying }

// within is what may be sent beside what is in flight if other nodes give back all that they have.
func (m *meter) within(now time.Time) int64 {
	return m.ready() + max(0, m.lent.all.room(m.lent.now(now))) + m.lent.elsewhere
}

// ask is what a meter wants: while the account is used, twice what was sent lately and one for each slot, or a
// twentieth of all; one at least, also for an account that is to be warm. waited: whoever asked for more has had time
// to take it.
func (m *meter) ask(active, warm, waited bool, slots int64) rateAsk {
	if waited && m.ready() >= m.lent.need {
		m.lent.need = 0
	}
	r := rateAsk{unit: m.unit, span: m.span, limit: m.limit, used: m.lent.used, flying: m.flying}
	switch {
	case m.limit == 0:
	case active:
		r.need = m.lent.need
		r.like = max(r.need, 1, min(slots+2*m.lent.recent, m.limit/4), m.limit/20)
	case warm:
		r.like = 1
	}
	return r
}

// lower takes over what a draft gives back.
func (m *meter) lower(p part) {
	if p.Out-(m.lent.used-p.Used)-m.flying < m.ready() {
		m.lent.out, m.lent.accounted = p.Out, p.Used
	}
}

// learn takes over what a row has of a rate. Tokens that a draft gives back are not used before it is known what became
// of it: only a row that is as it was settled makes more of them.
func (m *meter) learn(l *lease, now time.Time, c *clock, current bool) (more bool) {
	e := m.lent
	k := l.known.find(m.unit, m.span)
	e.clock = *c
	e.all = k.window(c.low(now))
	e.all.limit, e.all.flying = m.limit, k.out()
	before := m.ready()
	p, ok := k.Parts[l.id]
	if !ok {
		p.Used = e.used
	}
	e.elsewhere = e.all.flying - p.Out
	if current {
		e.out, e.accounted = p.Out, p.Used
	} else {
		m.lower(p)
	}
	return m.limit > 0 && before <= 0 && m.ready() > 0
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
	all := m.ofAll(now)
	return max(0, all.room(m.lent.now(now)))
}

// ofAll is what all nodes have sent, with what was sent here since it was told.
func (m *meter) ofAll(now time.Time) window {
	w := m.lent.all
	if n := m.lent.used - m.lent.accounted; n > 0 {
		w.count(m.lent.now(now), n)
		w.flying = max(0, w.flying-n)
	}
	return w
}

// until is when there may be room for n more, zero if only asking can tell.
func (m *meter) until(now time.Time, n int64) time.Time {
	if m.lent == nil {
		return m.window.until(now, n)
	}
	if n <= m.within(now) {
		return time.Time{}
	}
	there, all := m.lent.now(now), m.ofAll(now)
	at := all.until(there, n-m.ready())
	if at.IsZero() {
		return time.Time{}
	}
	return now.Add(at.Sub(there))
}

// now is the time of the clock that the windows of all nodes go by.
func (e *lent) now(now time.Time) time.Time {
	if e.clock.got.IsZero() {
		return now
	}
	return time.Unix(0, e.clock.low(now))
}

// charge notes what was sent.
func (m *meter) charge(now time.Time, n int64) {
	m.count(now, n)
	if m.lent != nil {
		m.lent.used += n
		m.lent.recent += n
	}
}

// seen is how much was sent within the window, by all nodes, and when the first of it leaves.
func (m *meter) seen(now time.Time) (sum int64, oldest time.Time) {
	if m.lent == nil {
		oldest = m.oldest(now)
		return m.sum, oldest
	}
	there, all := m.lent.now(now), m.ofAll(now)
	if oldest = all.oldest(there); !oldest.IsZero() {
		oldest = now.Add(oldest.Sub(there))
	}
	return all.sum, oldest
}
