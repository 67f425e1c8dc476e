package account

import (
	"slices"
	"time"

	"postern/relay/upstream"
)

// ask is what a holder wants when it settles.
type ask struct {
	id    string
	trust bool // the database's clock is what it was: leases of others end in time
	limit int  // of slots
	open  int  // slots that cannot be given back now: used, or connections that are open
	need  int  // slots that it has use for
	like  int  // slots that it would have ready, need among them
	rates []rateAsk
	tell  bool  // what was sent, though nothing else is new
	hold  *hold // a change of the breaker; nil: none
	probe bool  // it wants to probe, or does
}

// rateAsk is what a holder wants of a rate; all but used is for one that has a limit.
type rateAsk struct {
	unit   upstream.Unit
	span   time.Duration
	limit  int64
	used   int64 // all that it ever sent
	flying int64
	need   int64 // that it has use for beside flying
	like   int64 // that it would have ready beside flying, need among them
}

// settle does what a holder asks for as far as others let it. It returns how many slots the holder may use from now on;
// connections beyond them are to be closed.
func (l *ledger) settle(now int64, a *ask) (may int) {
	l.expire(now, a)
	l.settleHold(a)
	before, known := l.holder(a.id)
	me := before
	me.Limit = a.limit
	may = l.settleSlots(now, a, &me)
	l.changed = l.changed || known && me != before
	term := int64(0)
	switch out := l.settleRates(now, a); {
	case out || me.Held > 0 || l.Probe == a.id:
		term = int64(leaseTime)
	case me.Wish > 0 || l.lacks(a.id):
		term = int64(wishTime)
	}
	l.stay(now, me, known, term)
	return may
}

// stay keeps a holder for as long as what it has or wishes for is to last: not at all if that is nothing.
func (l *ledger) stay(now int64, me holder, known bool, term int64) {
	switch {
	case term == 0 && known:
		l.leave(me.ID, now)
		return
	case term == 0:
		return
	}
	if l.changed || !known || me.Until-now < term-min(int64(renewAfter), term/2) {
		me.Until, l.changed = now+term, true
	}
	if i := l.index(me.ID); i >= 0 {
		l.Holders[i] = me
	} else {
		l.Holders = append(l.Holders, me)
	}
}

// expire ends leases of others that are over, and those of our former processes whatever the clock says. A clock that
// was set back must not make one last. Our own is ours as long as nobody has ended it.
func (l *ledger) expire(now int64, a *ask) {
	for _, h := range slices.Clone(l.Holders) {
		switch i := l.index(h.ID); {
		case h.Until <= now && a.trust && h.ID != a.id, succeeds(a.id, h.ID):
			l.leave(h.ID, now)
		case h.Until > now+int64(leaseTime+time.Second):
			l.Holders[i].Until, l.changed = now+int64(leaseTime), true
		}
	}
	if l.Probe != "" && l.Probe != a.id && l.index(l.Probe) < 0 {
		l.Probe, l.changed = "", true
	}
	if h := &l.Hold; h.Until > now+int64(upstream.MaxQuota+time.Hour) {
		h.Until, l.changed = now+int64(PauseMost), true
	}
}

// leave takes a holder out. What it has taken of the rates may have been used at any time until now.
func (l *ledger) leave(id string, now int64) {
	l.Holders = slices.DeleteFunc(l.Holders, func(h holder) bool { return h.ID == id })
	for i := range l.Meters {
		m := &l.Meters[i]
		if p, ok := m.Parts[id]; ok {
			if p.Out > 0 {
				w := m.window(now)
				w.count(time.Unix(0, now), p.Out)
				m.keep(&w)
			}
			delete(m.Parts, id)
		}
	}
	if l.Probe == id {
		l.Probe = ""
	}
	l.changed = true
}

// settleHold notes a change of the breaker. Who learns that another node has changed it first forgets its own change:
// it is said of an older state, as between the slots of one node.
func (l *ledger) settleHold(a *ask) {
	if a.hold != nil {
		epoch := l.Hold.Epoch + 1
		l.Hold = *a.hold
		l.Hold.Epoch = epoch
		l.Probe, l.changed = "", true
	}
	switch {
	case a.probe && l.Probe == "" && !l.Hold.ready():
		l.Probe, l.changed = a.id, true
	case !a.probe && l.Probe == a.id:
		l.Probe, l.changed = "", true
	}
}

// before tells who is served first of two that wish since then.
func before(asked int64, id string, than int64, thanID string) bool {
	return asked < than || asked == than && id < thanID
}

// settleSlots gives back what others wish for and takes what is free.
func (l *ledger) settleSlots(now int64, a *ask, me *holder) (may int) {
	o := l.others(a)
	may = min(me.Held, max(a.like, a.need))
	given := l.recalled(now, a, me, may, o)
	may -= given
	me.Held = max(may, min(me.Held, a.open))
	if me.Asked == 0 || given > 0 {
		me.Asked = now
	}
	if free := o.limit - o.held - me.Held; free > 0 && given == 0 && may == me.Held {
		got := max(0, min(a.need-me.Held, free-l.reserved(me, o.fair)))
		got += max(0, min(a.like-me.Held-got, free-got-o.wish))
		if me.Held == 0 {
			me.Since = now
		}
		me.Held += got
		may = me.Held
	}
	if me.Held == 0 {
		me.Since = 0
	}
	if me.Wish = max(0, min(a.need, o.limit)-me.Held); me.Wish == 0 {
		me.Asked = 0
	}
	return may
}

