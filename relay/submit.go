package relay

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postern/mail"
	"postern/policy"
	"postern/relay/queue"
	"postern/relay/trace"
)

// maxHops is the number of Received fields from which on a message is taken for a loop. RFC 5321 §6.3 asks for at
// least 100: what is forwarded or resent has many.
const maxHops = 100

// submission is one message between the final dot and its reply: judged, counted against the limits,
// completed, and handed off or queued. It holds the client's octets; an attempt that outlives it holds them too.
type submission struct {
	*session
	envelope  mail.Envelope
	raw       mail.Content
	octets    *holder // of raw
	eightBit  bool
	longLines bool // there are lines over 998 octets
	now       time.Time

	header    mail.Header
	size      int64 // of the message as it came
	body      int   // where the body begins in raw
	bodyLine  int64 // number of its first line
	author    mail.Address
	messageID string
	notes     []string // what was changed and why, for log and trace; none for ordinary mail
	hold      string   // why the message is to be held, "" if it is not
	refund    func()   // gives back what was taken of the limits
}

// run takes the message through all steps. An error comes with the reply that refuses the message.
func (u *submission) run(ctx context.Context) (mail.Reply, error) {
	defer func() { u.octets.release() }() // of those that it holds then
	for _, step := range []func(context.Context) error{u.readHeader, u.checkAuthors, u.checkLoop, u.mendBody, u.takeLimits} {
		if err := step(ctx); err != nil {
			return replyFor(err), err
		}
	}
	m, content := u.complete()
	reply, err := u.srv.handOff(ctx, u, m, content)
	if err != nil && !reply.Permanent() {
		u.refund() // our own trouble costs nobody's allowance
	}
	return reply, err
}

// recipient names the recipients of a refused message for the log.
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

func (u *submission) readHeader(context.Context) error {
	prefix, err := mail.FirstOctets(u.raw, mail.HeaderPrefix)
	if err != nil {
		return fmt.Errorf("read back the header: %w", err)
	}
	u.size = u.raw.Size()
	read := mail.ReadHeader
	if u.effective.Rewrites() {
		read = mail.ReadHeaderToRewrite
	}
	u.header, u.body, err = read(prefix)
	u.notes = append(u.notes, u.header.Mended...)
	u.bodyLine = 1 + int64(bytes.Count(prefix[:u.body], []byte{'\n'}))
	return err
}

// checkAuthors takes the header as far as it may name its authors, and in the form in which all readers see the same.
func (u *submission) checkAuthors(context.Context) error {
	checked, err := checkAuthors(&u.effective, u.envelope.From, u.header)
	if err != nil {
		return err
	}
	u.header, u.author = checked.header, checked.author
	u.notes = append(u.notes, checked.notes...)
	return nil
}

func (u *submission) checkLoop(context.Context) error {
	if u.header.Count("Received") > maxHops {
		return mail.Refuse(replyLoop, nil)
	}
	return nil
}

// takeLimits counts the message against the limits of its login, all or none.
func (u *submission) takeLimits(ctx context.Context) error {
	rcpts := make([]mail.Address, len(u.envelope.Recipients))
	for i, r := range u.envelope.Recipients {
		rcpts[i] = r.To
	}
	verdict, err := u.srv.limiter.Take(ctx, u.now, u.identity.Login, u.effective.Limits, policy.Usage{Messages: 1, Recipients: rcpts, Bytes: u.size})
	if err != nil {
		return err
	}
	u.refund = verdict.Refund
	if verdict.OK {
		return nil
	}
	reply := u.effective.LimitRefusal(verdict, u.now)
	u.srv.metrics.overLimit.WithLabelValues(u.effective.OverLimit).Inc()
	switch {
	case u.effective.OverLimit == policy.Hold && !verdict.Never:
		return u.takeHold(ctx, verdict, reply)
	case u.effective.OverLimit == policy.Lock:
		u.srv.lock(ctx, u.identity.Login, "over the "+verdict.Limit.String()+" limit")
	}
	return mail.Refuse(reply, nil)
}

// takeHold lets the message be held for a person, if there is room among what is held.
func (u *submission) takeHold(ctx context.Context, v policy.Verdict, over mail.Reply) error {
	giveBack, ok, err := u.srv.held.take(ctx, u.identity.Login, u.size, u.effective.MaxHeld, int64(u.state.config.Store.MaxSize)/heldShare)
	switch {
	case err != nil:
		return err
	case !ok:
		return mail.Refuse(u.effective.HeldRefusal(v), nil)
	}
	u.hold, u.refund = over.Text, giveBack
	return nil
}

