package queue

import (
	"context"
	"fmt"
	"time"
)

// How often the loop does by itself what events normally make it do, and how hard it presses the store.
const (
	askAgain   = time.Second            // a dispatcher that forgot to call Wake costs this much
	pollEvery  = time.Second            // reads of the store for Wake
	dueEvery   = 100 * time.Millisecond // reads of the store for messages that become due
	moreEvery  = time.Second            // reads while the store has more than the window and some mail moves
	turnEvery  = 3 * time.Second        // reads while none moves, each showing us other messages
	grace      = 10 * time.Second       // for cut attempts to return and outcomes to be recorded
	maxLooks   = 16                     // messages settled without an attempt at a time
	sweepEvery = time.Minute            // looks for messages that wait too long for a place
	patience   = time.Hour              // a message past its end waits this much longer for its last attempt
)

// Run records what a former life noted, ends its leases, and schedules attempts until ctx ends, then drains: attempts may
// end until the drain deadline. It returns when everything that the Queue started has returned, and may be
// called once. Start it before anything submits.
func (q *Queue) Run(ctx context.Context) error {
	if err := q.recall(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	released, err := q.opts.Store.ReleaseLeases(ctx, q.opts.Owner)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return fmt.Errorf("release leases of %s: %w", q.opts.Owner, err)
	}
	if released > 0 {
		q.log.Info("attempts of a former life are made again", "messages", released)
	}
	hard, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	attempts, cut := context.WithCancel(hard)
	defer cut()
	q.mu.Lock()
	q.hard, q.attempts, q.phase, q.dirty = hard, attempts, running, true
	q.mu.Unlock()
	close(q.up)
	q.loop(ctx)
	return q.drain(cut, kill)
}

func (q *Queue) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.wake:
		case <-timer.C:
		}
		timer.Reset(q.turn(time.Now()))
	}
}

// drain waits for running attempts, cuts them at the deadline, and stops recording outcomes some time
// after that.
func (q *Queue) drain(cut, kill context.CancelFunc) error {
	q.mu.Lock()
	q.phase = stopping
	q.mu.Unlock()
	done := make(chan struct{})
	go func() { q.tasks.Wait(); close(done) }()
	for _, step := range []struct {
		after time.Duration
		then  func()
	}{{q.opts.Drain, cut}, {grace, kill}} {
		select {
		case <-done:
		case <-time.After(step.after):
			step.then()
		}
	}
	<-done
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.unrecorded > 0 {
		return fmt.Errorf("%d outcomes could not be recorded: these messages will be tried again", q.unrecorded)
	}
	return nil
}

// turn does what can be done now and returns how long nothing needs to be done unless somebody nudges.
func (q *Queue) turn(now time.Time) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.stale.Swap(false) {
		q.doubtLocked()
	}
	if q.poll.Swap(false) {
		q.polled, q.reask = true, true
	}
	if q.freed.Swap(false) || now.Sub(q.asked) >= askAgain {
		q.asked = now
		for _, l := range q.lines {
			l.busy = false
		}
	}
	if !q.health.down(now) {
		q.reaskLocked(now)
		q.sweepLocked(now)
		q.passLocked(now)
	}
	q.choresLocked(now)
	return max(q.napLocked(now), time.Millisecond)
}

// doubtLocked forgets what waits, because the store may know better, and marks what runs.
func (q *Queue) doubtLocked() {
	q.dirty, q.namesAt = true, time.Time{}
	for _, e := range q.entries {
		if e.doubted = e.state != waiting; !e.doubted {
			q.forgetLocked(e)
		}
	}
	q.waiting = 0
	q.fresh = newLine("")
	clear(q.lines)
}

// passLocked gives away all places there are. Who was asked for before comes first: a newcomer must not
// take the place that somebody waits for.
func (q *Queue) passLocked(now time.Time) {
	for _, l := range q.lines {
		q.serveLocked(now, l)
	}
	q.serveLocked(now, q.fresh)
	for len(q.looks) > 0 && q.looking < maxLooks {
		e := q.looks[0]
		q.looks = q.looks[1:]
		q.looking++
		q.tasks.Go(func() { q.look(e) })
	}
}

// serveLocked asks for places for the messages of one line until there is none.
func (q *Queue) serveLocked(now time.Time, l *line) {
	for !l.busy {
		e := l.first()
		if e == nil {
			return
		}
		t, w := q.opts.Dispatcher.Reserve(now, e.m)
		switch {
		case t != nil:
			q.takeLocked(l)
			q.startLocked(e, t, w)
		case w.Until.After(now):
			q.takeLocked(l)
			q.pauseLocked(now, e, w)
		default:
			q.busyLocked(l, e, w)
		}
	}
}

// sweepLocked settles messages whose delay report is due, or whose time is long over, while all places of
// their upstream are taken.
func (q *Queue) sweepLocked(now time.Time) {
	if q.waiting == 0 || now.Sub(q.swept) < sweepEvery {
		return
	}
	q.swept = now
	for _, l := range q.lines {
		late := l.extract(func(e *entry) bool {
			return q.overdue(now, e.m) && (!expired(now, e.m) || expired(now.Add(-patience), e.m))
		})
		q.waiting -= len(late)
		for _, e := range late {
			e.until = now // what stays pending is due again
			q.lookLocked(e)
		}
		q.tidyLocked(l)
	}
}

// startLocked begins an attempt.
func (q *Queue) startLocked(e *entry, t Ticket, w Wait) {
	e.belongs(w)
	q.moved++
	q.activateLocked(e)
	q.tasks.Go(func() { q.run(e, t) })
}

func (q *Queue) activateLocked(e *entry) {
	e.state = active
	if q.busy++; q.busy == 1 {
		q.nudge() // leases are to be looked after from now on
	}
}

// busyLocked lets the first entry of l wait where its key belongs.
func (q *Queue) busyLocked(l *line, e *entry, w Wait) {
	e.belongs(w)
	to := q.lineLocked(w.Key)
	to.busy = true
	if to == l {
		return
	}
	q.takeLocked(l)
	q.waitLocked(e, q.lineLocked(w.Key))
}

func (q *Queue) lookLocked(e *entry) {
	e.state = looking
	q.looks = append(q.looks, e)
}

// joinLocked lets a due message that is in no line wait where it belongs, as far as that is known.
func (q *Queue) joinLocked(e *entry) {
	now := time.Now()
	e.until, e.asleep = time.Time{}, ""
	if p := q.pauses[e.m.WaitingFor]; p.closed(now) {
		q.setAsideLocked(now, e, Wait{Route: e.m.WaitingFor, Until: p.until})
		return
	}
	l := q.lines[e.key]
	if l == nil {
		l = q.lines[e.m.WaitingFor]
	}
	switch {
	case e.m.Bounce:
		q.lookLocked(e)
	case l != nil:
		q.waitLocked(e, l)
	default:
		q.waitLocked(e, q.fresh)
	}
}

// forgetLocked removes an entry, which is in no line, from the window.
func (q *Queue) forgetLocked(e *entry) {
	if e.state == active {
		q.busy--
	}
	q.removeLocked(e)
	if q.filling {
		q.left[e.m.ID] = struct{}{}
	}
}

func (q *Queue) forget(e *entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.forgetLocked(e)
}
