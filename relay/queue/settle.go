package queue

import (
	"slices"
	"time"

	"postern/mail"
	"postern/relay/trace"
)

// The replies that stand for outcomes of our own making.
var (
	replyOperator = mail.R(550, "5.0.0", "given up by the operator of this relay")
	replyExpired  = mail.R(450, "4.4.7", "delivery time expired before any upstream could be used")
	replyNoResult = mail.R(451, "4.3.0", "the attempt ended without a result")
)

// statusExpired is delivery time expired (RFC 3463 §3.5), as the permanent failure that it has become.
const statusExpired = "5.4.7"

// settlement is an Outcome with what the trace is told once it is committed.
type settlement struct {
	Outcome
	gaveUp string        // why pending recipients failed without a permanent reply, if they did
	events []trace.Event // about reports
}

// Settle computes what the results of an attempt make of m, whose Attempts count that attempt already:
// new states of the recipients, the time of the next attempt, reports. Without a result a recipient
// stays as it is, unless the operator gave the message up or its time is over. It changes nothing, in m
// or elsewhere, except that Options.Report is called.
func (q *Queue) Settle(now time.Time, m *Message, results []mail.Result) Outcome {
	return q.settle(now, m, nil, results).Outcome
}

func (q *Queue) settle(now time.Time, m *Message, c mail.Content, results []mail.Result) settlement {
	s := settlement{Outcome: Outcome{
		Recipients: slices.Clone(m.Recipients), Warned: m.Warned, LastReply: m.LastReply,
	}}
	abouts := s.apply(results)
	abouts = append(abouts, s.doubt()...)
	switch {
	case m.Bounce:
		s.gaveUp = replyOperator.Text
		abouts = append(abouts, s.giveUp(replyOperator)...)
	case expired(now, m):
		s.gaveUp = "given up: delivery time expired"
		abouts = append(abouts, s.giveUp(mail.Reply{})...)
	}
	q.reportResults(now, m, c, abouts, &s)
	if s.Remove = !s.pending(); s.Remove {
		return s
	}
	q.reportDelay(now, m, c, results, &s)
	s.NextAttempt = q.nextAttempt(now, m, s.Outcome, results)
	return s
}

func (o *Outcome) pending() bool {
	return slices.ContainsFunc(o.Recipients, func(r Recipient) bool { return r.Status == Pending })
}

// apply sets the recipients' new states and returns what a report may have to tell.
func (s *settlement) apply(results []mail.Result) []About {
	var abouts []About
	for _, r := range results {
		if r.Recipient < 0 || r.Recipient >= len(s.Recipients) || s.Recipients[r.Recipient].Status != Pending {
			continue
		}
		to := &s.Recipients[r.Recipient]
		to.Reply, to.Upstream, to.Host, to.Stage = r.Reply, r.Upstream, r.SaidBy(), r.Stage
		switch {
		case r.Class == mail.Delivered:
			to.Status, to.Relayed = Delivered, r.RelayedDSN
			abouts = append(abouts, aboutResult(r, Relayed))
		case r.Class.Permanent():
			to.Status = Failed
			abouts = append(abouts, aboutResult(r, FailedAction))
		}
		if r.Uncertain && to.Status != Delivered {
			to.Doubts++ // a failure report says so
		}
		s.LastReply = worse(s.LastReply, r.Reply)
	}
	return abouts
}

// MaxDoubts is how often a message is given to an upstream that does not say whether it has it. Each time may be a copy.
const MaxDoubts = 3

// doubtDelays are the waits behind an attempt that the upstream may have taken, at least: what was taken needs time to show, in
// Sent Items or to its recipient, and an upstream that fails behind the final dot needs time to be mended.
var doubtDelays = [...]time.Duration{10 * time.Minute, time.Hour}

// doubt ends the recipients for which nobody has said so often enough.
func (s *settlement) doubt() []About {
	var abouts []About
	for i := range s.Recipients {
		to := &s.Recipients[i]
		if to.Status != Pending || to.Doubts < MaxDoubts {
			continue
		}
		to.Status = Unclear
		abouts = append(abouts, aboutUnclear(i, to))
	}
	return abouts
}

func aboutUnclear(i int, to *Recipient) About {
	return About{Index: i, Action: UnclearAction, Status: statusOf(to.Reply, UnclearAction), Reply: to.Reply,
		Upstream: to.Upstream, Host: to.Host, Stage: to.Stage, Doubts: to.Doubts}
}

// worse picks the reply that explains more: the later one, unless it only says that all is well.
func worse(have, got mail.Reply) mail.Reply {
	if got.IsZero() || got.OK() && !have.IsZero() {
		return have
	}
	return got
}

