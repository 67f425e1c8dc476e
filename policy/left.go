package policy

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"postern/mail"
)

// Binding is a limit that binds a login: where it uses one of the listeners from one of the networks, and no binding
// before it does there. A login without any is not limited.
type Binding struct {
	Limit     Limit
	Rule      string
	Listeners []string       // empty: all
	Networks  []netip.Prefix // of the client; empty: all
	Except    []string       // rules that go first where they apply: their limits count there, or none
}

// Bindings returns the limits of a login, those that go first in front. What no connection meets, since a rule before
// it matches all of them, is not among them.
func (p *Policy) Bindings(login string, groups []string) (all []Binding) {
	login = mail.LowerASCII(login)
	var before []string
	for i := range p.rules {
		r := &p.rules[i]
		if r.Rule.Limits == nil || !r.match.matchesLogin(login, groups) {
			continue
		}
		for _, l := range r.Rule.Limits {
			all = append(all, Binding{l, r.Name, r.Listeners, r.Networks, slices.Clone(before)})
		}
		before = append(before, r.Name)
		if len(r.Listeners)+len(r.Networks) == 0 {
			break // nothing behind it counts
		}
	}
	return all
}

// Left is how much of a limit is left at a moment.
type Left struct {
	Used, Left int64     // together the limit's count
	Next       time.Time // when one more is left; zero: one is
	Full       time.Time // when all of it is left, if nothing is sent until then; zero: it is
}

// LeftOf says how much of a limit is left now. The state of one of which nothing was used is zero.
func (l Limit) LeftOf(s State, now time.Time) Left {
	if !s.Full.After(now) || math.IsNaN(s.Tokens) {
		return Left{Left: l.Count}
	}
	since := max(now.Sub(s.At), 0) // a state from the future, due to a wrong clock, counts as of now
	tokens := min(max(s.Tokens, 0)+since.Seconds()*l.perSecond(), float64(l.Count))
	in := func(tokens float64) time.Time {
		return now.Add(time.Duration(tokens / l.perSecond() * float64(time.Second)))
	}
	left := Left{Left: int64(tokens), Full: in(float64(l.Count) - tokens)}
	left.Used = l.Count - left.Left
	if left.Left == 0 {
		left.Next = in(1 - tokens)
	}
	return left
}

// States returns what is counted of a login now. Limits of which nothing was used are not there. What is counted on a
// shared counter is in the store, not here.
func (l *Limiter) States(now time.Time, login string, limits []Limit) (states []State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now = l.advanceLocked(now)
	for _, limit := range limits {
		if b := l.buckets[key{login, limit}]; b != nil {
			states = append(states, b.state(now))
		}
	}
	return states
}
