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
func (s *stream) send(r mail.Reply) {
	s.appendOut(func(b []byte) []byte { return appendReply(b, r) })
}

// sendChallenge queues a SASL challenge, which may not be folded (RFC 4954 §4).
func (s *stream) sendChallenge(challenge []byte) {
	s.appendOut(func(b []byte) []byte {
		b = append(b, "334 "...)
		b = base64.StdEncoding.AppendEncode(b, challenge)
		return append(b, '\r', '\n')
	})
}

func (s *stream) appendOut(add func([]byte) []byte) {
	if s.out == nil {
		s.out = replyBuffers.Get().(*[]byte)
	}
	*s.out = add(*s.out)
	if len(*s.out) >= maxUnsent {
		s.flush()
	}
}

// flush writes the queued replies. Once it has failed it always fails.
func (s *stream) flush() error {
	if s.out == nil || s.lost != nil {
		return s.lost
	}
	s.conn.SetWriteDeadline(time.Now().Add(s.writeTimeout()))
	if _, err := s.conn.Write(*s.out); err != nil {
		s.lost = errGone // also if the client does not read: it cannot be told anything
	}
	if cap(*s.out) <= 2*maxUnsent {
		*s.out = (*s.out)[:0]
		replyBuffers.Put(s.out)
	}
	s.out = nil
	return s.lost
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
