// Package dsn writes delivery status notifications (RFC 3461, RFC 3464, RFC 6522, RFC 6533): a pure function from an
// outcome to the octets of a report. The queue decides whether a report is due and to whom it goes.
//
// Failure semantics: Make returns a whole report or an error. Nothing from an upstream or a client can add a line, a
// field or a part to it. A report is 7-bit text, except for addresses in its own header that need SMTPUTF8 (see
// NeedsUTF8). An original that cannot be read is an error, since it may be readable later.
package dsn

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"mime/quotedprintable"
	"slices"
	"strings"
	"time"

	"postern/mail"
)

// Kind is what a report is about.
type Kind string

// The kinds of reports.
const (
	Failure Kind = "failure" // given up
	Delay   Kind = "delay"   // still being tried
	Success Kind = "success" // taken by a server that sends no reports itself
	Unclear Kind = "unclear" // given up without knowing whether the upstream has it: docs/decisions/0017
)

// action is the Action field of each kind (RFC 3464 §2.3.3). Success is "relayed": an upstream took the message and did
// not promise reports (RFC 3461 §5.2.2).
var action = map[Kind]string{Failure: "failed", Delay: "delayed", Success: "relayed", Unclear: "delayed"}

// Report is the content of a report.
type Report struct {
	Kind         Kind
	ReportingMTA string       // our host name
	From         mail.Address // the report's header author: postmaster of the relay
	To           mail.Address // reverse-path of the original, never null
	MessageID    string       // of the report, without angle brackets, unique
	Now          time.Time

	ID       string    // identifies the original to the operator
	EnvID    string    // ENVID, decoded; "" if absent
	Arrival  time.Time // when the original was accepted
	Ret      mail.Ret  // RET; only failures return the full content
	Original mail.Content

	Recipients []Recipient
}

// Recipient is one recipient that a report is about.
type Recipient struct {
	Final mail.Address
	ORcpt string // "type;address" decoded; "" if absent
	// Reply is the last reply, verbatim. RemoteMTA is the host that sent it; "" if it is ours.
	Reply       mail.Reply
	RemoteMTA   string
	LastAttempt time.Time // zero: none was made
	// WillRetryUntil is when a delayed message will be given up.
	WillRetryUntil time.Time
	// Doubts counts the attempts after which the upstream may or may not have the message.
	Doubts int
	// Expired says that time ran out; Reply is the last deferral.
	Expired bool
}

// MaxFull is the size in octets up to which RET=FULL returns the whole message. For larger messages, and those that are
// not 7-bit, a report returns the header.
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

// NeedsUTF8 reports whether the report must be sent with SMTPUTF8, because From or To has no ASCII form.
func (r Report) NeedsUTF8() bool {
	_, to := r.To.ASCII()
	_, from := r.From.ASCII()
	return !to || !from
}

// path is an address for the header, in ASCII if possible.
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
		if rcpt.Final.NeedsUTF8() || !mail.IsASCII(rcpt.ORcpt) {
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
		boundary := "=_" + hex.EncodeToString(sum[:12]) // "=_" never occurs in quoted-printable
		if !occurs(parts, boundary) {
			return boundary
		}
	}
}

func occurs(parts []part, boundary string) bool {
	return slices.ContainsFunc(parts, func(p part) bool { return strings.Contains(string(p.body), boundary) })
}

// part is one body part before encoding.
type part struct {
	contentType string // for 7-bit content
	eightBit    string // for other content, which becomes quoted-printable
	description string
	body        []byte
}

func (p part) write(w *strings.Builder) {
	contentType, encode := p.contentType, !mail.IsASCII(string(p.body))
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

func date(t time.Time) string { return t.Format(mail.DateLayout) }

// maxText bounds an outside text in a report, in octets.
const maxText = 2000

// oneLine makes an outside text fit for a field: printable, one line, bounded, and ASCII unless the report is global.
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
