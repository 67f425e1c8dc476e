package queue

import (
	"math"
	"sync"
	"time"
)

// Lease is the time for which a message belongs to one attempt. The attempt looks at it before it sends what completes
// the message: while a process was stopped, or its store away, another node may have taken the message over. The zero
// Lease is of a message that is not stored yet, which nobody else can have; nor does a nil one end. All methods are
// safe for concurrent use.
type Lease struct {
	mu    sync.Mutex
	begun bool
	end   instant
	over  bool // it ran out once, or is lost
	lost  bool // the store says that it is not ours
}

// forever is what is left of a lease that does not end.
const forever = time.Duration(math.MaxInt64)

// instant is a moment by both clocks. The monotonic one stands still while the machine sleeps, the other may be set:
// who wants to be sure believes the one by which more time has passed.
type instant struct {
	wall time.Time
	ran  time.Duration // since started
}

var started = time.Now()

// at is a moment whose time.Time has a monotonic reading, as those that time.Now and Add return.
func at(t time.Time) instant { return instant{t.Round(0), t.Sub(started)} }

func (i instant) until(end instant) time.Duration { return min(end.wall.Sub(i.wall), end.ran-i.ran) }

// newLease returns a lease that has begun.
func newLease(until time.Time) *Lease { return &Lease{begun: true, end: at(until)} }

// Left is how long the message still belongs to the attempt; not more than zero: not any more, for good.
func (l *Lease) Left() time.Duration {
	if l == nil {
		return forever
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.left(at(time.Now()))
}

func (l *Lease) left(now instant) time.Duration {
	switch {
	case l.over:
		return 0
	case !l.begun:
		return forever
	}
	left := now.until(l.end)
	l.over = left <= 0
	return left
}

// extend begins a lease, or moves its end. One that ran out stays over, whatever the store says now: another may have
// had the message in between.
func (l *Lease) extend(until time.Time) { l.extendAt(at(time.Now()), at(until)) }

func (l *Lease) extendAt(now, until instant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left(now)
	l.begun, l.end = true, until
}

// lose ends a lease that is somebody else's.
func (l *Lease) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over, l.lost = true, true
}

// ends reports whether a lease in the store has to be extended if it is to last longer than that. One that ran out has
// to be as well: the outcome needs it. A nil one is not in the store.
func (l *Lease) ends(within time.Duration) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begun && !l.lost && at(time.Now()).until(l.end) < within
}
