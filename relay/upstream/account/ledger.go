package account

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"postern/mail"
	"postern/relay/upstream"
)

// Times of leases. A lease is renewed long before it ends. When it cannot be, what is sent is cut off early enough that
// nothing is open any more when the lease ends in the database: a cancelled Send waits at most 10 s for the reply to a
// whole message, and one clock may run a little faster than another.
const (
	leaseTime  = 40 * time.Second
	renewAfter = 3 * time.Second
	cutBefore  = 15 * time.Second
	wishTime   = 3 * time.Second // of a node that has nothing yet and wishes for something
	turnTime   = 2 * time.Second // how long a slot stays where it is while there are fewer slots than nodes
)

// ledger is what nodes know of one account together. Times are nanoseconds of the database's clock. A node that wants
// something settles its own part in a copy and swaps the row for it; where another node was faster it settles again.
//
// Nobody takes what another has: a node gives back what others wish for when it settles the next time, or its lease
// ends. A slot that is leased counts whether it is used or not. A token of a rate that a node has taken counts as sent
// until the node says when it was used, or gives it back.
//
// It is pure: the caller passes the time.
type ledger struct {
	Holders []holder `json:"holders,omitempty"`
	Meters  []common `json:"meters,omitempty"`
	Hold    hold     `json:"hold,omitzero"`
	Probe   string   `json:"probe,omitempty"` // the holder that probes

	changed bool // is to be written
}

// holder is one table of one node: the one of a configuration before a reload is another.
type holder struct {
	ID    string `json:"id"`
	Until int64  `json:"until"`
	Limit int    `json:"limit"` // of slots, for all together, as far as this one knows
	Held  int    `json:"held,omitempty"`
	Wish  int    `json:"wish,omitempty"`  // slots that it has use for beside
	Asked int64  `json:"asked,omitempty"` // since when
	Since int64  `json:"since,omitempty"` // when the first of Held came
}

// common is one rate, or the memory of a quota's window, of all together.
type common struct {
	Unit  upstream.Unit   `json:"unit"`
	Span  time.Duration   `json:"span"`
	Cells [][2]int64      `json:"cells,omitempty"` // of a window: number and count
	Parts map[string]part `json:"parts,omitempty"` // by holder
}

// part is what a holder has of a rate.
type part struct {
	Out   int64 `json:"out,omitempty"`  // taken, and neither used nor given back as far as is known here
	Used  int64 `json:"used,omitempty"` // of all that it ever sent, what is known here
	Lack  int64 `json:"lack,omitempty"` // that it has use for beside
	Asked int64 `json:"asked,omitempty"`
}

// hold is the state of the breaker. Epoch counts its changes.
type hold struct {
	Epoch    int64           `json:"epoch"`
	Status   upstream.Status `json:"status,omitempty"`
	Until    int64           `json:"until,omitempty"`
	Wait     int64           `json:"wait,omitempty"` // how long that was, whatever the clock says since
	Since    int64           `json:"since,omitempty"`
	Pressure int             `json:"pressure,omitempty"`
	Faults   int             `json:"faults,omitempty"`
	Early    bool            `json:"early,omitempty"`
	Spent    bool            `json:"spent,omitempty"` // a quota is used up
	Reply    mail.Reply      `json:"reply,omitzero"`
}

func (h *hold) ready() bool { return h.Status == "" || h.Status == upstream.Ready }

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
	base  int64 // the epoch that was changed
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

func decodeLedger(state []byte) (*ledger, error) {
	l := new(ledger)
	if len(state) == 0 {
		return l, nil
	}
	if err := json.Unmarshal(state, l); err != nil {
		return nil, fmt.Errorf("what nodes know of an account together cannot be read: %w", err)
	}
	return l, nil
}

func (l *ledger) encode() []byte {
	state, err := json.Marshal(l)
	if err != nil {
		panic(err) // there is nothing in it that could not be written
	}
	return state
}

