package account

import (
	"time"

	"postern/relay/upstream"
)

// Bounds of waiting for the rates.
const (
	shortWait = time.Minute     // up to which Reserve says busy and wakes, instead of naming a time
	maxWait   = 5 * time.Second // how long a Send that has begun waits for more room
)

// share is what one slot has taken of the rates and not used yet.
type share struct{ messages, recipients int64 }

func (s share) of(u upstream.Unit) int64 {
	if u == upstream.Recipients {
		return s.recipients
	}
	return s.messages
}

// least is what Reserve takes: how many recipients there are is known at Send.
var least = share{messages: 1, recipients: 1}

// meter is one rate at work, or, without a limit, the memory of what was sent.
type meter struct {
	unit upstream.Unit
	window
	lent *lent // nil: not shared with other nodes
}

// pace holds an identity to its rates. It is pure; the caller holds the lock.
type pace []meter

// newPace makes the meters of the rates, and a memory for each quota that a rule may tell of.
func newPace(rates []upstream.Rate, quotas []time.Duration) pace {
	p := make(pace, 0, len(rates)+len(quotas))
	for _, r := range rates {
		p = append(p, meter{unit: r.Unit, window: window{limit: r.Count, span: r.Per}})
	}
	for _, span := range quotas {
		if p.meter(upstream.Messages, span) == nil {
			p = append(p, meter{unit: upstream.Messages, window: window{span: span}})
		}
	}
	return p
}

func (p pace) meter(unit upstream.Unit, span time.Duration) *meter {
	for i := range p {
		if p[i].unit == unit && p[i].span == span {
			return &p[i]
		}
	}
	return nil
}

// wait tells when somebody who holds have can have want: at once (zero, false), at a time, or when something that is
// under way has ended (busy).
func (p pace) wait(now time.Time, have, want share) (until time.Time, busy bool) {
	for i := range p {
		m := &p[i]
		missing := want.of(m.unit) - have.of(m.unit)
		if m.limit == 0 || missing <= 0 || m.room(now) >= missing {
			continue
		}
		at := m.until(now, missing)
		if at.IsZero() {
			busy = true
		} else if at.After(until) {
			until = at
		}
	}
	return until, busy && until.IsZero()
}

// take gives more to a share. wait must have said yes.
func (p pace) take(s *share, more share) {
	for i := range p {
		m := &p[i]
		m.flying += more.of(m.unit)
		if m.lent != nil && more.of(m.unit) > 0 {
			m.lent.need = 0
		}
	}
	s.messages += more.messages
	s.recipients += more.recipients
}

// claim tops a share up to one message for as many of n recipients as there is room for. Without room for one, it tells
// as wait does.
func (p pace) claim(now time.Time, s *share, n int) (got int, until time.Time) {
	until, busy := p.wait(now, *s, least)
	if busy || !until.IsZero() {
		return 0, until
	}
	want := int64(n)
	for i := range p {
		if m := &p[i]; m.unit == upstream.Recipients && m.limit > 0 {
			want = min(want, s.recipients+m.room(now))
		}
	}
	p.take(s, share{max(0, 1-s.messages), max(0, want-s.recipients)})
	return int(want), time.Time{}
}

// record takes a share back and counts what of it was used.
func (p pace) record(now time.Time, s *share, used share) {
	for i := range p {
		m := &p[i]
		m.flying -= s.of(m.unit)
		if n := used.of(m.unit); n > 0 {
			m.charge(now, n)
		}
	}
	*s = share{}
}

// ourShare is how many messages within a quota's window make us believe that the quota went to us.
const ourShare = 50

// quotaOpens is how long a quota that was used up stays so, at least: until the first of what we sent leaves its
// window. Where that was little, others use the account too, and only trying can tell.
func (p pace) quotaOpens(now time.Time, span time.Duration) time.Duration {
	m := p.meter(upstream.Messages, span)
	if m == nil {
		return 0
	}
	sum, oldest := m.seen(now)
	if sum < ourShare {
		return 0
	}
	return min(oldest.Sub(now), span)
}

func (p pace) states(now time.Time) []upstream.RateState {
	var states []upstream.RateState
	for i := range p {
		if m := &p[i]; m.limit > 0 {
			_, frees := m.seen(now)
			states = append(states, upstream.RateState{Rate: upstream.Rate{Count: m.limit, Unit: m.unit, Per: m.span},
				Used: m.limit - m.roomOfAll(now), Frees: frees})
		}
	}
	return states
}

// blank reports that there is nothing to remember.
func (p pace) blank(now time.Time) bool {
	for i := range p {
		if p[i].advance(now); p[i].sum+p[i].flying > 0 {
			return false
		}
	}
	return true
}
