package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"postern/mail"
	"postern/relay/trace"
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
		a.sched.bell.freed.Store(true)
		a.sched.bell.ring()
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
	results := t.Attempt(a.sched.attempts, e.m, c, e.lease, func(taken []mail.Result) {
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
	err := a.store.Lease(a.sched.hard, e.m.Version(), a.sched.owner, now, until)
	a.sched.storeSaid(err, "lease", writes)
	return a.sched.leased(e, until, err)
}

// mayLease reports whether an attempt is leased already, and if not, whether it may be. If neither, the entry is
// forgotten.
func (s *scheduler) mayLease(e *entry) (leased, may bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	leased, may = e.lease != nil, s.phase == running
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
	case errors.Is(err, ErrNotFound): // delivered, held, deleted or tried meanwhile, by another node or a person
		s.plan.forget(e)
		s.plan.reader.changed = true
	case err != nil:
		if e.state == active {
			s.plan.window.active--
		}
		s.plan.join(time.Now(), e)
	default:
		e.m.Attempts++
		e.lease = newLease(until)
	}
	return err == nil
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

// complete returns one result for every pending recipient, in order. Whatever an attempt left out, or
// could not name, is a deferral.
func complete(m *Message, results []mail.Result) []mail.Result {
	byIndex := make(map[int]mail.Result, len(results))
	for _, r := range results {
		byIndex[r.Recipient] = r
	}
	out := make([]mail.Result, 0, len(results))
	for i, to := range m.Recipients {
		if to.Status != Pending {
			continue
		}
		r, ok := byIndex[i]
		if !ok {
			r = mail.Result{Recipient: i, Reply: replyNoResult}
		}
		if r.Class == mail.Unknown {
			r.Class = mail.Deferral
		}
		out = append(out, r)
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
	if over = a.close(e, dec, results, release); over {
		forget()
	}
	return over
}

// note writes down results of an attempt that the upstream has taken, or may have, since to repeat it would make a
// duplicate. noted is false where only memory has them.
func (j journal) note(m *Message, results []mail.Result) (forget func(), noted bool) {
	taken := false
	for _, r := range results {
		taken = taken || r.Class == mail.Delivered || r.Uncertain
	}
	if !taken {
		return func() {}, true
	}
	forget, err := j.Note(Note{m.ID, m.Attempts, results})
	if err != nil {
		j.log.Warn("an answer is not in the journal: until it is committed, a kill would repeat the message",
			"id", m.ID, "error", err)
		return func() {}, false
	}
	return forget, true
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

// after is a message as an outcome makes it.
func after(m *Message, o *Outcome) *Message {
	c := *m
	c.Recipients, c.NextAttempt, c.WaitingFor = o.Recipients, o.NextAttempt, o.WaitingFor
	c.Warned, c.LastReply = o.Warned, o.LastReply
	c.LeaseOwner, c.LeaseUntil = "", time.Time{}
	return &c
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
	a.close(e, dec, nil, func() {})
}

func (s *scheduler) reviewed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan.window.reviewing--
	s.bell.ring()
}

// close commits a decision, gives the slot back and ends the entry. over is as conclude has it.
func (a *attempts) close(e *entry, dec decision, results []mail.Result, release func()) (over bool) {
	committed, over := a.commit(e, dec.out, results, release)
	if committed {
		a.trace.reports(time.Now(), e.m, dec)
	}
	a.sched.closed(e, dec.out, committed)
	return over
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
	p.reader.changed = p.reader.changed || !committed
	if committed {
		for _, report := range o.Reports {
			p.enter(now, report, s.phase == running)
		}
	}
	s.bell.ring()
}

// commit commits an outcome. While the store fails it tries again, as long as this process may; the slot does not wait
// for that, because hand-offs may need it. over: it was committed, or never will be.
func (a *attempts) commit(e *entry, o Outcome, results []mail.Result, release func()) (committed, over bool) {
	backoff := storeBackoff
	for {
		err := a.store.Finish(a.sched.hard, e.m.Version(), a.sched.owner, o)
		release()
		release = func() {}
		a.sched.storeSaid(err, "finish", writes)
		if err == nil {
			return true, true
		}
		if errors.Is(err, ErrNotFound) {
			switch err = a.late(a.sched.hard, e.m.ID, results, true); {
			case errors.Is(err, ErrNotFound):
				a.log.Error("outcome not recorded: the message or its lease is gone", "id", e.m.ID)
				a.trace.superseded(time.Now(), e.m)
				return false, true
			case err == nil:
				return false, true
			}
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

// late records what an attempt brought that is not the message's any more: its lease had run out, and another node or
// a person had the message since. Whoever has it learns of that by the version; nobody sends again what was taken.
// running: the attempt is of this life, so that a lease of ours is its own. ErrNotFound: there is nothing to record.
func (a *attempts) late(ctx context.Context, id string, results []mail.Result, running bool) error {
	for range lateTries {
		m, err := a.store.Get(ctx, id)
		if err != nil {
			return err
		}
		now := time.Now()
		var dec decision
		if running && m.LeaseOwner == a.sched.owner { // somebody else has recorded what came late
			dec = a.decider.decide(now, m, nil, complete(m, results))
		} else if results = deliveries(m, results); len(results) > 0 {
			dec = a.decider.late(now, m, results)
		} else {
			return ErrNotFound
		}
		if err = a.store.Record(ctx, m.Version(), a.sched.owner, dec.out); errors.Is(err, ErrNotFound) {
			continue // it has changed since it was read
		}
		if err == nil {
			a.log.Warn("an outcome that came late is recorded", "id", id)
			if !running {
				a.trace.results(now, m, results, dec, 0)
			}
			a.trace.reports(now, m, dec)
		}
		return err
	}
	return fmt.Errorf("%s changes all the time", id)
}

// lateTries is how often an outcome that comes late meets another one before it waits.
const lateTries = 5

// deliveries are the results that say that a recipient who is pending still was delivered to.
func deliveries(m *Message, results []mail.Result) []mail.Result {
	return slices.DeleteFunc(slices.Clone(results), func(r mail.Result) bool {
		return r.Class != mail.Delivered || r.Recipient < 0 || r.Recipient >= len(m.Recipients) ||
			m.Recipients[r.Recipient].Status != Pending
	})
}

// superseded explains an outcome that is not the message's: by then it belonged to somebody else.
func (t *tracer) superseded(now time.Time, m *Message) {
	t.emit(t.event(now, m, trace.Event{
		Kind: trace.Attempt,
		Detail: "what this attempt brought is not recorded: its lease had run out, and another node or a person has " +
			"the message",
	}))
}

// lose counts an outcome that is forgotten because the process ends.
func (s *scheduler) lose(m *Message, err error) {
	s.log.Error("outcome not recorded: the message will be tried again", "id", m.ID, "error", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost++
}
