package queue

import (
	"context"
	"errors"
	"time"
)

// clerk is what the loop knows about the store. It is guarded by Queue.mu. One goroutine at a time, work,
// postpones, wakes and reads; another extends leases.
type clerk struct {
	working bool

	dirty   bool      // read at once
	polled  bool      // Wake was called since the last read
	more    bool      // the store has due messages that are not in the window
	nextDue time.Time // zero: nothing known
	cursor  string    // the last login that the last read got to
	read    time.Time // when the last read began
	rows    int       // what it returned
	moved   int       // messages that left the lines since
	turned  time.Time // when the window was last turned over

	filling bool
	left    map[string]struct{} // forgotten while filling: what the read says of them is old

	asides  []*entry
	asked   time.Time
	looking int
	swept   time.Time

	extending  bool
	extendAt   time.Time
	unrecorded int
}

func newClerk() clerk { return clerk{left: make(map[string]struct{})} }

// health remembers whether the store works. While it fails, nothing is scheduled but a trial at times.
type health struct {
	failing bool
	writing bool      // what failed was a commit: a read that succeeds proves nothing
	until   time.Time // when to try again
	backoff time.Duration
}

// down reports that it is too early for a trial.
func (h *health) down(now time.Time) bool { return h.failing && now.Before(h.until) }

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

// storeSaid pauses scheduling when an operation of the store failed, and ends the pause when one
// succeeded that proves that the store works.
func (q *Queue) storeSaid(err error, op string, writing bool) {
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	h := &q.health
	switch {
	case err == nil && h.failing && writing == h.writing:
		q.log.Info("the store works again")
		q.health = health{}
		q.dirty = true
	case err == nil, q.hard.Err() != nil && errors.Is(err, context.Canceled):
		return
	default:
		q.backOffLocked(op, err, writing)
	}
	q.nudge()
}

func (q *Queue) backOffLocked(op string, err error, writing bool) {
	now, h := time.Now(), &q.health
	switch {
	case !h.failing:
		q.log.Error("the store fails: no attempts until it works again", "operation", op, "error", err)
		h.failing, h.backoff = true, storeBackoff
	case !h.down(now):
		h.backoff = min(2*h.backoff, maxStoreBackoff)
	default:
		return
	}
	h.writing, h.until = writing, now.Add(h.backoff)
	q.dirty = q.dirty || !writing
}

// noteLocked remembers when a message becomes due.
func (q *Queue) noteLocked(at time.Time) {
	if at.IsZero() {
		return
	}
	if q.nextDue.IsZero() || at.Before(q.nextDue) {
		q.nextDue = at
		q.nudge()
	}
}

// readAtLocked is when the store is to be read next; false: nothing calls for it.
func (q *Queue) readAtLocked() (at time.Time, wanted bool) {
	want := func(t time.Time) {
		if !wanted || t.Before(at) {
			at, wanted = t, true
		}
	}
	if q.dirty {
		want(q.read.Add(10 * time.Millisecond))
	}
	if q.polled {
		want(q.read.Add(pollEvery))
	}
	if !q.nextDue.IsZero() {
		want(later(q.nextDue, q.read.Add(dueEvery)))
	}
	switch {
	case !q.more:
	case 2*q.moved >= q.rows:
		want(q.read)
	case q.moved > 0:
		want(q.read.Add(moreEvery))
	default:
		want(q.read.Add(turnEvery))
	}
	if q.health.failing {
		at = later(at, q.health.until)
	}
	return at, wanted
}

func (q *Queue) readWantedLocked(now time.Time) bool {
	at, wanted := q.readAtLocked()
	return wanted && !at.After(now)
}

// napLocked is how long the loop may sleep.
func (q *Queue) napLocked(now time.Time) time.Duration {
	next := now.Add(time.Hour)
	if at, wanted := q.readAtLocked(); wanted && !q.working {
		next = earlier(next, at)
	}
	if q.health.down(now) {
		next = earlier(next, q.health.until)
	} else {
		if q.waiting > 0 {
			next = earlier(next, q.asked.Add(askAgain))
		}
		next = q.pausesAtLocked(next)
	}
	if q.busy > 0 && !q.extending {
		next = earlier(next, q.extendAt)
	}
	return next.Sub(now)
}

