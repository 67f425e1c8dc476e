// Package dsn writes delivery status notifications (RFC 3461, RFC 3464, RFC 6522, RFC 6533): a pure function from
// what happened to the octets of a report. Whether a report is due, to whom it goes and that it is
// never about a null reverse-path is the queue's matter.
//
// Failure semantics: Make returns a whole report or an error. Nothing that an upstream or a client said
// can add a line, a field or a part to it. A report is always seven-bit text; only an address of its
// own reader that needs SMTPUTF8 (see NeedsUTF8) makes an exception. An original that cannot be read is
// an error, since what cannot be read now may be readable later.
package dsn

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"mime/quotedprintable"
	"strings"
	"time"

	"postern/mail"
)

// Kind is what a report tells. One report tells one kind.
type Kind string

// The kinds of reports.
const (
	Failure Kind = "failure" // given up: RFC 3464 Action failed
	Delay   Kind = "delay"   // still being tried: delayed
	Success Kind = "success" // taken by a server that sends no reports itself: relayed
	Unclear Kind = "unclear" // given up, and it is not known whether the upstream has it: delayed, see docs/decisions/0017
)

// action is the Action field of each kind (RFC 3464 §2.3.3). Success is "relayed": an upstream took
// the message and did not promise reports (RFC 3461 §5.2.2).
var action = map[Kind]string{Failure: "failed", Delay: "delayed", Success: "relayed", Unclear: "delayed"}

// Report is all that a report is made of.
type Report struct {
	Kind         Kind
	ReportingMTA string       // our host name
	From         mail.Address // postmaster of the relay: header author of the report
	To           mail.Address // reverse-path of the original, never null
	MessageID    string       // of the report, without angle brackets, unique
	Now          time.Time

	ID       string    // under which the operator finds the original
	EnvID    string    // ENVID, decoded; "" if absent
	Arrival  time.Time // when the original was accepted
	Ret      mail.Ret  // RET; full content is returned for failures only
	Original mail.Content

	Recipients []Recipient
}

// Recipient is one recipient that a report tells about.
type Recipient struct {
	Final mail.Address
	ORcpt string // "type;address" decoded; "" if absent
	// Reply is the last word on it, verbatim. RemoteMTA is the host that said it; "" where it is ours.
	Reply       mail.Reply
	RemoteMTA   string
	LastAttempt time.Time // zero: none was made
	// WillRetryUntil is when a delayed one will be given up.
	WillRetryUntil time.Time
	// Doubts are attempts of which it is not known whether the upstream took the message.
	Doubts int
	// Expired: a failure because time ran out; Reply is the last deferral.
	Expired bool
}

// MaxFull is the size in octets up to which RET=FULL returns the whole message. Beyond, and where the
// message is not seven-bit, a report returns its header.
const MaxFull = 128 << 10

var (
	errNullPath     = errors.New("a report about a message with a null reverse-path must not be sent")
	errNoRecipients = errors.New("a report needs recipients")
	errKind         = errors.New("unknown kind of report")
)

// Make writes a report. Equal arguments give equal octets.
func Make(r Report) ([]byte, error) {
	if r.To.IsNull() {
		return nil, errNullPath // RFC 3461 §6.1: it would be a DSN about a DSN
	}
	if len(r.Recipients) == 0 {
		return nil, errNoRecipients
	}
	if action[r.Kind] == "" {
		return nil, fmt.Errorf("%w %q", errKind, r.Kind)
	}
	original, err := readOriginal(r)
	if err != nil {
		return nil, fmt.Errorf("read the message that the report is about: %w", err)
	}
	global := r.global()
	parts := []part{r.textPart(original), r.statusPart(global)}
	if original.body != nil {
		parts = append(parts, original.part(global))
	}
	return r.assemble(parts, global), nil
}

// NeedsUTF8 reports whether the report must be sent with SMTPUTF8: its reader's address, or its author's, has no other form.
func (r Report) NeedsUTF8() bool {
	_, to := r.To.ASCII()
	_, from := r.From.ASCII()
	return !to || !from
}

