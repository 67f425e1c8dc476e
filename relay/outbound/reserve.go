package outbound

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/relay/queue"
	"postern/relay/upstream"
)

// Reserve takes a slot at the first upstream of the message's route that is not paused, or lets the message be
// prefetched. If that upstream is merely busy, the message waits for it: the next upstream of a route is for faults,
// not for load. If recipients have different routes, a paused one holds up no other.
func (d *Dispatcher) Reserve(now time.Time, m *queue.Message) (queue.Slot, queue.Wait) {
	a, up, wait := d.reserve(now, m)
	switch {
	case a == nil && up != nil && wait.Key == up.Config.Name && up.prefetch.admit():
		return &attempt{d: d, routes: d.Routes(), upstream: up, prefetched: true}, wait
	case a == nil:
		return nil, wait
	}
	return a, wait
}

// ReserveNow takes a slot for a hand-off: one that is free now and promised to nobody.
func (d *Dispatcher) ReserveNow(now time.Time, m *queue.Message) (queue.Slot, queue.Wait) {
	a, up, wait := d.reserve(now, m)
	switch {
	case a == nil:
		return nil, wait
	case up != nil && up.prefetch.waiting():
		a.slot.Release()
		return nil, wait
	}
	return a, wait
}

// Release implements queue.Slot. It gives back what Reserve took.
func (a *attempt) Release() {
	a.leavePrefetch()
	if a.slot != nil {
		a.used, a.slot = append(a.used, a.slot), nil
	}
	for _, slot := range a.used {
		slot.Release()
	}
	a.used = nil
}

func (a *attempt) leavePrefetch() {
	if a.prefetched {
		a.upstream.prefetch.leave()
		a.prefetched = false
	}
}

// reserve takes a free slot. The upstream comes with it, and without it where all its slots are taken.
func (d *Dispatcher) reserve(now time.Time, m *queue.Message) (*attempt, *Upstream, queue.Wait) {
	r := d.Routes()
	pending := pendingOf(m)
	if len(pending) == 0 {
		return &attempt{d: d, routes: r}, nil, queue.Wait{} // nothing to send: the attempt finds that out
	}
	slot, up, wait := reserve(now, m, r.routeFor(m, m.Recipients[pending[0]].To))
	if !wait.Until.IsZero() && len(pending) > 1 && len(r.Rules) > 0 {
		slot, up, wait = reserveOther(now, m, r.groups(m)[1:], wait)
	}
	if slot == nil {
		return nil, up, wait
	}
	return &attempt{d: d, routes: r, slot: slot, upstream: up}, up, wait
}

func reserve(now time.Time, m *queue.Message, route []*Upstream) (upstream.Slot, *Upstream, queue.Wait) {
	var wait queue.Wait
	name := nameOf(route, m)
	for _, up := range route {
		identity := up.identityFor(m)
		key := up.keyFor(identity)
		slot, until := up.Reserve(now, identity)
		if slot != nil {
			return slot, up, queue.Wait{Key: key, Route: name}
		}
		if until.IsZero() {
			return nil, up, queue.Wait{Key: key, Route: name}
		}
		if wait.Until.IsZero() || until.Before(wait.Until) {
			wait = queue.Wait{Key: key, Route: name, Until: until}
		}
	}
	return nil, nil, wait
}

// reserveOther goes on to the routes of other recipients. wait says until when the first is paused; where all are,
// what is returned says until when, by the names of all.
func reserveOther(now time.Time, m *queue.Message, others []group, wait queue.Wait) (
	upstream.Slot, *Upstream, queue.Wait) {
	if len(others) == 0 {
		return nil, nil, wait
	}
	names := []string{cmp.Or(wait.Route, wait.Key)}
	for _, g := range others {
		slot, up, w := reserve(now, m, g.route)
		if slot != nil || w.Until.IsZero() {
			return slot, up, w
		}
		names = append(names, cmp.Or(w.Route, w.Key))
		if w.Until.Before(wait.Until) {
			wait.Key, wait.Until = w.Key, w.Until
		}
	}
	slices.Sort(names)
	wait.Route = strings.Join(names, "; ")
	return nil, nil, wait
}