func (l *ledger) clone() *ledger {
	c := *l
	c.changed = false
	c.Holders, c.Meters = slices.Clone(l.Holders), slices.Clone(l.Meters)
	for i := range c.Meters {
		m := &c.Meters[i]
		m.Cells, m.Parts = slices.Clone(m.Cells), maps.Clone(m.Parts)
	}
	return &c
}

func (l *ledger) holder(id string) (h holder, ok bool) {
	if i := l.index(id); i >= 0 {
		return l.Holders[i], true
	}
	return holder{ID: id}, false
}

func (l *ledger) index(id string) int {
	return slices.IndexFunc(l.Holders, func(h holder) bool { return h.ID == id })
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
	leased := l.settleRates(now, a) || me.Held > 0 || l.Probe == a.id

	term := int64(0)
	switch {
	case leased:
		term = int64(leaseTime)
	case me.Wish > 0 || l.lacks(a.id):
		term = int64(wishTime)
	case known:
		l.leave(a.id, now)
		return may
	default:
		return may
	}
	if l.changed || !known || me.Until-now < term-min(int64(renewAfter), term/2) {
		me.Until, l.changed = now+term, true
	}
	if i := l.index(a.id); i >= 0 {
		l.Holders[i] = me
	} else {
		l.Holders = append(l.Holders, me)
	}
	return may
}

