package queue

import (
	"fmt"
	"time"

	"postern/internal/logline"
	"postern/mail"
	"postern/relay/trace"
)

// event completes a trace event with what is known of the message.
func (q *Queue) event(now time.Time, m *Message, e trace.Event) trace.Event {
	e.Time, e.ID, e.Session, e.Listener, e.Login = now, m.ID, m.Session, m.Listener, m.Login
	e.From, e.Author, e.MessageID, e.Size = m.Envelope.From.String(), m.Author.String(), m.MessageID, m.Size
	e.Attempt, e.Age = m.Attempts, now.Sub(m.Received)
	return e
}

// traceResults tells what became of each recipient that was pending before the outcome. It happens before
// the outcome is recorded: the trace says what was, also when recording fails.
func (q *Queue) traceResults(now time.Time, m *Message, results []mail.Result, s settlement, took time.Duration) {
	told := make([]bool, len(m.Recipients))
	for _, r := range results {
		if r.Recipient < 0 || r.Recipient >= len(told) || told[r.Recipient] {
			continue
		}
		told[r.Recipient] = true
		q.traceRecipient(now, m, r, s, took)
	}
	for i, to := range s.Recipients {
		if !told[i] && m.Recipients[i].Status == Pending && (to.Status == Failed || to.Status == Unclear) {
			q.traceRecipient(now, m, mail.Result{Recipient: i, Reply: to.Reply, Upstream: to.Upstream}, s, took)
		}
	}
}

func (q *Queue) traceRecipient(now time.Time, m *Message, r mail.Result, s settlement, took time.Duration) {
	to := s.Recipients[r.Recipient]
	e := trace.Event{
		To: to.To.String(), Upstream: r.Upstream, Identity: r.Identity, Stage: string(r.Stage), Rule: r.Rule, Reply: r.Reply, Took: took,
	}
	if r.Class != mail.Unknown {
		e.Class = r.Class.String()
	}
	switch to.Status {
	case Delivered:
		e.Kind = trace.Delivered
	case Failed:
		e.Kind = trace.Failed
		if !r.Class.Permanent() {
			e.Detail = s.gaveUp
		}
	case Unclear:
		e.Kind = trace.Unclear
		e.Detail = fmt.Sprintf("given up: %d attempts ended without an answer, and the upstream may have the message", to.Doubts)
	default:
		e.Kind = trace.Deferred
	}
	switch {
	case to.Status == Unclear:
	case r.Uncertain:
		e.Detail = "connection lost after the final dot: the upstream may have the message, a duplicate is possible"
	case e.Detail == "" && r.Note != "":
		e.Detail = r.Note
	case e.Detail == "" && r.Err != nil:
		e.Detail = mail.Cut(mail.Printable(r.Err.Error()), 300)
	}
	q.opts.Trace(q.event(now, m, e))
	class := e.Class
	if class == string(e.Kind) {
		class = ""
	}
	q.log.Info(string(e.Kind), logline.Pairs("id", m.ID, "login", m.Login, "rcpt", e.To, "upstream", e.Upstream, "class", class,
		"reply", mail.Printable(e.Reply.String()), "attempt", m.Attempts, "detail", logline.Beside(e.Reply, e.Detail))...)
}

// traceReports tells of reports made or withheld, once they are committed.
func (q *Queue) traceReports(now time.Time, m *Message, s settlement) {
	for _, e := range s.events {
		q.opts.Trace(q.event(now, m, e))
		q.log.Info("report", "id", m.ID, "login", m.Login, "detail", e.Detail)
	}
}

// traceWaiting tells that a message waits for a paused upstream. It is told once, not at each postponement.
func (q *Queue) traceWaiting(m *Message, key string, until time.Time) {
	q.opts.Trace(q.event(time.Now(), m, trace.Event{
		Kind: trace.Attempt, Upstream: key,
		Detail: "waits for the upstream, which is paused or backs off until " + until.UTC().Format(time.RFC3339),
	}))
}

// traceRefused explains a duplicate that may follow: there was an attempt, and the client will try again.
func (q *Queue) traceRefused(now time.Time, m *Message) {
	q.opts.Trace(q.event(now, m, trace.Event{
		Kind: trace.Attempt, Detail: "the client was told to try again: the message could not be stored when this attempt was made",
	}))
}