// complete adds what RFC 6409 §8 lets a submission server add where it is not there in a valid form, takes out what
// must not leave, and puts our trace field on top. From here on the octets stay.
func (u *submission) complete() (*queue.Message, mail.Content) {
	id := mail.NewID(u.now)
	h := &u.header
	h.Remove("Bcc", "Resent-Bcc", "Return-Path")
	u.removeForgedResults(h)
	u.notes = append(u.notes, mail.EncodeText(h)...)
	var notes []string
	u.messageID, notes = mail.Complete(h, u.now, "<"+id+"@"+u.state.config.Hostname+">")
	u.notes = append(u.notes, notes...)
	h.Prepend(u.received(id, u.now.Format(mail.DateLayout)))
	content := completed(h.Bytes(), u.raw, u.body)
	return u.message(id, content), content
}

// removeForgedResults takes out Authentication-Results in our own name: only we may speak as ourselves
// (RFC 8601 §5).
func (u *submission) removeForgedResults(h *mail.Header) {
	h.Fields = slices.DeleteFunc(slices.Clone(h.Fields), func(f mail.Field) bool {
		if !f.Is("Authentication-Results") {
			return false
		}
		id, _, _ := strings.Cut(f.Value(), ";")
		return namesHost(id, u.state.config.Hostname)
	})
}

// namesHost reports whether a word of an authserv-id (RFC 8601 §2.2) is our name: there may be comments,
// quotes and a version around it, and readers differ in what they skip.
func namesHost(id, host string) bool {
	words := strings.FieldsFunc(id, func(r rune) bool { return strings.ContainsRune(" \t\"\\()", r) })
	return slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(strings.TrimSuffix(w, "."), host) })
}

// received is our trace field (RFC 5321 §4.4). With hide_client it has no from clause: the submitter's
// address is nobody's business, as in Postfix's smtpd_hide_client_session.
func (u *submission) received(id, date string) mail.Field {
	var b strings.Builder
	if !u.listener.HideClient {
		fmt.Fprintf(&b, "from %s (%s) ", heloWord(u.conn.Helo()), literal(u.conn.Client().Addr()))
	}
	fmt.Fprintf(&b, "by %s with %s id %s", u.state.config.Hostname, u.conn.Protocol(), id)
	if len(u.envelope.Recipients) == 1 {
		fmt.Fprintf(&b, " for %s", u.envelope.Recipients[0].To.Path())
	}
	fmt.Fprintf(&b, "; %s", date)
	return mail.NewField("Received", b.String())
}

// heloWord is what a client calls itself as one word of a trace field: whatever no name or address literal
// has becomes a question mark, so that it cannot write clauses, comments or 8-bit text of its own.
func heloWord(helo string) string {
	word := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("-._:[]", r):
			return r
		}
		return '?'
	}, mail.Cut(helo, 255))
	if word == "" {
		return "unknown"
	}
	return word
}

// message makes the queue's row of a completed message.
func (u *submission) message(id string, content mail.Content) *queue.Message {
	m := &queue.Message{
		ID:         id,
		Login:      u.identity.Login,
		Groups:     u.identity.Groups,
		Listener:   u.listener.Name,
		Session:    u.conn.ID(),
		Envelope:   u.envelope,
		Recipients: make([]queue.Recipient, len(u.envelope.Recipients)),
		Author:     u.author,
		MessageID:  mail.Printable(mail.Cut(u.messageID, 250)),
		Size:       content.Size(),
		EightBit:   u.eightBit,
		Received:   u.now,
		Expires:    u.now.Add(u.state.config.Delivery.Expire.Std()),

		NextAttempt: u.now,
		Held:        u.hold != "",
		HoldReason:  u.hold,
	}
	m.Envelope.Recipients = nil
	for i, r := range u.envelope.Recipients {
		m.Recipients[i] = queue.Recipient{Recipient: r, Status: queue.Pending}
	}
	return m
}

// accepted traces and logs that the client got its 250, and how.
func (u *submission) accepted(m *queue.Message, how string, reply mail.Reply, at time.Time) {
	u.srv.metrics.accepted.WithLabelValues(u.listener.Name, how).Inc()
	u.srv.metrics.acceptedBytes.WithLabelValues(u.listener.Name).Add(float64(m.Size))
	log, detail := u.log, how
	if len(u.notes) > 0 {
		changed := mail.Printable(mail.Cut(strings.Join(u.notes, "; "), 512))
		log, detail = log.With("changed", changed), how+"; "+changed
	}
	log.Info("accepted", "id", m.ID, "from", m.Envelope.From.String(), "rcpts", len(m.Recipients), "size", m.Size, "how", how, "message_id", m.MessageID)
	u.record(trace.Event{Time: at, Kind: trace.Accepted, ID: m.ID, From: m.Envelope.From.String(), Author: m.Author.String(), To: u.recipient(),
		MessageID: m.MessageID, Size: m.Size, Reply: reply, Detail: detail, Took: time.Since(u.now)})
}

// literal writes an address as the from clause of a trace field has it (RFC 5321 §4.1.3).
func literal(a netip.Addr) string {
	if a.Unmap().Is4() {
		return "[" + a.Unmap().String() + "]"
	}
	return "[IPv6:" + a.WithZone("").String() + "]"
}
