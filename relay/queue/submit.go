package queue

import (
	"context"
	"errors"
	"slices"
	"time"

	"postern/mail"
)

// Submit takes responsibility for a message: it is committed and synced when Submit returns nil. The
// error is a *mail.Error with a 4yz reply. m itself is neither changed nor kept, but what its slices point to
// must not change any more. Bytes of the content may be kept in memory until the first attempt; other
// content is read from the store again.
//
// Where a place is free and nobody waits, the message is added as leased and its attempt begins at once.
func (q *Queue) Submit(ctx context.Context, m *Message, c mail.Content) error {
	now := time.Now()
	m = q.own(now, m)
	e := &entry{m: m, state: adding}
	ticket := q.admit(now, e, c)
	err := q.opts.Store.Add(ctx, NewMessage{Message: m, Content: c})
	q.admitted(e, ticket, err)
	return refusal(err)
}

// SubmitAfter is Submit for a message whose first attempt, a hand-off, has ended already: it settles the
// results and commits what is still to do, the message and reports, as one transaction. Where nothing is,
// nothing is written. Results are traced in any case.
func (q *Queue) SubmitAfter(ctx context.Context, m *Message, c mail.Content, results []mail.Result) error {
	now := time.Now()
	m = q.own(now, m)
	m.Attempts = max(m.Attempts, 1)
	results = complete(m, results)
	s := q.settle(now, m, c, results)
	q.traceResults(now, m, results, s, 0)
	news := s.Reports
	if !s.Remove {
		after := *m
		s.applyTo(&after)
		news = append([]NewMessage{{Message: &after, Content: c}}, news...)
	}
	if len(news) == 0 {
		q.traceReports(now, m, s)
		return nil
	}
	if err := q.opts.Store.Add(ctx, news...); err != nil {
		q.traceRefused(now, m)
		return refusal(err)
	}
	q.traceReports(now, m, s)
	q.added(news...)
	return nil
}

// own returns a copy of m that is complete.
func (q *Queue) own(now time.Time, m *Message) *Message {
	c := *m
	c.Recipients = slices.Clone(m.Recipients)
	q.fillIn(now, &c)
	return &c
}

// applyTo sets in m what the outcome changes in the store.
func (o *Outcome) applyTo(m *Message) {
	m.Recipients, m.NextAttempt, m.WaitingFor = o.Recipients, o.NextAttempt, o.WaitingFor
	m.Warned, m.LastReply = o.Warned, o.LastReply
	m.LeaseOwner, m.LeaseUntil = "", time.Time{}
}

// Adopt takes responsibility for a message whose hand-off is still running: it is committed, with a
// lease, when Adopt returns nil, and the outcome is recorded when results gives it. A closed channel counts
// as results that nobody knows. If the store refuses, the error (a *mail.Error, 4yz) is for the client, and
// the results are still waited for and traced. m is not changed, and the content not used after Adopt has
// returned: the attempt may go on reading both.
//
// release gives the attempt's place back, as Ticket.Release does. It is called in any case, once results has given something.
// Run does not return before that, so that the journal is still open: after the drain deadline the attempt must end soon, as
// those do that the Queue began. Without Run, before or after it, Adopt itself waits.
func (q *Queue) Adopt(ctx context.Context, m *Message, c mail.Content, results <-chan []mail.Result, release func()) error {
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
	e := &entry{m: m, state: active, leaseUntil: m.LeaseUntil}
	tracked := q.track(e)
	err := q.opts.Store.Add(ctx, NewMessage{Message: m, Content: c})
	if !tracked { // no Run to record the outcome or to wait for it: the next life finds it in the journal
		q.noteLate(m, results, release)
		return refusal(err)
	}
	go q.adopted(e, now, results, err, release)
	return refusal(err)
}

// adopted waits for the results of an adopted attempt. Its task was counted by track.
func (q *Queue) adopted(e *entry, began time.Time, results <-chan []mail.Result, refused error, release func()) {
	defer q.tasks.Done()
	var got []mail.Result
	select {
	case got = <-results:
	case <-q.hard.Done():
		q.lost(e.m, q.hard.Err())
		q.forget(e)
		q.noteLate(e.m, results, release)
		return
	}
	if refused == nil {
		q.conclude(e, nil, complete(e.m, got), began, release)
		return
	}
	release()
	now := time.Now()
	got = complete(e.m, got)
	q.traceResults(now, e.m, got, settleQuietly(e.m, got), now.Sub(began))
	q.traceRefused(now, e.m)
	q.forget(e)
}

