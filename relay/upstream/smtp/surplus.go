package smtp

import (
	"bytes"
	"strings"

	"postern/mail"
)

// surplus ends the use of a connection with more replies than commands. Behind the reply to the message the surplus
// says nothing of the message: it is a farewell (RFC 5321 §3.8) or a second reply to one dot. Where the message went in
// one flight with the commands, or did not go, replies may have been off by one: each taken for that of the next
// command.
func (x *transaction) surplus() {
	c := x.c
	c.broken = true
	if farewell(c.buffered()) {
		return
	}
	met := c.has(habitTalks)
	c.learn(habitTalks, wordsTalks)
	if x.inStep {
		return
	}
	f := c.trouble(mail.StageDot, errOutOfStep, "sent more replies than it was asked for")
	if x.fault == nil && x.accepted > 0 && doubtful(x.took, c.buffered()) {
		f.uncertain = true
		f.reply.Text += "; the message may have been taken"
		x.takeBack(f, func(c mail.Class) bool { return c == mail.Delivered })
	}
	if !met && c.messages > 0 { // else nothing can come late
		x.takeBack(f, mail.Class.Permanent)
	}
}

// takeBack replaces results, and the fault, by f where which accepts their class.
func (x *transaction) takeBack(f *fault, which func(mail.Class) bool) {
	if x.fault != nil && which(x.fault.class) || x.fault == nil && f.uncertain {
		x.fault, x.blame, x.offence = f, nil, nil
	}
	for _, i := range x.batch {
		if which(x.results[i].Class) {
			f.apply(&x.results[i])
			x.blame, x.offence = nil, nil
		}
	}
}

// farewell reports that b, which nobody asked for, begins with the goodbye of a server (RFC 5321 §3.8).
func farewell(b []byte) bool {
	return bytes.HasPrefix(b, []byte("421")) || bytes.HasPrefix(b, []byte("221"))
}

// refusalIn reports that among the replies in b, the last of which may be cut off, is one that refuses something.
func refusalIn(b []byte) bool {
	for line := range bytes.Lines(b) {
		if (line[0] == '4' || line[0] == '5') && !farewell(line) {
			return true
		}
	}
	return false
}

// doubtful reports whether a 2yz may answer another command than the message, going by what came after it.
func doubtful(r mail.Reply, behind []byte) bool {
	return ofAddress(r) || refusalIn(behind) && !ofMessage(r)
}

// ofAddress reports a reply that speaks of an address (RFC 3463 §3.2), as those to MAIL and RCPT do.
func ofAddress(r mail.Reply) bool { return len(r.Enhanced) > 3 && r.Enhanced[1:4] == ".1." }

// ofMessage reports a reply that speaks of a message.
func ofMessage(r mail.Reply) bool {
	if r.Enhanced != "" {
		return !ofAddress(r)
	}
	text := strings.ToLower(r.Text)
	for _, word := range []string{"queued", "stored", "taken", "delivered", "delivery", "message", "id=", "spooled"} {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}
