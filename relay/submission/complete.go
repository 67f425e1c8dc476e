package submission

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/spool"
)

// complete adds what RFC 6409 §8 lets a submission server add where it is not there in a valid form, takes out what
// must not leave, and puts our trace field on top. From here on the octets stay.
func (u *submission) complete() {
	id := mail.NewID(u.now)
	h := &u.header
	if u.session.listener.IsAppliance() {
		u.notes = append(u.notes, deviceNotes(*h)...)
	}
	h.Remove("Bcc", "Resent-Bcc", "Return-Path")
	removeForgedResults(h, u.session.settings.Hostname)
	u.notes = append(u.notes, mail.EncodeText(h)...)
	var notes []string
	u.messageID, notes = mail.Complete(h, u.now, "<"+id+"@"+u.session.settings.Hostname+">")
	u.notes = append(u.notes, notes...)
	h.Prepend(u.received(id, u.now.Format(mail.DateLayout)))
	u.content = completed(h.Bytes(), u.raw, u.body)
	u.message = u.queued(id)
}

// removeForgedResults takes out Authentication-Results in our own name: only we may speak as ourselves
// (RFC 8601 §5).
func removeForgedResults(h *mail.Header, hostname string) {
	h.Fields = slices.DeleteFunc(slices.Clone(h.Fields), func(f mail.Field) bool {
		if !f.Is("Authentication-Results") {
			return false
		}
		id, _, _ := strings.Cut(f.Value(), ";")
		return namesHost(id, hostname)
	})
}

// namesHost reports whether a word of an authserv-id (RFC 8601 §2.2) is our name: there may be comments,
// quotes and a version around it, and readers differ in what they skip.
func namesHost(id, host string) bool {
	words := strings.FieldsFunc(id, func(r rune) bool { return strings.ContainsRune(" \t\"\\()", r) })
	return slices.ContainsFunc(words, func(w string) bool {
		return strings.EqualFold(strings.TrimSuffix(w, "."), host)
	})
}

// received is our trace field (RFC 5321 §4.4). With hide_client it has no from clause: the submitter's
// address is nobody's business, as in Postfix's smtpd_hide_client_session.
func (u *submission) received(id, date string) mail.Field {
	var b strings.Builder
	if !u.session.listener.HideClient {
		fmt.Fprintf(&b, "from %s (%s) ", heloWord(u.session.conn.Helo()), literal(u.session.conn.Client().Addr()))
	}
	fmt.Fprintf(&b, "by %s with %s id %s", u.session.settings.Hostname, u.session.conn.Protocol(), id)
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

// literal writes an address as the from clause of a trace field has it (RFC 5321 §4.1.3).
func literal(a netip.Addr) string {
	if a.Unmap().Is4() {
		return "[" + a.Unmap().String() + "]"
	}
	return "[IPv6:" + a.WithZone("").String() + "]"
}

// queued is the completed message as the queue has it.
func (u *submission) queued(id string) *queue.Message {
	m := &queue.Message{
		ID:         id,
		Login:      u.session.identity.Login,
		Groups:     u.session.identity.Groups,
		Listener:   u.session.listener.Name,
		Session:    u.session.conn.ID(),
		Envelope:   u.envelope,
		Recipients: make([]queue.Recipient, len(u.envelope.Recipients)),
		Author:     u.author,
		MessageID:  mail.Printable(mail.Cut(u.messageID, 250)),
		Size:       u.content.Size(),
		EightBit:   u.eightBit,
		Received:   u.now,
		Expires:    u.now.Add(u.session.settings.Expire),

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

// maxPiece is the size up to which a completed message is copied into one piece of memory, in octets:
// every reader behind us (signature, store, upstream) is then spared a copy of its own.
const maxPiece = 2 << 20

// completed joins our header and the client's body. The result is in one piece where memory holds the
// message anyway.
func completed(header []byte, raw mail.Content, body int) mail.Content {
	joined := spool.Join(header, raw, int64(body))
	if joined.Bytes() != nil || raw.Bytes() == nil || joined.Size() > maxPiece {
		return joined
	}
	whole := make([]byte, 0, joined.Size())
	whole = append(whole, header...)
	return mail.BytesContent(append(whole, raw.Bytes()[body:]...))
}