// others is what all but one have of the slots and wish for.
type others struct {
	limit int // for all, as the most careful holder has it
	held  int
	wish  int
	fair  int // what each may have while somebody wishes
}

func (l *ledger) others(a *ask) others {
	o, n := others{limit: a.limit}, 1
	for _, h := range l.Holders {
		if h.ID != a.id {
			o.limit = min(o.limit, h.Limit)
			o.held, o.wish, n = o.held+h.Held, o.wish+h.Wish, n+1
		}
	}
	o.fair = max(1, o.limit/n)
	return o
}

// recalled is how many of the slots that may be used have to be given back: those that are idle here while others have
// use for them; those beyond a fair share while others have less; and where there are fewer slots than nodes, one that
// has been here longest, after its turn.
func (l *ledger) recalled(now int64, a *ask, me *holder, may int, o others) (n int) {
	over := max(0, me.Held+o.held-o.limit)
	n = max(0, min(may-a.need, max(o.wish, over)))
	short, oldest := 0, true
	for _, h := range l.Holders {
		if h.ID == a.id {
			continue
		}
		short += min(h.Wish, max(0, o.fair-h.Held))
		if h.Held > 0 && before(h.Since, h.ID, me.Since, me.ID) {
			oldest = false
		}
	}
	free := max(0, o.limit-o.held-me.Held)
	short = max(short-free-n, over-n)
	if short <= 0 {
		return n
	}
	n += max(0, min(may-n-o.fair, short))
	if may-n == 1 && o.fair == 1 && me.Held == 1 && oldest && now-me.Since >= int64(turnTime) {
		n++
	}
	return n
}

// reserved is how many free slots are for others: who has less than a fair share comes before who has one, else who has
// waited longer.
func (l *ledger) reserved(me *holder, fair int) (n int) {
	for _, h := range l.Holders {
		if h.ID != me.ID && h.Wish > 0 && (me.Held >= fair || before(h.Asked, h.ID, me.Asked, me.ID)) {
			n += min(h.Wish, max(0, fair-h.Held))
		}
	}
	return n
}

// settleRates tells what was sent, gives tokens back and takes others. It reports whether some are out.
func (l *ledger) settleRates(now int64, a *ask) (out bool) {
	tell := a.tell || l.changed || a.like == 0
	for i := range a.rates {
		r := &a.rates[i]
		m := l.meter(r.unit, r.span)
		p, known := m.Parts[a.id]
		if !known {
			p.Used = r.used
		}
		was, w := p, m.window(now)
		if n := len(m.Cells); n > 0 && m.Cells[n-1][0] > w.head { // the clock was set back
			m.keep(&w)
			l.changed = true
		}
		if n := r.used - p.Used; n > 0 && tell {
			w.count(time.Unix(0, now), n)
			p.Out, p.Used = max(0, p.Out-n), r.used
			m.keep(&w)
		}
		if r.limit > 0 {
			m.lend(now, a.id, r, &p, w.sum)
		}
		if p != was || !known && a.like > 0 {
			m.put(a.id, p)
			l.changed = true
		}
		out = out || p.Out > 0
	}
	return out
}

func (m *common) put(id string, p part) {
	if m.Parts == nil {
		m.Parts = make(map[string]part)
	}
	m.Parts[id] = p
}

// lend gives tokens back, unless they are used here or nobody else lacks them, and takes what is needed.
func (m *common) lend(now int64, id string, r *rateAsk, p *part, sum int64) {
	if p.Asked == 0 {
		p.Asked = now
	}
	out, lack, earlier := m.elsewhere(id, p.Asked)
	ready := p.Out - (r.used - p.Used) - r.flying
	if back := ready - r.need; back > 0 && (lack > 0 || r.like == 0) {
		p.Out, ready = p.Out-back, r.need
	}
	room := r.limit - sum - out - p.Out
	if n := min(r.need-ready, room-earlier); n > 0 {
		p.Out, ready, room = p.Out+n, ready+n, room-n
	}
	if n := min(r.like-ready, (room-lack+1)/2); n > 0 && ready < (r.like+1)/2 {
		p.Out, ready = p.Out+n, ready+n
	}
	if p.Lack = max(0, min(r.need, r.limit)-max(ready, 0)); p.Lack == 0 {
		p.Asked = 0
	}
}

// elsewhere is what other holders have and lack, and what they lacked before somebody who has asked then.
func (m *common) elsewhere(id string, asked int64) (out, lack, earlier int64) {
	for other, o := range m.Parts {
		if other == id {
			continue
		}
		out, lack = out+o.Out, lack+o.Lack
		if o.Lack > 0 && before(o.Asked, other, asked, id) {
			earlier += o.Lack
		}
	}
	return out, lack, earlier
}