// path is an address as it stands in the header: in ASCII where it can.
func path(a mail.Address) string {
	a, _ = a.ASCII()
	return a.Path()
}

// global reports whether the UTF-8 forms of RFC 6533 are needed to show the addresses.
func (r Report) global() bool {
	if r.NeedsUTF8() {
		return true
	}
	for _, rcpt := range r.Recipients {
		if rcpt.Final.NeedsUTF8() || !isASCII(rcpt.ORcpt) {
			return true
		}
	}
	return false
}

var subjects = map[Kind]string{
	Failure: "Undelivered: your message could not be delivered",
	Delay:   "Delayed: your message has not been delivered yet",
	Success: "Sent: your message was passed on",
	Unclear: "Unclear: your message may or may not have been delivered",
}

func (r Report) assemble(parts []part, global bool) []byte {
	reportType := "delivery-status" // RFC 6522 §3: the subtype of the second part
	if global {
		reportType = "global-delivery-status"
	}
	boundary := r.boundary(parts)
	var w strings.Builder
	field := func(name, value string) { w.Write(mail.NewField(name, value).Raw) }
	field("From", "Mail Delivery System "+path(r.From))
	field("To", path(r.To))
	field("Subject", subjects[r.Kind])
	field("Date", date(r.Now))
	field("Message-ID", "<"+oneLine(r.MessageID, false)+">")
	field("Auto-Submitted", "auto-replied") // RFC 3834 §5
	field("MIME-Version", "1.0")
	field("Content-Type", `multipart/report; report-type=`+reportType+`; boundary="`+boundary+`"`)
	w.WriteString("\r\nThis is a delivery report in several parts (RFC 3464).\r\n")
	for _, p := range parts {
		w.WriteString("\r\n--" + boundary + "\r\n")
		p.write(&w)
	}
	w.WriteString("\r\n--" + boundary + "--\r\n")
	return []byte(w.String())
}

// boundary returns a delimiter that occurs in no part.
func (r Report) boundary(parts []part) string {
	for n := 0; ; n++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", r.MessageID, r.Now.UnixNano(), n))
		boundary := "=_" + hex.EncodeToString(sum[:12]) // "=_" never stands in quoted-printable
		if !occurs(parts, boundary) {
			return boundary
		}
	}
}

func occurs(parts []part, boundary string) bool {
	for _, p := range parts {
		if strings.Contains(string(p.body), boundary) {
			return true
		}
	}
	return false
}

// part is one body part, its content not yet encoded.
type part struct {
	contentType string // for seven-bit content
	eightBit    string // for other content, which is encoded as quoted-printable
	description string
	body        []byte
}

func (p part) write(w *strings.Builder) {
	contentType, encode := p.contentType, !isASCII(string(p.body))
	if encode {
		contentType = p.eightBit
	}
	w.Write(mail.NewField("Content-Description", p.description).Raw)
	w.Write(mail.NewField("Content-Type", contentType).Raw)
	if !encode {
		w.WriteString("\r\n")
		w.Write(p.body)
		return
	}
	w.WriteString("Content-Transfer-Encoding: quoted-printable\r\n\r\n")
	qp := quotedprintable.NewWriter(w)
	qp.Write(p.body) // a strings.Builder does not fail
	qp.Close()
}

// date writes a date-time of RFC 5322 §3.3.
func date(t time.Time) string { return t.Format("Mon, 02 Jan 2006 15:04:05 -0700") }

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] > 0x7f {
			return false
		}
	}
	return true
}

// maxText is how much of any text from outside a report repeats, in octets.
const maxText = 2000

// oneLine makes text from outside fit for a field: printable, one line, bounded, and ASCII unless the
// report has the UTF-8 form.
func oneLine(s string, global bool) string {
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", " "), "\n", " ")
	s = mail.Cut(mail.Printable(s), maxText)
	if global {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r > '~' {
			return '?'
		}
		return r
	}, s)
}
