package queue

import (
	"errors"
	"log/slog"
	"time"

	"postern/mail"
)

// attempts makes attempts and records their outcomes.
type attempts struct {
	sched   *scheduler
	store   Store
	journal journal
	decider *decider
	trace   *tracer
	log     *slog.Logger
}

// run makes one attempt: lease, content, attempt, outcome. The lease is committed first, so that a killed
// process leaves a trace of every attempt that it may have made.
func (a *attempts) run(e *entry, t Slot) {
	began := time.Now()
	release := func() {
		t.Release()
		a.sched.bell.slotFree()
	}
	if !a.lease(e, began) {
		release()
		return
	}
	c, err := a.content(e)
	if err != nil {
		a.conclude(e, nil, unreadable(e.m, err), began, release)
		return
	}
	var forgets []func()
	results := t.Attempt(a.sched.attempts, e.m, c, func(taken []mail.Result) {
		forget, _ := a.journal.note(e.m, taken)
		forgets = append(forgets, forget)
	})
	if a.conclude(e, c, complete(e.m, results), began, release) {
		for _, forget := range forgets {
			forget()
		}
	}
}

// lease records the attempt before it is made, and reports whether it may be.
func (a *attempts) lease(e *entry, now time.Time) bool {
	if leased, may := a.sched.mayLease(e); leased || !may {
		return leased
	}
	until := now.Add(a.sched.plan.leaseFor)
	err := a.store.Lease(a.sched.hard, e.m.ID, a.sched.owner, now, until)
	a.sched.storeSaid(err, "lease", writes)
	return a.sched.leased(e, until, err)
}

func (a *attempts) content(e *entry) (mail.Content, error) {
	if e.content != nil {
		return e.content, nil
	}
	return a.store.Content(a.sched.hard, e.m.ID)
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

// conclude records what an attempt brought: noted, decided, committed, closed. From here to the commit the results are
// kept in memory, whatever the store does. release gives the attempt's slot back, at once where a kill would not repeat
// the message. over is false if the outcome is left to the next life.
func (a *attempts) conclude(
	e *entry, c mail.Content, results []mail.Result, began time.Time, release func(),
) (over bool) {
	now := time.Now()
	forget, noted := a.journal.note(e.m, results)
	if noted {
		release()
		release = func() {}
	}
	dec := a.decider.decide(now, e.m, c, results)
	if waitsForUpstream(dec.out, results) {
		dec.out.WaitingFor = a.sched.sleepsFor(after(e.m, &dec.out))
	}
	a.trace.results(now, e.m, results, dec, now.Sub(began))
	a.sched.learn(e.route, results)
	if over = a.close(e, dec, release); over {
		forget()
	}
	return over
}

// after is a message as an outcome makes it.
func after(m *Message, o *Outcome) *Message {
	c := *m
	c.Recipients, c.NextAttempt, c.WaitingFor = o.Recipients, o.NextAttempt, o.WaitingFor
	c.Warned, c.LastReply = o.Warned, o.LastReply
	c.LeaseOwner, c.LeaseUntil = "", time.Time{}
	return &c
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

// review decides about a message without an attempt: given up by a person, out of time or due for a delay report while
// its upstream is paused or busy.
func (a *attempts) review(e *entry) {
	defer a.sched.reviewed()
	now := time.Now()
	if !a.lease(e, now) {
		return
	}
	c, err := a.content(e)
	if err != nil {
		a.log.Error("content not read", "id", e.m.ID, "error", err)
		c = nil
	}
	dec := a.decider.decide(now, e.m, c, nil)
	if !dec.out.Remove && !e.until.IsZero() {
		dec.out.NextAttempt = a.decider.times.sleepAt(now, after(e.m, &dec.out), e.until, e.asleep)
		dec.out.WaitingFor = e.asleep
	}
	a.trace.results(now, e.m, nil, dec, 0)
	a.close(e, dec, func() {})
}

// close commits a decision, gives the slot back and ends the entry. over is as conclude has it.
func (a *attempts) close(e *entry, dec decision, release func()) (over bool) {
	committed, over := a.commit(e, dec.out, release)
	if committed {
		a.trace.reports(time.Now(), e.m, dec)
	}
	a.sched.closed(e, dec.out, committed)
	return over
}

// commit commits an outcome. While the store fails it tries again, as long as this process may; the slot does not wait
// for that, because hand-offs may need it. over: it was committed, or never will be.
func (a *attempts) commit(e *entry, o Outcome, release func()) (committed, over bool) {
	backoff := storeBackoff
	for {
		err := a.store.Finish(a.sched.hard, e.m.ID, a.sched.owner, o)
		release()
		release = func() {}
		a.sched.storeSaid(err, "finish", writes)
		switch {
		case err == nil:
			return true, true
		case errors.Is(err, ErrNotFound):
			a.log.Error("outcome not recorded: the message or its lease is gone", "id", e.m.ID)
			return false, true
		}
		select {
		case <-a.sched.hard.Done():
			a.sched.lose(e.m, err)
			return false, false
		case <-time.After(backoff):
			backoff = min(2*backoff, maxStoreBackoff/3)
		}
	}
}
