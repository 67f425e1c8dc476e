package queue

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"postern/internal/logline"
	"postern/mail"
	"postern/relay/trace"
)

// tracer tells the trace and the log what became of messages.
type tracer struct {
	emit func(trace.Event)
	log  *slog.Logger
}

// event completes a trace event with what is known of the message.
func (t *tracer) event(now time.Time, m *Message, e trace.Event) trace.Event {
	e.Time, e.ID, e.Session, e.Listener, e.Login = now, m.ID, m.Session, m.Listener, m.Login
	e.From, e.Author, e.MessageID, e.Size = m.Envelope.From.String(), m.Author.String(), m.MessageID, m.Size
	e.Attempt, e.Age = m.Attempts, now.Sub(m.Received)
	return e
}

// results tells what became of each recipient that was pending before the outcome. It happens before
// the outcome is recorded: the trace says what was, also when recording fails.
func (t *tracer) results(now time.Time, m *Message, results []mail.Result, dec decision, took time.Duration) {
	told := make([]bool, len(m.Recipients))
	var taken []string // the upstreams that took the message
	for _, r := range results {
		if r.Recipient < 0 || r.Recipient >= len(told) || told[r.Recipient] {
			continue
		}
		told[r.Recipient] = true
		octets := int64(0)
		if dec.out.Recipients[r.Recipient].Status == Delivered && !slices.Contains(taken, r.Upstream) {
			taken, octets = append(taken, r.Upstream), m.Size
		}
		t.recipient(now, m, r, dec, took, octets)
	}
	for i, to := range dec.out.Recipients {
		if !told[i] && m.Recipients[i].Status == Pending && (to.Status == Failed || to.Status == Unclear) {
			t.recipient(now, m, mail.Result{Recipient: i, Reply: to.Reply, Upstream: to.Upstream}, dec, took, 0)
		}
	}
}

func (t *tracer) recipient(now time.Time, m *Message, r mail.Result, dec decision, took time.Duration, octets int64) {
	to := dec.out.Recipients[r.Recipient]
	e := trace.Event{
		To: to.To.String(), Upstream: r.Upstream, Identity: r.Identity, Stage: string(r.Stage), Rule: r.Rule,
		Reply: r.Reply, Took: took, Octets: octets, Kind: kinds[to.Status], Detail: detail(r, to, dec.gaveUp),
	}
	if r.Class != mail.Unknown {
		e.Class = r.Class.String()
	}
	t.emit(t.event(now, m, e))
	class := e.Class
	if class == string(e.Kind) {
		class = ""
	}
	t.log.Info(string(e.Kind), logline.Pairs("id", m.ID, "login", m.Login, "rcpt", e.To, "upstream", e.Upstream,
		"class", class, "reply", mail.Printable(e.Reply.String()), "attempt", m.Attempts,
		"detail", logline.Beside(e.Reply, e.Detail))...)
}

var kinds = map[Status]trace.Kind{
	Pending: trace.Deferred, Delivered: trace.Delivered, Failed: trace.Failed, Unclear: trace.Unclear,
}

// detail is what there is to say of a recipient beside its reply.
func detail(r mail.Result, to Recipient, gaveUp string) string {
	switch {
	case to.Status == Unclear:
		return fmt.Sprintf("given up: %d attempts ended without an answer, and the upstream may have the message",
			to.Doubts)
	case r.Uncertain:
		return "connection lost after the final dot: the upstream may have the message, a duplicate is possible"
	case to.Status == Failed && !r.Class.Permanent() && gaveUp != "":
		return gaveUp
	case r.Note != "":
		return r.Note
	case r.Err != nil:
		return mail.Cut(mail.Printable(r.Err.Error()), 300)
	}
	return ""
}

// reports tells of reports made or withheld, once they are committed.
func (t *tracer) reports(now time.Time, m *Message, dec decision) {
	for _, e := range dec.events {
		t.emit(t.event(now, m, e))
		t.log.Info("report", "id", m.ID, "login", m.Login, "detail", e.Detail)
	}
}

// waiting tells that a message waits for a paused upstream. It is told once, not at each postponement.
func (t *tracer) waiting(m *Message, key string, until time.Time) {
	t.emit(t.event(time.Now(), m, trace.Event{
		Kind: trace.Attempt, Upstream: key,
		Detail: "waits for the upstream, which is paused or backs off until " + until.UTC().Format(time.RFC3339),
	}))
}