// noteLate waits for results that come too late to be committed and leaves them to the next life.
func (q *Queue) noteLate(m *Message, results <-chan []mail.Result, release func()) {
	q.note(m, complete(m, <-results))
	release()
}

// settleQuietly is settle without reports, for results that will not be recorded.
func settleQuietly(m *Message, results []mail.Result) settlement {
	s := settlement{Outcome: Outcome{Recipients: slices.Clone(m.Recipients)}}
	s.apply(results)
	return s
}

// track enters an attempt that somebody else began. It reports false when Run is not there to wait for it.
func (q *Queue) track(e *entry) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.phase != running {
		return false
	}
	q.tasks.Add(1)
	q.entries[e.m.ID] = e
	q.activateLocked(e)
	return true
}

// admit gives a new message its place in the window, if there is one, and asks for a ticket if nobody
// waits. With a ticket the message is marked as leased and its task is counted.
func (q *Queue) admit(now time.Time, e *entry, c mail.Content) Ticket {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := e.m
	if q.phase != running || q.health.down(now) || m.Held || m.NextAttempt.After(now) || m.Bounce {
		return nil
	}
	if !q.roomLocked(m.Login) {
		return nil
	}
	q.entries[m.ID] = e
	q.keepContentLocked(e, c, q.opts.MaxContent)
	if q.waiting > 0 || len(q.looks) > 0 {
		return nil
	}
	t, w := q.opts.Dispatcher.Reserve(now, m)
	e.belongs(w)
	switch {
	case t != nil:
		m.LeaseOwner, m.LeaseUntil, m.Attempts = q.opts.Owner, now.Add(q.opts.LeaseFor), m.Attempts+1
		e.leaseUntil = m.LeaseUntil
		q.activateLocked(e)
		q.tasks.Add(1)
	case w.Until.After(now):
		e.until, e.asleep = w.Until, q.pausedLocked(w, m)
		m.NextAttempt, m.WaitingFor = q.sleepAt(now, m, e.until, e.asleep), e.asleep
	}
	return t
}

// admitted puts the message where admit meant it to go, now that the store has answered.
func (q *Queue) admitted(e *entry, t Ticket, err error) {
	switch {
	case err != nil && t != nil:
		t.Release()
		q.forget(e)
		q.tasks.Done()
	case t != nil:
		go func() {
			defer q.tasks.Done()
			q.run(e, t)
		}()
	default:
		q.enter(e, err)
	}
}

// enter lets a message that was just added wait in the window, if it has a place there and is due.
func (q *Queue) enter(e *entry, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	in := q.entries[e.m.ID] == e
	switch {
	case err != nil:
		if in {
			q.forgetLocked(e)
		}
	case in && e.m.NextAttempt.After(time.Now()):
		q.traceWaiting(e.m, e.route, e.until)
		q.dirty = q.dirty || e.doubted
		q.forgetLocked(e)
		q.noteLocked(e.m.NextAttempt)
		q.asleepLocked(e.asleep)
	case in:
		q.joinLocked(e)
		q.nudge()
	default:
		q.laterLocked(e.m)
	}
}

// added lets messages that are in the store already wait in the window, where there is room.
func (q *Queue) added(news ...NewMessage) {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, n := range news {
		m := n.Message
		if q.phase != running || m.Held || m.NextAttempt.After(now) || q.entries[m.ID] != nil || !q.roomLocked(m.Login) {
			q.laterLocked(m)
			continue
		}
		e := &entry{m: m}
		q.entries[m.ID] = e
		q.keepContentLocked(e, n.Content, q.opts.MaxContent)
		q.joinLocked(e)
	}
	q.nudge()
}

// laterLocked remembers that the store has a message that is not in the window.
func (q *Queue) laterLocked(m *Message) {
	switch {
	case m.Held:
	case m.NextAttempt.After(time.Now()):
		q.noteLocked(m.NextAttempt)
	default:
		q.more = true
		q.nudge()
	}
}

// roomLocked reports whether the window has room for a message of login, making it at the cost of a login
// that has more.
func (q *Queue) roomLocked(login string) bool {
	if len(q.entries) < q.opts.Window {
		return true
	}
	e := q.displaceLocked(login)
	if e == nil {
		return false
	}
	q.forgetLocked(e)
	q.more = true
	return true
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
