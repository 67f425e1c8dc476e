package queue

import (
	"sync/atomic"
	"time"

	"postern/mail"
)

// Schedule says when to try again and when to stop.
type Schedule struct {
	Retry []time.Duration // before the second, third … attempt; the last one repeats; at least one
	// Expire is the time from acceptance to giving up. RFC 5321 §4.5.4.1 wants 4-5 days, submission users to know
	// sooner.
	Expire    time.Duration
	WarnAfter time.Duration // from acceptance to the delay report; 0: none
}

// timetable says when a message is tried again, when its sender is told of the delay, and when it is given up.
type timetable struct {
	schedule atomic.Pointer[Schedule]
	jitter   func() float64
}

// nextAttempt is the time to try the pending recipients again. An attempt falls on the times of the delay
// report and of the end, so that neither is late.
func (t *timetable) nextAttempt(now time.Time, m *Message, o Outcome, results []mail.Result) time.Time {
	jitter := t.jitter()
	delay, asked, atEnd := time.Duration(0), false, true
	for _, r := range results {
		if r.Recipient < 0 || r.Recipient >= len(o.Recipients) || o.Recipients[r.Recipient].Status != Pending {
			continue
		}
		delay = max(delay, t.delay(m.Attempts, r, jitter))
		asked = asked || r.RetryAfter > 0 && !upstreamsMatter(r.Class)
		if r.Uncertain {
			doubts := o.Recipients[r.Recipient].Doubts
			delay = max(delay, doubtDelays[min(max(doubts, 1), len(doubtDelays))-1])
			asked, atEnd = true, false
		}
	}
	if delay == 0 {
		delay = t.tableDelay(m.Attempts, jitter)
	}
	next := now.Add(delay)
	if atEnd && now.Before(m.Expires) {
		next = earlier(next, m.Expires)
	}
	if at := t.warnAt(m); !o.Warned && !asked && at.After(now) {
		next = earlier(next, at)
	}
	return next
}

// delay is how long one result wants to wait. What the upstream asked for is never cut short by jitter.
// A fault of the upstream, or of our account there, is no reason to try this message less and less
// often: the upstream's own back-off decides when there is a slot again.
func (t *timetable) delay(attempts int, r mail.Result, jitter float64) time.Duration {
	switch asked := r.RetryAfter + time.Duration(float64(r.RetryAfter)*jitterShare*jitter); {
	case asked > 0 && attempts > maxMoments && !upstreamsMatter(r.Class):
		return max(asked, t.tableDelay(1, jitter))
	case asked > 0:
		return asked
	case upstreamsMatter(r.Class):
		return t.tableDelay(1, jitter)
	}
	return t.tableDelay(attempts, jitter)
}

// maxMoments is up to which attempt a message may come again sooner than any of the table says. An upstream that asks
// for a second each time would have it try for days without a pause.
const maxMoments = 3

// jitterShare is how far a retry time may lie from the table, as a share of it, so that mail deferred at
// one moment does not come back at one moment.
const jitterShare = 0.1

func (t *timetable) tableDelay(attempts int, jitter float64) time.Duration {
	table := t.schedule.Load().Retry
	d := table[min(max(attempts, 1), len(table))-1]
	return d + time.Duration(float64(d)*jitterShare*(2*jitter-1))
}

// upstreamsMatter reports a class that says something about the upstream and nothing about the message.
func upstreamsMatter(c mail.Class) bool { return c == mail.AccountFault || c == mail.BackPressure }

// warnAt is when the sender is told of the delay; zero: never.
func (t *timetable) warnAt(m *Message) time.Time {
	after := t.schedule.Load().WarnAfter
	if after == 0 || !wantsDelayReport(m) {
		return time.Time{}
	}
	return m.Received.Add(after)
}

// wants reports whether a recipient's NOTIFY asks for a kind of report (RFC 3461 §4.1). Absent, it means
// failure, and delay at our discretion: we tell.
func wants(n mail.Notify, k NoticeKind) bool {
	if n == 0 {
		return k != Success
	}
	switch k {
	case Failure:
		return n&mail.NotifyFailure != 0
	case Delay:
		return n&mail.NotifyDelay != 0
	case Doubt:
		return n&(mail.NotifyFailure|mail.NotifyDelay) != 0
	}
	return n&mail.NotifySuccess != 0
}

func wantsDelayReport(m *Message) bool {
	if m.Envelope.From.IsNull() {
		return false
	}
	for _, to := range m.Recipients {
		if to.Status == Pending && wants(to.Notify, Delay) {
			return true
		}
	}
	return false
}

// reviewAt is when a message postponed until a time must be reviewed: then, or before that when its delay
// report or its end is due. Such times are rounded up to the minute, so that many messages move as one.
func (t *timetable) reviewAt(now time.Time, m *Message, until time.Time) time.Time {
	at := until
	if warn := t.warnAt(m); !m.Warned && warn.After(now) {
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

// overdue reports that a message must be reviewed now though there is no slot for it.
func (t *timetable) overdue(now time.Time, m *Message) bool {
	if m.Bounce || expired(now, m) {
		return true
	}
	warn := t.warnAt(m)
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

// sleepAt is when a message must be reviewed that sleeps under a name, or, without one, comes back at until.
func (t *timetable) sleepAt(now time.Time, m *Message, until time.Time, name string) time.Time {
	if name != "" {
		until = now.Add(maxSleep)
	}
	return t.reviewAt(now, m, until)
}
