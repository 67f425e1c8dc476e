package submission

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"postern/internal/logline"
	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"
)

// handOff makes the first attempt while the client waits, if the listener wants it and an upstream has a free slot now.
// Otherwise, or if there is no final verdict in time, the message becomes durable. The reply is the truth: 250 only
// when the upstream or the store has the message. A message that needs more than one transaction is stored first: the
// queue records which parts were taken, so that a crash between two repeats neither.
func (u *submission) handOff(ctx context.Context) (mail.Reply, error) {
	m, wait := u.message, u.session.listener.Handoff.Std()
	if u.local || u.service.Room.Away() != nil {
		return u.handOffOnly(ctx)
	}
	if wait <= 0 || m.Held || u.service.Outbound.InParts(m) {
		return u.enqueue(ctx)
	}
	slot, reserved := u.service.Outbound.ReserveNow(u.now, m)
	if slot == nil {
		return u.enqueue(ctx)
	}
	if u.service.Queue.Waiters(reserved.Key) > 0 { // nobody overtakes the queue
		slot.Release()
		return u.enqueue(ctx)
	}
	m.Attempts = 1
	lease := new(queue.Lease) // nobody else can have what is not stored
	results := u.service.attempt(slot, u, lease)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case r := <-results:
		defer slot.Release()
		return u.verdict(ctx, r)
	case <-timer.C:
	case <-u.service.Stopping: // a client that waits longer than the shutdown would be cut off without an answer
	}
	return u.adopt(ctx, lease, results, slot.Release)
}

// attempt begins an attempt that outlives the session if it must. Wait waits for it.
func (s *Service) attempt(slot queue.Slot, u *submission, lease *queue.Lease) <-chan []mail.Result {
	m, content, octets := u.message, u.content, u.octets
	results := make(chan []mail.Result, 1)
	octets.hold()
	s.attempts.Go(func() {
		defer octets.release()
		results <- slot.Attempt(s.lifetime, m, content, lease, nil)
	})
	return results
}

// verdict answers the client with the upstream's reply, if that is final for the message.
func (u *submission) verdict(ctx context.Context, results []mail.Result) (mail.Reply, error) {
	if reply, err, final := u.final(results); final {
		return reply, err
	}
	at := time.Now()
	return u.durable(at, u.service.Queue.SubmitAfter(ctx, u.message, u.content, results))
}

// final is the upstream's verdict as the client gets it, if nothing is left to do then.
func (u *submission) final(results []mail.Result) (_ mail.Reply, err error, final bool) {
	m := u.message
	switch {
	case all(m, results, mail.Class.Permanent):
		u.traceResults(results)
		u.refused = m.ID
		return mail.Reply{}, mail.Refuse(results[0].Reply, results[0].Err), true
	case all(m, results, func(c mail.Class) bool { return c == mail.Delivered }) && !wantsReport(m, results):
		reply := mail.R(250, "2.0.0", "taken by %s as %s: %s", results[0].Upstream, m.ID, results[0].Reply.Text)
		u.accepted("handed off", reply, time.Now())
		u.traceResults(results)
		return reply, nil, true
	}
	return mail.Reply{}, nil, false
}

// all reports whether every recipient has a result and all are of one kind.
func all(m *queue.Message, results []mail.Result, kind func(mail.Class) bool) bool {
	if len(results) != len(m.Recipients) || len(results) == 0 {
		return false
	}
	for _, r := range results {
		if !kind(r.Class) {
			return false
		}
	}
	return true
}

// wantsReport reports whether a delivered recipient is owed a success report that the upstream did not
// take over (RFC 3461 §5.2.3).
func wantsReport(m *queue.Message, results []mail.Result) bool {
	if m.Envelope.From.IsNull() {
		return false // there is nobody to report to
	}
	for _, r := range results {
		if m.Recipients[r.Recipient].Notify&mail.NotifySuccess != 0 && !r.RelayedDSN {
			return true
		}
	}
	return false
}

// enqueue makes the message durable before its first attempt.
func (u *submission) enqueue(ctx context.Context) (mail.Reply, error) {
	at := time.Now()
	return u.durable(at, u.service.Queue.Submit(ctx, u.message, u.content))
}

// adopt makes the message durable while its first attempt is still under way.
func (u *submission) adopt(
	ctx context.Context, lease *queue.Lease, results <-chan []mail.Result, release func(),
) (mail.Reply, error) {
	at := time.Now()
	return u.durable(at, u.service.Queue.Adopt(ctx, u.message, u.content, lease, results, release))
}

