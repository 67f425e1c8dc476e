package queue

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"postern/mail"
	"postern/relay/trace"
)

// Submit takes responsibility for a message: it is committed and synced when Submit returns nil. The
// error is a *mail.Error with a 4yz reply. m itself is neither changed nor kept, but what its slices point to
// must not change any more. Bytes of the content may be kept in memory until the first attempt; other
// content is read from the store again.
//
// Where a slot is free and nobody waits, the message is added as leased and its attempt begins at once.
func (q *Queue) Submit(ctx context.Context, m *Message, c mail.Content) error {
	now := time.Now()
	e := &entry{m: q.own(now, m), state: adding}
	slot := q.sched.admit(now, e, c)
	err := q.opts.Store.Add(ctx, NewMessage{Message: e.m, Content: c})
	switch {
	case slot == nil:
		q.sched.admitted(e, err)
	case err != nil:
		slot.Release()
		q.sched.forget(e)
		q.sched.tasks.Done()
	default:
		go func() {
			defer q.sched.tasks.Done()
			q.attempts.run(e, slot)
		}()
	}
	return refusal(err)
}

// admit takes a new message into the window, if there is room, and asks for a slot if nobody waits. With a slot
// the message is marked as leased and its task is counted.
func (s *scheduler) admit(now time.Time, e *entry, c mail.Content) Slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != running {
		return nil
	}
	slot := s.plan.admit(now, e, c)
	if slot != nil {
		e.m.LeaseOwner, e.m.LeaseUntil, e.m.Attempts = s.owner, now.Add(s.plan.leaseFor), e.m.Attempts+1
		e.lease = newLease(e.m.LeaseUntil)
		s.beganLocked()
	}
	return slot
}

// beganLocked counts the task of an attempt that the window has just begun.
func (s *scheduler) beganLocked() {
	s.tasks.Add(1)
	if s.plan.window.active == 1 {
		s.bell.ring() // leases are to be looked after from now on
	}
}

// admitted lets a message that was just added without a slot wait in the window, if it is there and due.
func (s *scheduler) admitted(e *entry, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.bell.ring() // also where the store refused it: admit may have learned of a pause
	if s.plan.stored(time.Now(), e, err) {
		s.trace.waiting(e.m, e.route, e.until)
	}
}

