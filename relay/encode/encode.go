// Package encode makes a message with overlong lines fit for SMTP (RFC 5321 §4.5.3.1.6: 998 octets and CRLF) without
// changing what a reader shows: it re-encodes the parts with such lines; everything else keeps its octets.
//
// An unencoded part becomes quoted-printable; a quoted-printable part gets soft line breaks; a base64 part is wrapped;
// long header fields of a part are folded. It never touches what a signature may cover (multipart/signed,
// multipart/encrypted, S/MIME), nor what readers may parse differently: a long line there refuses the message, and the
// reply names the line.
//
// Failure semantics: a message is read twice, first to plan the changes, so that nothing is written for one that is
// refused. Memory is bounded whatever the message. A *mail.Error of 550 5.6.0 refuses the message; any other error is
// about reading or writing.
package encode

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"postern/mail"
)

// Message is a message after wire and mail.ReadHeader: every line ends with CRLF.
type Message struct {
	Header  mail.Header
	Content mail.Content
	Body    int64 // where the body begins in Content
	Line    int64 // number of the body's first line
}

// Plan is what has to change in a message.
type Plan struct {
	message  Message
	actions  map[int]action // by number of the part, for those that change
	changed  bool
	charset  string // of a message without Content-Type
	first    int64  // number of the first long line
	counts   [numActions]int
	eightBit bool // the written body has octets above 0x7f
}

// action is what happens to a part.
type action uint8

const (
	keep    action = iota
	quote          // encode as quoted-printable
	requote        // fold quoted-printable
	rewrap         // wrap base64
	numActions
)

// maxActions bounds the parts that change.
const maxActions = 1000

// NewPlan reads a message and plans its changes, perhaps none.
func NewPlan(m Message) (*Plan, error) {
	p := &Plan{message: m, actions: make(map[int]action)}
	if err := p.walk(&planner{plan: p}); err != nil {
		return nil, err
	}
	return p, nil
}

// Empty reports whether the body can stay as it is.
func (p *Plan) Empty() bool { return !p.changed }

// Header is the message's header with the fields for the new body.
func (p *Plan) Header() mail.Header {
	h := p.message.Header
	if p.actions[0] != quote {
		return h
	}
	if !h.Has("Content-Type") {
		h.Append(mail.NewField("Content-Type", "text/plain; charset="+p.charset))
	}
	setQuoted(&h)
	return h
}

// didWhat says what each action did to parts.
var didWhat = [numActions]string{
	quote:   "re-encoded as quoted-printable",
	requote: "folded, being quoted-printable",
	rewrap:  "wrapped, being base64",
}

// Note says what was done, for log and trace.
func (p *Plan) Note() string {
	var done []string
	for a, what := range didWhat {
		switch n := p.counts[a]; n {
		case 0:
		case 1:
			done = append(done, "1 part "+what)
		default:
			done = append(done, fmt.Sprintf("%d parts %s", n, what))
		}
	}
	if len(done) == 0 {
		done = append(done, "folded, outside the text of any part")
	}
	return fmt.Sprintf("lines over %d octets from line %d on: %s", mail.MaxLine, p.first, strings.Join(done, ", "))
}

// Write writes the new body.
func (p *Plan) Write(w io.Writer) error {
	out := &output{w: bufio.NewWriterSize(w, pieceSize)}
	if err := p.walk(&rewriter{plan: p, out: out}); err != nil {
		return err
	}
	p.eightBit = out.eightBit
	return out.flush()
}

// EightBit reports whether the written body has octets above 0x7f.
func (p *Plan) EightBit() bool { return p.eightBit }

func (p *Plan) walk(v visitor) error {
	r, err := p.message.Content.Open()
	if err != nil {
		return fmt.Errorf("open the message: %w", err)
	}
	defer r.Close()
	if err := skip(r, p.message.Body); err != nil {
		return fmt.Errorf("read the message: %w", err)
	}
	return walk(r, p.message.Header, p.message.Line, v)
}

func skip(r io.Reader, n int64) error {
	if s, ok := r.(io.Seeker); ok {
		_, err := s.Seek(n, io.SeekStart)
		return err
	}
	if got, err := io.CopyN(io.Discard, r, n); err != nil && got < n {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// refuse says which line is too long, and why it cannot be mended.
func refuse(line int64, head []byte, format string, args ...any) error {
	return mail.Refuse(mail.R(550, "5.6.0", "%s has more than %d octets and cannot be re-encoded: %s",
		mail.NameLine(line, head), mail.MaxLine, fmt.Sprintf(format, args...)), nil)
}
