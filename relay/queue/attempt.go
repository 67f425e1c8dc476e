package queue

import (
	"errors"
	"time"

	"postern/mail"
)

// run makes one attempt: lease, content, attempt, outcome. The lease is committed first, so that a killed
// process leaves a trace of every attempt that it may have made.
func (q *Queue) run(e *entry, t Ticket) {
	began := time.Now()
	if !q.lease(e, began) {
		t.Release()
		q.placeFree()
		return
	}
	c, err := q.contentOf(e)
	release := func() {
		t.Release()
		q.placeFree()
	}
	if err != nil {
		q.conclude(e, nil, unreadable(e.m, err), began, release)
		return
	}
	var forgets []func()
	results := t.Attempt(q.attempts, e.m, c, func(taken []mail.Result) {
		forget, _ := q.note(e.m, taken)
		forgets = append(forgets, forget)
	})
	if q.conclude(e, c, complete(e.m, results), began, release) {
		for _, forget := range forgets {
			forget()
		}
	}
}

// lease records the attempt and reports whether it may be made. If not, the entry is dealt with.
func (q *Queue) lease(e *entry, now time.Time) bool {
	q.mu.Lock()
	leased, goOn := !e.leaseUntil.IsZero(), q.phase == running
	if !leased && !goOn {
		q.forgetLocked(e)
	}
	q.mu.Unlock()
	if leased || !goOn {
		return leased
	}
	until := now.Add(q.opts.LeaseFor)
	err := q.opts.Store.Lease(q.hard, e.m.ID, q.opts.Owner, now, until)
	q.storeSaid(err, "lease", writes)
	switch {
	case err == nil:
	case errors.Is(err, ErrNotFound): // delivered, held or deleted meanwhile, or leased to another node
		q.mu.Lock()
		q.forgetLocked(e)
		q.dirty = true // a read tells when that lease ends
		q.mu.Unlock()
		return false
	default:
		q.waitAgain(e)
		return false
	}
	e.m.Attempts++
	q.mu.Lock()
	defer q.mu.Unlock()
	e.leaseUntil = until
	return true
}

// waitAgain puts an entry back whose attempt was not recorded.
func (q *Queue) waitAgain(e *entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e.state == active {
		q.busy--
	}
	q.joinLocked(e)
}

func (q *Queue) contentOf(e *entry) (mail.Content, error) {
	if e.content != nil {
		return e.content, nil
	}
	return q.opts.Store.Content(q.hard, e.m.ID)
}

// unreadable is the outcome of an attempt that could not begin because the store did not give the content.
func unreadable(m *Message, err error) []mail.Result {
	var out []mail.Result
	for i, to := range m.Recipients {
		if to.Status == Pending {
			out = append(out, mail.Result{Recipient: i, Class: mail.Deferral, Err: err,
				Reply: mail.R(451, "4.3.0", "the stored message could not be read")})
		}
	}
	return out
}

// conclude settles and records what an attempt brought. From here to the commit the results are kept in
// memory, whatever the store does. release gives the attempt's place back, at once where a kill would not repeat the message. over is
// false if the outcome is left to the next life.
func (q *Queue) conclude(e *entry, c mail.Content, results []mail.Result, began time.Time, release func()) (over bool) {
	now := time.Now()
	forget, noted := q.note(e.m, results)
	if noted {
		release()
		release = func() {}
	}
	s := q.settle(now, e.m, c, results)
	if waitsForUpstream(s.Outcome, results) {
		after := *e.m
		s.applyTo(&after)
		s.WaitingFor = q.sleepsFor(&after)
	}
	q.traceResults(now, e.m, results, s, now.Sub(began))
	q.learn(e.route, results)
	if over = q.finish(e, s, release); over {
		forget()
	}
	return over
}

// waitsForUpstream reports that every pending recipient waits for the upstream only, so that its return is
// the time to try again.
func waitsForUpstream(o Outcome, results []mail.Result) bool {
	waits := false
	for _, r := range results {
		if o.Recipients[r.Recipient].Status != Pending {
			continue
		}
		if !upstreamsMatter(r.Class) {
			return false
		}
		waits = true
	}
	return waits
}

// look settles a message without an attempt: given up by a person, out of time or due for a delay report
// while its upstream is paused.
func (q *Queue) look(e *entry) {
	defer q.looked()
	now := time.Now()
	if !q.lease(e, now) {
		return
	}
	c, err := q.contentOf(e)
	if err != nil {
		q.log.Error("content not read", "id", e.m.ID, "error", err)
		c = nil
	}
	s := q.settle(now, e.m, c, nil)
	if !s.Remove && !e.until.IsZero() {
		after := *e.m
		s.applyTo(&after)
		s.NextAttempt, s.WaitingFor = q.sleepAt(now, &after, e.until, e.asleep), e.asleep
	}
	q.traceResults(now, e.m, nil, s, 0)
	q.finish(e, s, func() {})
}

func (q *Queue) looked() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.looking--
	q.nudge()
}

// finish records the outcome, gives the place back and ends the entry. over is as conclude has it.
func (q *Queue) finish(e *entry, s settlement, release func()) (over bool) {
	recorded, over := q.record(e, s.Outcome, release)
	if recorded {
		q.traceReports(time.Now(), e.m, s)
	}
	q.mu.Lock()
	q.forgetLocked(e)
	if recorded && !s.Remove {
		q.noteLocked(s.NextAttempt)
		q.asleepLocked(e.asleep)
		q.dirty = q.dirty || e.doubted // a person may have given it up meanwhile: the store says so
	}
	q.nudge()
	q.mu.Unlock()
	if recorded && len(s.Reports) > 0 {
		q.added(s.Reports...)
	}
	return over
}

// record commits an outcome. While the store fails it tries again, as long as this process may; the place does not wait for
// that, because hand-offs may need it. over: it was committed, or never will be.
func (q *Queue) record(e *entry, o Outcome, release func()) (recorded, over bool) {
	backoff := storeBackoff
	for {
		err := q.opts.Store.Finish(q.hard, e.m.ID, q.opts.Owner, o)
		release()
		release = func() {}
		q.storeSaid(err, "finish", writes)
		switch {
		case err == nil:
			return true, true
		case errors.Is(err, ErrNotFound):
			q.log.Error("outcome not recorded: the message or its lease is gone", "id", e.m.ID)
			return false, true
		}
		select {
		case <-q.hard.Done():
			q.lost(e.m, err)
			return false, false
		case <-time.After(backoff):
			backoff = min(2*backoff, maxStoreBackoff/3)
		}
	}
}

// lost counts an outcome that is forgotten because the process ends.
func (q *Queue) lost(m *Message, err error) {
	q.log.Error("outcome not recorded: the message will be tried again", "id", m.ID, "error", err)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.unrecorded++
}