// SubmitAfter is Submit for a message whose first attempt, a hand-off, has ended already: it decides about the
// results and commits what is still to do, the message and reports, as one transaction. Where nothing is,
// nothing is written. Results are traced in any case.
func (q *Queue) SubmitAfter(ctx context.Context, m *Message, c mail.Content, results []mail.Result) error {
	now := time.Now()
	m = q.own(now, m)
	m.Attempts = max(m.Attempts, 1)
	results = complete(m, results)
	dec := q.attempts.decider.decide(now, m, c, results)
	q.trace.results(now, m, results, dec, 0)
	news := dec.out.Reports
	if !dec.out.Remove {
		news = append([]NewMessage{{Message: after(m, &dec.out), Content: c}}, news...)
	}
	if len(news) > 0 {
		if err := q.opts.Store.Add(ctx, news...); err != nil {
			q.trace.refused(now, m)
			return refusal(err)
		}
	}
	q.trace.reports(now, m, dec)
	q.sched.added(news...)
	return nil
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

// Adopt takes responsibility for a message whose hand-off is still running: it is committed, with a lease, when Adopt
// returns nil, and the outcome is recorded when results gives it. A closed channel counts as results that nobody knows.
// If the store refuses, the error (a *mail.Error, 4yz) is for the client, the lease is lost, so that an attempt which
// has not sent the message yet does not, and the results are still waited for and traced. l is the attempt's, a zero
// one so far: it begins here. m is not changed, and the content not used after Adopt has returned: the attempt may go
// on reading both.
//
// release gives the attempt's slot back, as Slot.Release does. It is called in any case, once results has given
// something. Run does not return before that, so that the journal is still open: after the drain deadline the attempt
// must end soon, as those do that the Queue began. Without Run, before or after it, Adopt itself waits.
func (q *Queue) Adopt(ctx context.Context, m *Message, c mail.Content, l *Lease, results <-chan []mail.Result,
	release func()) error {
	select {
	case got := <-results: // no lease for what has ended already
		defer release()
		return q.SubmitAfter(ctx, m, c, got)
	default:
	}
	now := time.Now()
	m = q.own(now, m) // the attempt reads the original
	m.Attempts = max(m.Attempts, 1)
	m.LeaseOwner, m.LeaseUntil = q.opts.Owner, now.Add(q.opts.LeaseFor)
	l.extend(m.LeaseUntil)
	e := &entry{m: m, lease: l}
	tracked := q.sched.track(e)
	err := q.opts.Store.Add(ctx, NewMessage{Message: m, Content: c})
	if err != nil { // the client sends it again: what has not gone out yet must not
		l.Lose()
	}
	if tracked {
		go func() {
			defer q.sched.tasks.Done()
			q.adopted(e, now, results, err, release)
		}()
	} else { // no Run to record the outcome or to wait for it: the next life finds it in the journal
		q.noteLate(m, results, release)
	}
	return refusal(err)
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
	s.plan.window.begin(e)
	s.beganLocked()
	return true
}

// adopted waits for the results of an adopted attempt.
func (q *Queue) adopted(e *entry, began time.Time, results <-chan []mail.Result, refused error, release func()) {
	var got []mail.Result
	select {
	case got = <-results:
	case <-q.sched.hard.Done():
		q.sched.lose(e.m, q.sched.hard.Err())
		q.sched.forget(e)
		q.noteLate(e.m, results, release)
		return
	}
	got = complete(e.m, got)
	if refused == nil {
		q.attempts.conclude(e, nil, got, began, release)
		return
	}
	release()
	now, dec := time.Now(), undecided(e.m)
	dec.apply(got)
	q.trace.results(now, e.m, got, dec, now.Sub(began))
	q.trace.refused(now, e.m)
	q.sched.forget(e)
}

// noteLate waits for results that come too late to be committed and leaves them to the next life.
func (q *Queue) noteLate(m *Message, results <-chan []mail.Result, release func()) {
	q.attempts.journal.note(m, complete(m, <-results))
	release()
}

func (s *scheduler) forget(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan.forget(e)
}

// refused explains a duplicate that may follow: there was an attempt, and the client will try again.
func (t *tracer) refused(now time.Time, m *Message) {
	t.emit(t.event(now, m, trace.Event{
		Kind:   trace.Attempt,
		Detail: "the client was told to try again: the message could not be stored when this attempt was made",
	}))
}

// Waiters returns how many messages in the window wait for a slot with the key. A hand-off must not take one before
// them.
func (q *Queue) Waiters(key string) int { return q.sched.waiters(key) }

// waiters returns how many messages wait in the line of a key.
func (s *scheduler) waiters(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.plan.window.lines[key]; l != nil {
		return l.n
	}
	return 0
}

// refusal is the reply to a client whose message could not be stored.
func refusal(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrFull):
		return mail.Refuse(mail.R(452, "4.3.1", "no space left to store the message, try again later"), err)
	}
	if _, ok := mail.ReplyFor(err); ok {
		return err
	}
	return mail.Refuse(mail.R(451, "4.3.0", "the message could not be stored, try again later"), err)
}

// own returns a copy of m that is complete.
func (q *Queue) own(now time.Time, m *Message) *Message {
	c := *m
	c.Recipients = slices.Clone(m.Recipients)
	q.times.fillIn(now, &c)
	return &c
}

// fillIn sets what a new message needs and its maker left open.
func (t *timetable) fillIn(now time.Time, m *Message) {
	if m.ID == "" {
		m.ID = mail.NewID(now)
	}
	if m.Received.IsZero() {
		m.Received = now
	}
	if m.Expires.IsZero() {
		m.Expires = m.Received.Add(t.schedule.Load().Expire)
	}
	if m.NextAttempt.IsZero() {
		m.NextAttempt = m.Received
	}
	for i := range m.Recipients {
		if m.Recipients[i].Status == "" {
			m.Recipients[i].Status = Pending
		}
	}
}

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

// Lose ends a lease for good: the message is somebody else's, or its client sends it again.
func (l *Lease) Lose() {
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