// durable answers for a message that was given to the queue at a moment: attempts, which may be quick, come after it in
// the trace.
func (u *submission) durable(at time.Time, err error) (mail.Reply, error) {
	if err != nil {
		return mail.Reply{}, err
	}
	how := "queued"
	if u.message.Held {
		how = "held"
	}
	reply := mail.R(250, "2.0.0", "queued as %s", u.message.ID)
	u.accepted(how, reply, at)
	return reply, nil
}

// maxChanged bounds what log and trace say of the changes to a message, in octets. Mail of old devices has many.
const maxChanged = 1500

// accepted traces and logs that the client got its 250, and how.
func (u *submission) accepted(how string, reply mail.Reply, at time.Time) {
	m, events := u.message, u.session.events
	u.service.accepted.WithLabelValues(m.Listener, how).Inc()
	u.service.acceptedBytes.WithLabelValues(m.Listener).Add(float64(m.Size))
	log, detail := events.log, how
	if len(u.notes) > 0 {
		changed := mail.Printable(mail.Cut(strings.Join(u.notes, "; "), maxChanged))
		log, detail = log.With("changed", changed), how+"; "+changed
	}
	if events.app != "" {
		detail += "; logged in with the app password " + strconv.Quote(events.app)
	}
	log.Info("accepted", "id", m.ID, "from", m.Envelope.From.String(), "rcpts", len(m.Recipients), "size", m.Size,
		"how", how, "message_id", m.MessageID)
	events.record(trace.Event{Time: at, Kind: trace.Accepted, ID: m.ID, From: m.Envelope.From.String(),
		Author: m.Author.String(), To: u.recipient(), MessageID: m.MessageID, Size: m.Size, Reply: reply,
		Detail: detail, Took: time.Since(u.now), Rcpts: rcptsOf(m)})
}

// rcptsOf is what statistics need of the recipients.
func rcptsOf(m *queue.Message) *trace.Rcpts {
	domains := make([]string, len(m.Recipients))
	for i := range m.Recipients {
		domains[i] = m.Recipients[i].To.Domain
	}
	return &trace.Rcpts{Domains: domains}
}

// recipient names the recipients for log and trace.
func (u *submission) recipient() string {
	switch n := len(u.envelope.Recipients); n {
	case 0:
		return ""
	case 1:
		return u.envelope.Recipients[0].To.String()
	default:
		return fmt.Sprintf("%s and %d more", u.envelope.Recipients[0].To, n-1)
	}
}

// traceResults records the results of a message that never was in the queue.
func (u *submission) traceResults(results []mail.Result) {
	now, m := time.Now(), u.message
	octets := m.Size // of the one attempt, at the first recipient
	for _, r := range results {
		kind, word := trace.Failed, "refused by the upstream"
		if r.Class == mail.Delivered {
			kind, word = trace.Delivered, "delivered"
		}
		rcpt := m.Recipients[r.Recipient].To.String()
		class := r.Class.String()
		if class == word {
			class = ""
		}
		u.service.Logger.Info(word, logline.Pairs("id", m.ID, "login", m.Login, "rcpt", rcpt, "upstream", r.Upstream,
			"class", class, "reply", r.Reply.String(), "detail", logline.Beside(r.Reply, detail(r)))...)
		u.service.Result(trace.Event{Time: now, Kind: kind, ID: m.ID, Session: m.Session, Listener: m.Listener,
			Login: m.Login, From: m.Envelope.From.String(), Author: m.Author.String(), To: rcpt, MessageID: m.MessageID,
			Upstream: r.Upstream, Identity: r.Identity, Class: r.Class.String(), Stage: string(r.Stage), Rule: r.Rule,
			Reply: r.Reply, Attempt: 1, Took: now.Sub(m.Received), Age: now.Sub(m.Received), Octets: octets,
			Detail: detail(r)})
		octets = 0
	}
}

// detail is what the trace says of a result beside its reply.
func detail(r mail.Result) string {
	switch {
	case r.Uncertain:
		return "a connection was lost after the message was sent: the upstream may have it twice"
	case r.Note != "":
		return r.Note
	}
	return mail.Reason(r.Err)
}

// holder frees the client's octets when the last of those who may read them has let go.
type holder struct {
	buffer  io.Closer
	holders atomic.Int32
}

func newHolder(buffer io.Closer) *holder {
	h := &holder{buffer: buffer}
	h.holders.Store(1)
	return h
}

// hold adds a reader, which must release in the end.
func (h *holder) hold() { h.holders.Add(1) }

func (h *holder) release() {
	if h.holders.Add(-1) > 0 {
		return
	}
	h.buffer.Close() // of memory or of a file without a name: nothing can be lost here
}
