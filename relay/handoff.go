package relay

import (
	"context"
	"time"

	"postern/internal/logline"
	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"
)

// handOff makes the first attempt while the client waits, if the listener wants it and an upstream has
// a free place now; else, or when the verdict is not final in time, the message becomes durable. The
// reply is the truth: 250 only when the upstream took the message or the store has it. What needs more than one transaction is
// made durable first: the queue notes which parts were taken, so that a process that is killed between two does not repeat one.
func (s *Server) handOff(ctx context.Context, u *submission, m *queue.Message, content mail.Content) (mail.Reply, error) {
	patience := u.listener.Handoff.Std()
	if patience <= 0 || m.Held || s.dispatch.InParts(m) {
		return s.enqueue(ctx, u, m, content)
	}
	ticket, wait := s.dispatch.ReserveNow(u.now, m)
	if ticket == nil {
		return s.enqueue(ctx, u, m, content)
	}
	if s.queue.Waiters(wait.Key) > 0 { // nobody overtakes the queue
		ticket.Release()
		return s.enqueue(ctx, u, m, content)
	}
	m.Attempts = 1
	results := make(chan []mail.Result, 1)
	u.octets.hold()
	s.attempts.Go(func() {
		defer u.octets.release()
		results <- ticket.Attempt(s.deliveries, m, content, nil)
	})
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case r := <-results:
		defer ticket.Release()
		return s.verdict(ctx, u, m, content, r)
	case <-timer.C:
		return s.adopt(ctx, u, m, content, results, ticket.Release)
	case <-s.draining: // a client that waits longer than the shutdown would be cut off without an answer
		return s.adopt(ctx, u, m, content, results, ticket.Release)
	}
}

// verdict answers the client with what the upstream said, where that settles the message.
func (s *Server) verdict(ctx context.Context, u *submission, m *queue.Message, content mail.Content, results []mail.Result) (mail.Reply, error) {
	switch {
	case settled(m, results, mail.Class.Permanent):
		s.traceResults(m, results)
		reply := results[0].Reply
		return reply, mail.Refuse(reply, results[0].Err)
	case settled(m, results, func(c mail.Class) bool { return c == mail.Delivered }) && !wantsReport(m, results):
		reply := mail.R(250, "2.0.0", "taken by %s as %s: %s", results[0].Upstream, m.ID, results[0].Reply.Text)
		u.accepted(m, "handed off", reply, time.Now())
		s.traceResults(m, results)
		return reply, nil
	}
	at := time.Now()
	if err := s.queue.SubmitAfter(ctx, m, content, results); err != nil {
		return replyFor(err), err
	}
	return u.queued(m, at)
}

// settled reports whether every recipient has a result and all are of one kind.
func settled(m *queue.Message, results []mail.Result, kind func(mail.Class) bool) bool {
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

// enqueue makes the message durable and answers that it is queued.
func (s *Server) enqueue(ctx context.Context, u *submission, m *queue.Message, content mail.Content) (mail.Reply, error) {
	at := time.Now()
	if err := s.queue.Submit(ctx, m, content); err != nil {
		return replyFor(err), err
	}
	return u.queued(m, at)
}

// adopt makes a message durable whose first attempt is still under way.
func (s *Server) adopt(ctx context.Context, u *submission, m *queue.Message, content mail.Content, results <-chan []mail.Result, release func()) (mail.Reply, error) {
	at := time.Now()
	if err := s.queue.Adopt(ctx, m, content, results, release); err != nil {
		return replyFor(err), err
	}
	return u.queued(m, at)
}

// queued answers for a message that was given to the queue at a moment: attempts, which may be quick, come after it in the trace.
func (u *submission) queued(m *queue.Message, at time.Time) (mail.Reply, error) {
	reply := mail.R(250, "2.0.0", "queued as %s", m.ID)
	how := "queued"
	if m.Held {
		how = "held"
	}
	u.accepted(m, how, reply, at)
	return reply, nil
}

// traceResults records the results of a message that never was in the queue.
func (s *Server) traceResults(m *queue.Message, results []mail.Result) {
	now := time.Now()
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
		s.log.Info(word, logline.Pairs("id", m.ID, "login", m.Login, "rcpt", rcpt, "upstream", r.Upstream, "class", class,
			"reply", r.Reply.String(), "detail", logline.Beside(r.Reply, detail(r)))...)
		s.recordResult(trace.Event{Time: now, Kind: kind, ID: m.ID, Session: m.Session, Listener: m.Listener, Login: m.Login,
			From: m.Envelope.From.String(), Author: m.Author.String(), To: rcpt, MessageID: m.MessageID,
			Upstream: r.Upstream, Identity: r.Identity, Class: r.Class.String(), Stage: string(r.Stage), Rule: r.Rule, Reply: r.Reply,
			Attempt: 1, Took: now.Sub(m.Received), Age: now.Sub(m.Received), Detail: detail(r)})
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
