package queue

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"postern/mail"
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

// slotFree says that one of our own attempts gave its slot back.
func (b *bell) slotFree() {
	b.freed.Store(true)
	b.ring()
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

// admit takes a new message into the window, if there is room, and asks for a slot if nobody waits. With a slot
// the message is marked as leased and its task is counted.
func (s *scheduler) admit(now time.Time, e *entry, c mail.Content) Slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, m := &s.plan, e.m
	if s.phase != running || p.health.down(now) || m.Held || m.NextAttempt.After(now) || m.Bounce || !p.room(m.Login) {
		return nil
	}
	p.window.add(e, c)
	if p.window.waiting > 0 || len(p.window.reviews) > 0 {
		return nil
	}
	slot, w := p.dispatcher.Reserve(now, m)
	e.belongs(w)
	switch {
	case slot != nil:
		m.LeaseOwner, m.LeaseUntil, m.Attempts = s.owner, now.Add(p.leaseFor), m.Attempts+1
		e.leaseUntil = m.LeaseUntil
		s.beginLocked(e)
	case w.Until.After(now):
		e.until, e.asleep = w.Until, p.routes.pause(w, m)
		m.NextAttempt, m.WaitingFor = p.times.sleepAt(now, m, e.until, e.asleep), e.asleep
	}
	return slot
}

// track enters an attempt that somebody else began and counts its task. It reports false when Run is not there to wait
// for it.
func (s *scheduler) track(e *entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != running {
		return false
	}
	s.plan.window.add(e, nil)
	s.beginLocked(e)
	return true
}

func (s *scheduler) beginLocked(e *entry) {
	s.tasks.Add(1)
	if s.plan.window.begin(e) {
		s.bell.ring() // leases are to be looked after from now on
	}
}

// admitted lets a message that was just added without a slot wait in the window, if it is there and due.
func (s *scheduler) admitted(e *entry, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.bell.ring() // also where the store refused it: admit may have learned of a pause
	p, now := &s.plan, time.Now()
	in := p.window.entries[e.m.ID] == e
	switch {
	case err != nil:
		if in {
			p.forget(e)
		}
	case in && e.m.NextAttempt.After(now):
		s.trace.waiting(e.m, e.route, e.until)
		p.leave(now, e, e.m.NextAttempt, e.asleep)
	case in:
		p.join(now, e)
	default:
		p.enter(now, NewMessage{Message: e.m}, false)
	}
}

// added lets messages that are in the store already wait in the window, where there is room.
func (s *scheduler) added(news ...NewMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range news {
		s.plan.enter(time.Now(), n, s.phase == running)
	}
	s.bell.ring()
}

// mayLease reports whether an attempt is leased already, and if not, whether it may be. If neither, the entry is
// forgotten.
func (s *scheduler) mayLease(e *entry) (leased, may bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	leased, may = !e.leaseUntil.IsZero(), s.phase == running
	if !leased && !may {
		s.plan.forget(e)
	}
	return leased, may
}

// leased learns how the store took a lease, and reports whether the attempt may be made. If not, the entry is dealt
// with.
func (s *scheduler) leased(e *entry, until time.Time, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, ErrNotFound): // delivered, held or deleted meanwhile, or leased to another node until a time
		s.plan.forget(e)
		s.plan.reader.changed = true
	case err != nil:
		if e.state == active {
			s.plan.window.active--
		}
		s.plan.join(time.Now(), e)
	default:
		e.m.Attempts++
		e.leaseUntil = until
	}
	return err == nil
}

func (s *scheduler) forget(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan.forget(e)
}

// sleepsFor returns what a message that has to wait for its upstreams is to sleep for: "" if they are not paused but
// refused this one message, or its sender, whose return nobody tells.
func (s *scheduler) sleepsFor(m *Message) (route string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != running {
		return ""
	}
	now := time.Now()
	slot, w := s.plan.dispatcher.Reserve(now, m)
	switch {
	case slot != nil:
		slot.Release()
	case w.Until.After(now):
		return s.plan.routes.pause(w, m)
	}
	return ""
}

// learn ends the pause of a route when an upstream of it took a message, or refused it on its merits.
func (s *scheduler) learn(route string, results []mail.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range results {
		if r.Class == mail.Delivered || r.Class.Permanent() {
			now := time.Now()
			s.plan.ask(now, s.plan.routes.works(now, route))
			return
		}
	}
}

// closed ends an entry whose outcome was committed, or never will be.
func (s *scheduler) closed(e *entry, o Outcome, committed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, now := &s.plan, time.Now()
	if committed && !o.Remove {
		p.leave(now, e, o.NextAttempt, e.asleep)
	} else {
		p.forget(e)
	}
	if committed {
		for _, report := range o.Reports {
			p.enter(now, report, s.phase == running)
		}
	}
	s.bell.ring()
}

func (s *scheduler) reviewed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan.window.reviewing--
	s.bell.ring()
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

// lose counts an outcome that is forgotten because the process ends.
func (s *scheduler) lose(m *Message, err error) {
	s.log.Error("outcome not recorded: the message will be tried again", "id", m.ID, "error", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost++
}

// waiters returns how many messages wait in the line of a key.
func (s *scheduler) waiters(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.plan.window.lines[key]; l != nil {
		return l.n
	}
	return 0
}
