package outbound

import (
	"context"
	"slices"
	"sync"
	"time"

	"postern/relay/upstream"
)

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