// choresLocked starts what is to be done with the store.
func (q *Queue) choresLocked(now time.Time) {
	if q.busy > 0 && !q.extending && !q.extendAt.After(now) {
		q.extending = true
		q.extendAt = now.Add(q.opts.LeaseFor / 3)
		q.tasks.Go(q.extendAll)
	}
	if q.working || q.health.down(now) {
		return
	}
	if len(q.asides) == 0 && !q.wakeWantedLocked(now) && !q.readWantedLocked(now) {
		return
	}
	q.working = true
	q.tasks.Go(q.work)
}

func (q *Queue) work() {
	q.postpone()
	q.learnNames()
	q.rouse()
	q.fill()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.working = false
	q.nudge()
}

// fill reads due messages into the window.
func (q *Queue) fill() {
	q.mu.Lock()
	now := time.Now()
	if !q.readWantedLocked(now) {
		q.mu.Unlock()
		return
	}
	q.dirty, q.polled, q.more, q.nextDue = false, false, false, time.Time{}
	q.read, q.moved, q.filling = now, 0, true
	q.turnOverLocked(now)
	cursor := q.cursor
	q.mu.Unlock()

	limit := q.opts.Window
	each := max(1, limit/4)
	due, next, err := q.opts.Store.Due(q.hard, now, cursor, each, limit)
	q.storeSaid(err, "due", reads)

	q.mu.Lock()
	defer q.mu.Unlock()
	if err != nil {
		q.dirty = true
	}
	q.rows = len(due)
	q.noteLocked(next)
	q.loadLocked(due, each, limit)
	q.filling = false
	clear(q.left)
}

// turnOverLocked makes room in a window full of messages that all wait for busy upstreams.
func (q *Queue) turnOverLocked(now time.Time) {
	if len(q.entries) < q.opts.Window || now.Sub(q.turned) < turnEvery {
		return
	}
	q.turned = now
	for _, e := range q.rotateLocked(max(1, q.opts.Window/4)) {
		q.forgetLocked(e)
	}
}

// loadLocked takes what a read returned into the window, except what the window knows better. What does
// not fit stays in the store. A read that came back more than half full may not have been all: messages
// can vanish while they are read.
func (q *Queue) loadLocked(due []*Message, each, limit int) {
	q.more = q.more || 2*len(due) > limit
	perLogin := make(map[string]int)
	for _, m := range due {
		if perLogin[m.Login]++; 2*perLogin[m.Login] > each {
			q.more = true
		}
		if _, old := q.left[m.ID]; old || q.entries[m.ID] != nil {
			continue
		}
		if !q.roomLocked(m.Login) {
			q.more = true
			continue
		}
		q.cursor = m.Login
		e := &entry{m: m}
		q.entries[m.ID] = e
		q.joinLocked(e)
	}
}

// extendAll extends the leases of all running attempts that need it before the next time.
func (q *Queue) extendAll() {
	q.mu.Lock()
	now := time.Now()
	until := now.Add(q.opts.LeaseFor)
	var ids []string
	for id, e := range q.entries {
		if e.state == active && !e.leaseUntil.IsZero() && e.leaseUntil.Sub(now) < q.opts.LeaseFor*2/3 {
			ids = append(ids, id)
		}
	}
	q.mu.Unlock()
	for _, id := range ids {
		err := q.opts.Store.Extend(q.hard, id, q.opts.Owner, until)
		q.storeSaid(err, "extend", writes)
		if err != nil && !errors.Is(err, ErrNotFound) {
			break
		}
		q.extended(id, until)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.extending = false
	q.nudge()
}

func (q *Queue) extended(id string, until time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e := q.entries[id]; e != nil {
		e.leaseUntil = until
	}
}
