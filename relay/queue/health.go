package queue

import (
	"context"
	"errors"
	"time"
)

// Back-off of a failing store.
const (
	storeBackoff    = 250 * time.Millisecond
	maxStoreBackoff = 15 * time.Second
)

// Whether an operation commits something.
const (
	reads  = false
	writes = true
)

// health remembers whether the store works. While it fails, nothing is scheduled but a trial at times. It is pure.
type health struct {
	failing bool
	writing bool      // what failed was a commit: a read that succeeds proves nothing
	until   time.Time // when to try again
	backoff time.Duration
}

// down reports that it is too early for a trial.
func (h *health) down(now time.Time) bool { return h.failing && now.Before(h.until) }

// works learns that an operation succeeded and reports whether a failure is over.
func (h *health) works(writing bool) (over bool) {
	if over = h.failing && writing == h.writing; over {
		*h = health{}
	}
	return over
}

// fails learns that an operation failed, not before the time for a trial, and reports whether it is the first one.
func (h *health) fails(now time.Time, writing bool) (first bool) {
	first = !h.failing
	h.failing, h.writing = true, writing
	h.backoff = min(max(2*h.backoff, storeBackoff), maxStoreBackoff)
	h.until = now.Add(h.backoff)
	return first
}

// storeSaid pauses scheduling when an operation of the store failed, and ends the pause when one succeeded that proves
// that the store works.
func (s *scheduler) storeSaid(err error, op string, writing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, now := &s.plan.health, time.Now()
	switch {
	case err == nil, errors.Is(err, ErrNotFound):
		if !h.works(writing) {
			return
		}
		s.log.Info("the store works again")
		s.plan.reader.changed = true
	case s.hard.Err() != nil && errors.Is(err, context.Canceled):
		return
	case !h.down(now):
		if h.fails(now, writing) {
			s.log.Error("the store fails: no attempts until it works again", "operation", op, "error", err)
		}
		s.plan.reader.changed = s.plan.reader.changed || !writing
	}
	s.bell.ring()
}
