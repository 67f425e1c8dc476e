package submission

import (
	"context"
	"errors"
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

// handOff hands the message off, or makes it durable where that may be had.
func (s *Service) handOff(ctx context.Context, u *submission) (mail.Reply, error) {
	if !u.local && s.Room.Away() == nil {
		return u.handOffOrQueue(ctx)
	}
	return s.handOffOnly(ctx, u)
}

// handOffOrQueue makes the first attempt while the client waits, if the listener wants it and an upstream has a free
// slot now or in a moment. Otherwise, or if there is no final verdict in time, the message becomes durable. The reply
// is the truth: 250 only when the upstream or the store has the message. A message that needs more than one transaction
// is stored first: the queue records which parts were taken, so that a crash between two repeats neither.
func (u *submission) handOffOrQueue(ctx context.Context) (mail.Reply, error) {
	m, wait := u.message, u.session.listener.Handoff.Std()
	if wait <= 0 || m.Held || u.service.Outbound.InParts(m) {
		return u.enqueue(ctx)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	slot := u.service.slot(u.now, m, wait)
	if slot == nil {
		return u.enqueue(ctx)
	}
	m.Attempts = 1
	lease := new(queue.Lease) // nobody else can have what is not stored
	results := u.service.attempt(slot, u, lease)
	select {
	case r := <-results:
		defer slot.Release()
		return u.verdict(ctx, r)
	case <-timer.C:
	case <-u.service.Stopping: // a client that waits longer than the shutdown would be cut off without an answer
	}
	return u.adopt(ctx, lease, results, slot.Release)
}

// While the database is away nothing can be queued (decision 0050). A message is taken all the same if an upstream
// takes it while the client waits, for all its recipients by one reply: what is left of one could not be kept.

// handOffFor is how long an upstream has to get such a message whole, where listeners want a verdict sooner. Nothing
// else can be done with it, and clients wait for some minutes.
const handOffFor = time.Minute

// Such a message waits so long for a slot, and asks for one so often. It cannot wait in the queue.
const (
	slotPatience = 10 * time.Second
	askForSlot   = 100 * time.Millisecond
)

// handOffOnly is handOffOrQueue for a message that cannot be kept. Its reply is the upstream's: 250 where all
// recipients have it, 5yz where it is refused for good for all of them. Else the client keeps the message, and is told
// to come back.
func (s *Service) handOffOnly(ctx context.Context, u *submission) (mail.Reply, error) {
	m := u.message
	if err := s.needsQueue(m, u.session.listener.Handoff > 0); err != nil {
		return mail.Reply{}, mail.Refuse(replyNotNow, err)
	}
	m.AllOrNone = true
	slot := s.slotSoon(m)
	if slot == nil {
		return mail.Reply{}, mail.Refuse(replyNotNow, errors.New("no upstream has a free slot, or all are paused"))
	}
	defer slot.Release()
	m.Attempts = 1
	return u.verdict(ctx, s.await(slot, u))
}

// needsQueue returns why the message cannot be handed off now, whatever an upstream says of it.
func (s *Service) needsQueue(m *queue.Message, handsOff bool) error {
	switch {
	case !handsOff:
		return errors.New("the listener hands nothing off")
	case m.Held:
		return errors.New("the message is to be held")
	case s.Outbound.InParts(m):
		return errors.New("its recipients do not fit into one transaction")
	case mayOweReport(m):
		return errors.New("its sender wants a report of success")
	}
	return nil
}

// mayOweReport reports whether a delivery may oblige us to a report, which nobody could keep.
func mayOweReport(m *queue.Message) bool {
	for _, r := range m.Recipients {
		if r.Notify&mail.NotifySuccess != 0 && !m.Envelope.From.IsNull() {
			return true
		}
	}
	return false
}

// slotSoon waits for a slot; nil: there is none soon. What is queued cannot leave, so that nobody is overtaken.
func (s *Service) slotSoon(m *queue.Message) queue.Slot {
	tick := time.NewTicker(askForSlot)
	defer tick.Stop()
	for end := time.Now().Add(slotPatience); ; {
		now := time.Now()
		slot, wait := s.Outbound.ReserveNow(now, m)
		if slot != nil || now.After(end) || wait.Until.After(end) {
			return slot
		}
		select {
		case <-tick.C:
		case <-s.Stopping:
			return nil
		}
	}
}

// await makes the attempt of a message that cannot be kept, and waits for its end. What takes too long is broken off
// before the upstream has the whole message, and waited for behind that: only the upstream knows then.
func (s *Service) await(slot queue.Slot, u *submission) []mail.Result {
	lease := new(queue.Lease)
	results := s.attempt(slot, u, lease)
	timer := time.NewTimer(max(u.session.listener.Handoff.Std(), handOffFor))
	defer timer.Stop()
	select {
	case r := <-results:
		return r
	case <-timer.C:
	case <-s.Stopping:
	}
	lease.Lose()
	return <-results
}

// notTaken says what became of a message that the client keeps.
func notTaken(m *queue.Message, results []mail.Result) error {
	if len(results) == 0 {
		return errors.New("the attempt had no result")
	}
	worst := results[0]
	for _, r := range results {
		if r.Class.Permanent() {
			worst = r
		}
	}
	return fmt.Errorf("%s said of %s: %s", worst.Upstream, m.Recipients[worst.Recipient].To, worst.Reply)
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
	m := u.message
	switch {
	case all(m, results, mail.Class.Permanent):
		u.traceResults(results)
		u.refused = m.ID
		return mail.Reply{}, mail.Refuse(results[0].Reply, results[0].Err)
	case all(m, results, func(c mail.Class) bool { return c == mail.Delivered }) && !wantsReport(m, results):
		reply := mail.R(250, "2.0.0", "taken by %s as %s: %s", results[0].Upstream, m.ID, results[0].Reply.Text)
		u.accepted("handed off", reply, time.Now())
		u.traceResults(results)
		return reply, nil
	case m.AllOrNone: // nobody has it, or nobody knows
		return mail.Reply{}, mail.Refuse(replyNotNow, notTaken(m, results))
	}
	at := time.Now()
	return u.durable(at, u.service.Queue.SubmitAfter(ctx, m, u.content, results))
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
