package outbound

import (
	"context"
	"slices"
	"sync"
	"time"

	"postern/relay/upstream"
)

// prefetch lets a few queued messages be ready before a place at their upstream is free. The queue records
// an attempt before it is made; with a place already taken, that place would idle for the length of a
// commit each time. So where all places are taken, some attempts are given out all the same, are
// recorded, and then wait here for the next place, in the order in which they came. Only the configured
// username has a prefetch: identities of senders have places enough of their own.
type prefetch struct {
	most    int
	stop    <-chan struct{} // closed when the server shuts down: what waits here has not begun
	reserve func(time.Time) (upstream.Slot, time.Time)

	mu     sync.Mutex      // guards what follows; held while asking for a place
	n      int             // given out
	over   bool            // no place will come any more
	parked []chan promised // who waits for a place, first come first served
}

// promised is a place, or until when there is none.
type promised struct {
	slot  upstream.Slot
	until time.Time
}

// prefetchShare is how many places share one attempt in prefetch: enough to hide a commit, few enough that a
// person's message does not wait long behind those of a bulk job.
const prefetchShare = 4

func newPrefetch(places int, stop <-chan struct{}, reserve func(time.Time) (upstream.Slot, time.Time)) *prefetch {
	return &prefetch{most: max(1, places/prefetchShare), stop: stop, reserve: reserve}
}

// admit gives out an attempt in prefetch, if there are not too many.
func (s *prefetch) admit() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n >= s.most {
		return false
	}
	s.n++
	return true
}

// leave gives an attempt in prefetch back.
func (s *prefetch) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n--
}

// waiting reports that somebody is to have the next place.
func (s *prefetch) waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n > 0
}

// wake gives places that may be free to those who wait, before anybody else is asked.
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

// await waits for a place and takes it. Without one, until says when to ask again: the upstream is paused,
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
