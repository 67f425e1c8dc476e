package auth

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// slots bounds how many credentials are verified at once, how many wait for it, and how long.
type slots struct {
	free    chan struct{}
	wait    time.Duration
	waiting atomic.Int64
}

func newSlots(n int, wait time.Duration) *slots {
	return &slots{free: make(chan struct{}, n), wait: wait}
}

func (s *slots) acquire(ctx context.Context) error {
	select {
	case s.free <- struct{}{}:
		return nil
	default:
	}
	limit := int64(queuePerSlot * cap(s.free))
	if s.waiting.Add(1) > limit {
		s.waiting.Add(-1)
		return fmt.Errorf("%w: %d wait already", ErrBusy, limit)
	}
	defer s.waiting.Add(-1)
	timeout := time.NewTimer(s.wait)
	defer timeout.Stop()
	select {
	case s.free <- struct{}{}:
		return nil
	case <-timeout.C:
		return fmt.Errorf("%w: waited %s", ErrBusy, s.wait)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
	}
}

func (s *slots) release() { <-s.free }
