package mail

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Reply is an SMTP reply (RFC 5321 §4.2) with its enhanced status code (RFC 3463).
type Reply struct {
	Code     int    `json:"code"`               // 200 to 599; 0 in the zero Reply
	Enhanced string `json:"enhanced,omitempty"` // "5.7.1"; empty if there is none, as in 220, 354 and EHLO
	Text     string `json:"text"`               // lines separated by \n, without code and enhanced status code
}

// R makes a Reply. Callers quote outside values with %q.
func R(code int, enhanced, format string, args ...any) Reply {
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	return Reply{Code: code, Enhanced: enhanced, Text: format}
}

// IsZero reports whether there is no reply.
func (r Reply) IsZero() bool { return r.Code == 0 }

// OK reports whether r is a 2yz or 3yz reply.
func (r Reply) OK() bool { return r.Code >= 200 && r.Code < 400 }

// Temporary reports whether r is a 4yz reply.
func (r Reply) Temporary() bool { return r.Code/100 == 4 }

// Permanent reports whether r is a 5yz reply.
func (r Reply) Permanent() bool { return r.Code/100 == 5 }

// String returns the reply on one line, for logs and traces.
func (r Reply) String() string {
	if r.IsZero() {
		return ""
	}
	s := strconv.Itoa(r.Code)
	if r.Enhanced != "" {
		s += " " + r.Enhanced
	}
	if r.Text != "" {
		s += " " + strings.ReplaceAll(r.Text, "\n", " ")
	}
	return s
}

// replyLine is the longest text on one reply line: 512 octets with code, enhanced status code and CRLF (RFC 5321
// §4.5.3.1.5).
const replyLine = 480

// Wire returns the reply in wire form, every line with code and enhanced status code. Unprintable characters become
// question marks, so that no text can forge a line; long lines are split.
func (r Reply) Wire() []byte {
	var lines []string
	for line := range strings.SplitSeq(r.Text, "\n") {
		line = Printable(strings.TrimSuffix(line, "\r"))
		for len(line) > replyLine {
			cut := strings.LastIndexByte(line[:replyLine], ' ')
			if cut <= 0 {
				cut = runeBoundary(line, replyLine)
			}
			lines = append(lines, line[:cut])
			line = strings.TrimPrefix(line[cut:], " ")
		}
		lines = append(lines, line)
	}
	enhanced := Printable(r.Enhanced)
	b := make([]byte, 0, len(r.Text)+len(lines)*14)
	for i, line := range lines {
		b = strconv.AppendInt(b, int64(r.Code), 10)
		if i < len(lines)-1 {
			b = append(b, '-')
		} else {
			b = append(b, ' ')
		}
		if enhanced != "" {
			b = append(append(b, enhanced...), ' ')
		}
		b = append(append(b, line...), '\r', '\n')
	}
	return b
}

// Error is an error with a reply for the client. Err is for logs and traces and never appears in replies.
type Error struct {
	Reply Reply
	Err   error
}

// Refuse returns an Error. err may be nil.
func Refuse(reply Reply, err error) *Error { return &Error{Reply: reply, Err: err} }

func (e *Error) Error() string {
	if e.Err == nil {
		return e.Reply.String()
	}
	return e.Reply.String() + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// ReplyFor finds the reply that err carries, if any.
func ReplyFor(err error) (Reply, bool) {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reply, true
	}
	return Reply{}, false
}

// Reason is the inward side of an error for the trace and the log: what is in the innermost Error, or the error itself.
func Reason(err error) string {
	for err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return Printable(Cut(err.Error(), 512))
		}
		err = e.Err
	}
	return ""
}
