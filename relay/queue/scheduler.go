package queue

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// scheduler is the lock around the plan. Submit, attempts and the work on the store tell it what happened, and Run asks
// it what to do.
type scheduler struct {
	bell  *bell
	owner string
	trace *tracer
	log   *slog.Logger

	// hard ends when outcomes can wait no longer; attempts ends at the drain deadline. Run sets them before anything
	// begins.
	hard, attempts context.Context
	// tasks are attempts, reviews and work on the store, for which Run waits. After Run's loop has ended they grow only
	// by what was counted under mu while phase was running.
	tasks sync.WaitGroup

	mu    sync.Mutex
	phase phase
	plan  plan
	lost  int // outcomes that were not recorded
}

// phase is the life of Run.
type phase uint8

const (
	idle phase = iota
	running
	stopping
)

// bell wakes the loop. It may be rung from anywhere, with or without the lock.
type bell struct {
	rung  chan struct{} // one slot: the loop has something to look at
	freed atomic.Bool   // a slot may be free
	poll  atomic.Bool   // somebody outside says that something changed
	stale atomic.Bool   // what is in the window may not be what is in the store
}

func (b *bell) ring() {
	select {
	case b.rung <- struct{}{}:
	default:
	}
}

func (s *scheduler) start(hard, attempts context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hard, s.attempts = hard, attempts
	s.phase, s.plan.reader.changed = running, true
}

func (s *scheduler) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase = stopping
}

func (s *scheduler) turn(now time.Time) todo {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bell.stale.Swap(false) {
		s.plan.reset()
	}
	if s.bell.poll.Swap(false) {
		s.plan.reader.polled, s.plan.routes.polled = true, true
	}
	return s.plan.turn(now, s.bell.freed.Swap(false))
}