// giveUp fails what is still pending: with our own reply, or because the time is over. The last reply of
// the upstream stays, for it tells the sender why.
func (s *settlement) giveUp(reply mail.Reply) []About {
	var abouts []About
	for i := range s.Recipients {
		to := &s.Recipients[i]
		if to.Status != Pending {
			continue
		}
		a := About{Index: i, Action: FailedAction, Status: statusExpired, Upstream: to.Upstream}
		if to.Doubts > 0 { // it may have come to its recipient
			to.Status = Unclear
			s.LastReply = to.Reply
			abouts = append(abouts, aboutUnclear(i, to))
			continue
		}
		switch {
		case !reply.IsZero():
			to.Reply, to.Host, to.Stage, a.Status = reply, "", "", reply.Enhanced
		case to.Reply.IsZero():
			to.Reply = replyExpired
		}
		to.Status, a.Reply, a.Host, a.Stage = Failed, to.Reply, to.Host, to.Stage
		s.LastReply = to.Reply
		abouts = append(abouts, a)
	}
	return abouts
}

// nextAttempt is the time to try the pending recipients again. An attempt falls on the times of the delay
// report and of the end, so that neither is late.
func (q *Queue) nextAttempt(now time.Time, m *Message, o Outcome, results []mail.Result) time.Time {
	jitter := q.opts.Jitter()
	delay, asked, atEnd := time.Duration(0), false, true
	for _, r := range results {
		if r.Recipient < 0 || r.Recipient >= len(o.Recipients) || o.Recipients[r.Recipient].Status != Pending {
			continue
		}
		delay = max(delay, q.delay(m.Attempts, r, jitter))
		asked = asked || r.RetryAfter > 0 && !upstreamsMatter(r.Class)
		if r.Uncertain {
			doubts := o.Recipients[r.Recipient].Doubts
			delay = max(delay, doubtDelays[min(max(doubts, 1), len(doubtDelays))-1])
			asked, atEnd = true, false
		}
	}
	if delay == 0 {
		delay = q.tableDelay(m.Attempts, jitter)
	}
	next := now.Add(delay)
	if atEnd && now.Before(m.Expires) {
		next = earlier(next, m.Expires)
	}
	if at := q.warnAt(m); !o.Warned && !asked && at.After(now) {
		next = earlier(next, at)
	}
	return next
}

// delay is how long one result wants to wait. What the upstream asked for is never cut short by jitter.
// A fault of the upstream, or of our account there, is no reason to try this message less and less
// often: the upstream's own back-off decides when there is a place again.
func (q *Queue) delay(attempts int, r mail.Result, jitter float64) time.Duration {
	switch asked := r.RetryAfter + time.Duration(float64(r.RetryAfter)*jitterShare*jitter); {
	case asked > 0 && attempts > maxMoments && !upstreamsMatter(r.Class):
		return max(asked, q.tableDelay(1, jitter))
	case asked > 0:
		return asked
	case upstreamsMatter(r.Class):
		return q.tableDelay(1, jitter)
	}
	return q.tableDelay(attempts, jitter)
}

// maxMoments is up to which attempt a message may come again sooner than any of the table says. An upstream that asks for a second
// each time would have it try for days without a pause.
const maxMoments = 3

// jitterShare is how far a retry time may lie from the table, as a share of it, so that mail deferred at
// one moment does not come back at one moment.
const jitterShare = 0.1

func (q *Queue) tableDelay(attempts int, jitter float64) time.Duration {
	table := q.schedule.Load().Retry
	d := table[min(max(attempts, 1), len(table))-1]
	return d + time.Duration(float64(d)*jitterShare*(2*jitter-1))
}

// upstreamsMatter reports a class that says something about the upstream and nothing about the message.
func upstreamsMatter(c mail.Class) bool { return c == mail.AccountFault || c == mail.BackPressure }

// warnAt is when the sender is told of the delay; zero: never.
func (q *Queue) warnAt(m *Message) time.Time {
	after := q.schedule.Load().WarnAfter
	if after < 0 || !wantsDelayReport(m) {
		return time.Time{}
	}
	return m.Received.Add(after)
}

// lookAt is when a message postponed until a time must be looked at: then, or before that when its delay
// report or its end is due. Such times are rounded up to the minute, so that many messages move as one.
func (q *Queue) lookAt(now time.Time, m *Message, until time.Time) time.Time {
	at := until
	if warn := q.warnAt(m); !m.Warned && warn.After(now) {
		at = earlier(at, warn)
	}
	if m.Expires.After(now) {
		at = earlier(at, m.Expires)
	}
	if at.Equal(until) {
		return until
	}
	return earlier(until, at.Truncate(time.Minute).Add(time.Minute))
}

// expired reports that the time of m is over. Zero means that nobody said when.
func expired(now time.Time, m *Message) bool { return !m.Expires.IsZero() && !now.Before(m.Expires) }

// overdue reports that a message must be settled now though there is no place for it.
func (q *Queue) overdue(now time.Time, m *Message) bool {
	if m.Bounce || expired(now, m) {
		return true
	}
	warn := q.warnAt(m)
	return !m.Warned && !warn.IsZero() && !now.Before(warn)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
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