// expire ends leases of others that are over. A clock that was set back must not make one last. Our own is ours as long
// as nobody has ended it.
func (l *ledger) expire(now int64, a *ask) {
	for _, h := range slices.Clone(l.Holders) {
		switch i := l.index(h.ID); {
		case h.Until <= now && a.trust && h.ID != a.id:
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

// settleHold notes a change of the breaker, unless another node was first: then the change is one that is said of an
// older state, and that is forgotten as between the slots of one node.
func (l *ledger) settleHold(a *ask) {
	if a.hold != nil && a.base == l.Hold.Epoch {
		l.Hold = *a.hold
		l.Hold.Epoch = a.base + 1
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
	limit, others, wishes, active := a.limit, 0, 0, 1
	for _, h := range l.Holders {
		if h.ID != a.id {
			limit = min(limit, h.Limit)
			others += h.Held
			wishes += h.Wish
			active++
		}
	}
	fair := max(1, limit/active)
	may = min(me.Held, max(a.like, a.need))
	given := l.recalled(now, a, me, may, limit, others, wishes, fair)
	may -= given
	if me.Held > 0 && max(may, min(me.Held, a.open)) == 0 {
		me.Since = 0
	}
	me.Held = max(may, min(me.Held, a.open))

	asked := me.Asked
	if asked == 0 || given > 0 {
		asked = now
	}
	if free := limit - others - me.Held; free > 0 && given == 0 && may == me.Held {
		got := max(0, min(a.need-me.Held, free-l.reserved(a, me.Held, asked, fair)))
		got += max(0, min(a.like-me.Held-got, free-got-wishes))
		if me.Held == 0 && got > 0 {
			me.Since = now
		}
		me.Held += got
		may = me.Held
	}
	if me.Wish = max(0, min(a.need, limit)-me.Held); me.Wish == 0 {
		asked = 0
	}
	me.Asked = asked
	return may
}

// recalled is how many of the slots that may be used have to be given back: those that are idle here while others have
// use for them; those beyond a fair share while others have less; and where there are fewer slots than nodes, one that
// has been here longest, after its turn.
func (l *ledger) recalled(now int64, a *ask, me *holder, may, limit, others, wishes, fair int) (n int) {
	over := max(0, me.Held+others-limit)
	n = max(0, min(may-a.need, max(wishes, over)))
	short, oldest := 0, true
	for _, h := range l.Holders {
		if h.ID == a.id {
			continue
		}
		short += min(h.Wish, max(0, fair-h.Held))
		if h.Held > 0 && before(h.Since, h.ID, me.Since, me.ID) {
			oldest = false
		}
	}
	free := max(0, limit-others-me.Held)
	short = max(short-free-n, over-n)
	if short <= 0 {
		return n
	}
	n += max(0, min(may-n-fair, short))
	if may-n == 1 && fair == 1 && me.Held == 1 && oldest && now-me.Since >= int64(turnTime) {
		n++
	}
	return n
}

// reserved is how many free slots are for others: who has less than a fair share comes before who has one, else who has
// waited longer.
func (l *ledger) reserved(a *ask, held int, asked int64, fair int) (n int) {
	for _, h := range l.Holders {
		if h.ID != a.id && h.Wish > 0 && (held >= fair || before(h.Asked, h.ID, asked, a.id)) {
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
			if m.Parts == nil {
				m.Parts = make(map[string]part)
			}
			m.Parts[a.id] = p
			l.changed = true
		}
		out = out || p.Out > 0
	}
	return out
}

// lend gives tokens back, unless they are used here or nobody else lacks them, and takes what is needed.
func (m *common) lend(now int64, id string, r *rateAsk, p *part, sum int64) {
	asked := p.Asked
	if asked == 0 {
		asked = now
	}
	var out, lack, earlier int64
	for other, o := range m.Parts {
		if other == id {
			continue
		}
		out, lack = out+o.Out, lack+o.Lack
		if o.Lack > 0 && before(o.Asked, other, asked, id) {
			earlier += o.Lack
		}
	}
	ready := p.Out - (r.used - p.Used) - r.flying
	if back := ready - r.need; back > 0 && (lack > 0 || r.like == 0) {
		p.Out, ready = p.Out-back, r.need
	}
	room := r.limit - sum - out - p.Out
	if n := min(r.need-ready, room-earlier); n > 0 {
		p.Out, ready, room = p.Out+n, ready+n, room-n
	}
	if n := min(r.like-ready, (room-lack)/2); n > 0 && ready < (r.like+1)/2 {
		p.Out, ready = p.Out+n, ready+n
	}
	if p.Lack = max(0, min(r.need, r.limit)-max(ready, 0)); p.Lack == 0 {
		asked = 0
	}
	p.Asked = asked
}

func (l *ledger) meter(unit upstream.Unit, span time.Duration) *common {
	same := func(m common) bool { return m.Unit == unit && m.Span == span }
	if i := slices.IndexFunc(l.Meters, same); i >= 0 {
		return &l.Meters[i]
	}
	l.Meters = append(l.Meters, common{Unit: unit, Span: span})
	return &l.Meters[len(l.Meters)-1]
}

// find is meter for reading.
func (l *ledger) find(unit upstream.Unit, span time.Duration) common {
	for _, m := range l.Meters {
		if m.Unit == unit && m.Span == span {
			return m
		}
	}
	return common{Unit: unit, Span: span}
}

func (l *ledger) lacks(id string) bool {
	return slices.ContainsFunc(l.Meters, func(m common) bool { return m.Parts[id].Lack > 0 })
}

// window is what was sent of the rate, tokens that are out not included.
func (m *common) window(now int64) window {
	w := window{span: m.Span}
	w.advance(time.Unix(0, now))
	for _, c := range m.Cells {
		if n := min(c[0], w.head); n >= w.head-cells {
			w.used[w.index(n)] += uint32(c[1])
			w.sum += c[1]
		}
	}
	return w
}

func (m *common) keep(w *window) {
	m.Cells = m.Cells[:0]
	for c := w.head - cells; c <= w.head; c++ {
		if n := w.used[w.index(c)]; n > 0 {
			m.Cells = append(m.Cells, [2]int64{c, int64(n)})
		}
	}
}

// out is how many tokens are with holders.
func (m *common) out() (n int64) {
	for _, p := range m.Parts {
		n += p.Out
	}
	return n
}

// forget is when nobody misses the ledger any more.
func (l *ledger) forget(now int64) int64 {
	at := max(now+int64(leaseTime), l.Hold.Until)
	for i := range l.Meters {
		m := &l.Meters[i]
		at = max(at, now+int64(m.Span)+int64(m.Span)/cells)
	}
	if !l.Hold.ready() {
		at = max(at, now) + int64(24*time.Hour)
	}
	return at
}