// nameOf is what a message waits for while none of its route can be used.
func nameOf(route []*Upstream, m *queue.Message) string {
	if len(route) == 1 {
		return "" // the one key says it
	}
	keys := make([]string, len(route))
	for i, up := range route {
		keys[i] = up.keyFor(up.identityFor(m))
	}
	return strings.Join(keys, ", ")
}

// keyFor names what a message waits for at an upstream.
func (u *Upstream) keyFor(identity string) string {
	if identity == "" {
		return u.Config.Name
	}
	return u.Config.Name + " as " + identity
}

// prefetch has a few queued messages ready before a slot at their upstream is free. The queue records an attempt before
// it begins; if it took its slot first, that slot would idle for the length of a commit each time. So where all slots
// are taken, a few attempts begin without one, are recorded, and then wait here for the next slot, first come first
// served. Only the configured username prefetches: identities of senders have slots enough of their own.
type prefetch struct {
	most    int
	stop    <-chan struct{} // closed when the server shuts down: what waits here has not begun
	reserve func(time.Time) (upstream.Slot, time.Time)

	mu     sync.Mutex      // guards what follows; held while asking for a slot
	n      int             // begun without a slot
	over   bool            // no slot will come any more
	parked []chan promised // who waits for a slot, first come first served
}

// promised is a slot, or until when there is none.
type promised struct {
	slot  upstream.Slot
	until time.Time
}

// prefetchShare is how many slots share one prefetched attempt: enough to hide a commit, few enough that a person's
// message does not wait long behind those of a bulk job.
const prefetchShare = 4

func newPrefetch(slots int, stop <-chan struct{}, reserve func(time.Time) (upstream.Slot, time.Time)) *prefetch {
	return &prefetch{most: max(1, slots/prefetchShare), stop: stop, reserve: reserve}
}

// admit lets an attempt begin without a slot, if there are not too many.
func (s *prefetch) admit() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n >= s.most {
		return false
	}
	s.n++
	return true
}

// leave is called when such an attempt has its slot, or ends without one.
func (s *prefetch) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n--
}

// waiting reports that somebody is to have the next slot.
func (s *prefetch) waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n > 0
}

// wake gives slots that may be free to those who wait, before anybody else is asked.
func (s *prefetch) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.parked) > 0 {
		slot, until := s.reserve(time.Now())
		if slot == nil && until.IsZero() {
			return
		}
		s.parked[0] <- promised{slot, until}
		s.parked = s.parked[1:]
	}
}

// await waits for a slot and takes it. Without one, until says when to ask again: the upstream is paused,
// the server shuts down, or ctx has ended.
func (s *prefetch) await(ctx context.Context) (upstream.Slot, time.Time) {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return nil, time.Now().Add(time.Second)
	}
	if len(s.parked) == 0 {
		if slot, until := s.reserve(time.Now()); slot != nil || !until.IsZero() {
			s.mu.Unlock()
			return slot, until
		}
	}
	promise := make(chan promised, 1)
	s.parked = append(s.parked, promise)
	s.mu.Unlock()

	select {
	case p := <-promise:
		return p.slot, p.until
	case <-s.stop:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parked = slices.DeleteFunc(s.parked, func(p chan promised) bool { return p == promise })
	select {
	case p := <-promise: // it came at the same moment
		return p.slot, p.until
	default:
		return nil, time.Now()
	}
}

// end sends everybody who waits, or will, elsewhere: the upstream has left the configuration.
func (s *prefetch) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, p := range s.parked {
		p <- promised{until: time.Now().Add(time.Second)}
	}
	s.parked = nil
}
