package wire

import (
	"encoding/base64"
	"strconv"
	"strings"
	"sync"
	"time"

	"postern/mail"
)

// maxUnsent bounds the replies that wait for the end of a pipelined batch, in octets.
const maxUnsent = 8 << 10

var replyBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// send queues a reply. Queued replies leave together before the next wait for input.
func (c *Conn) send(r mail.Reply) {
	c.appendOut(func(b []byte) []byte { return appendReply(b, r) })
}

// sendChallenge queues a SASL challenge, which may not be folded (RFC 4954 §4).
func (c *Conn) sendChallenge(challenge []byte) {
	c.appendOut(func(b []byte) []byte {
		b = append(b, "334 "...)
		b = base64.StdEncoding.AppendEncode(b, challenge)
		return append(b, '\r', '\n')
	})
}

func (c *Conn) appendOut(add func([]byte) []byte) {
	if c.out == nil {
		c.out = replyBuffers.Get().(*[]byte)
	}
	*c.out = add(*c.out)
	if len(*c.out) >= maxUnsent {
		c.flush()
	}
}

// flush writes the queued replies. Once it has failed it always fails.
func (c *Conn) flush() error {
	if c.out == nil || c.lost != nil {
		return c.lost
	}
	c.stream.SetWriteDeadline(time.Now().Add(c.opt.writeTimeout()))
	if _, err := c.stream.Write(*c.out); err != nil {
		c.lost = errGone // also if the client does not read: it cannot be told anything
	}
	if cap(*c.out) <= 2*maxUnsent {
		*c.out = (*c.out)[:0]
		replyBuffers.Put(c.out)
	}
	c.out = nil
	return c.lost
}

// appendReply appends a reply in its wire form. Most are one short line of ASCII.
func appendReply(b []byte, r mail.Reply) []byte {
	if !plainLine(r.Text) {
		return append(b, r.Wire()...)
	}
	b = strconv.AppendInt(b, int64(r.Code), 10)
	b = append(b, ' ')
	if r.Enhanced != "" {
		b = append(append(b, r.Enhanced...), ' ')
	}
	return append(append(b, r.Text...), '\r', '\n')
}

func plainLine(s string) bool {
	return len(s) <= 400 && strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}
