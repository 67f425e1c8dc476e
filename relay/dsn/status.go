package dsn

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"postern/mail"
)

// statusPart is the part for machines (RFC 3464 §2).
func (r Report) statusPart(global bool) part {
	w := statusWriter{global: global}
	w.field("Reporting-MTA", "dns; "+r.ReportingMTA)
	w.field("X-Postern-ID", r.ID)
	w.field("Original-Envelope-Id", r.EnvID) // RFC 3461 §6.3(a): decoded
	w.date("Arrival-Date", r.Arrival)
	for _, rcpt := range r.Recipients {
		w.recipient(r.Kind, rcpt)
	}
	p := part{description: "Delivery report", contentType: "message/delivery-status", body: w.b.Bytes()}
	p.eightBit = p.contentType
	if global {
		// RFC 6533 §4. Encoded, since servers on the way may lack 8BITMIME.
		p.contentType, p.eightBit = "message/global-delivery-status", "message/global-delivery-status"
	}
	return p
}

type statusWriter struct {
	b      bytes.Buffer
	global bool
}

func (w *statusWriter) recipient(kind Kind, r Recipient) {
	w.b.WriteString("\r\n")
	if addressType, address, ok := strings.Cut(r.ORcpt, ";"); ok {
		w.field("Original-Recipient", addressType+"; "+address)
	}
	addressType := "rfc822; "
	if r.Final.NeedsUTF8() {
		addressType = "utf-8; "
	}
	w.field("Final-Recipient", addressType+r.Final.String())
	w.field("Action", action[kind])
	w.field("Status", status(kind, r))
	if r.RemoteMTA != "" {
		w.field("Remote-MTA", "dns; "+r.RemoteMTA)
	}
	if !r.Reply.IsZero() {
		diagnostic := "smtp; "
		if r.RemoteMTA == "" {
			diagnostic = "x-postern; " // RFC 3464 §2.3.6: smtp is for replies of the remote MTA
		}
		w.field("Diagnostic-Code", diagnostic+r.Reply.String())
	}
	w.date("Last-Attempt-Date", r.LastAttempt)
	if kind == Delay {
		w.date("Will-Retry-Until", r.WillRetryUntil)
	}
}

// field writes a field unless its value is empty.
func (w *statusWriter) field(name, value string) {
	if value != "" {
		w.b.Write(mail.NewField(name, oneLine(value, w.global)).Raw)
	}
}

func (w *statusWriter) date(name string, t time.Time) {
	if !t.IsZero() {
		w.field(name, date(t))
	}
}

// status returns the Status field (RFC 3464 §2.3.4): the upstream's code if its class fits the kind, else the plainest
// code of that class.
func status(kind Kind, r Recipient) string {
	class := map[Kind]byte{Failure: '5', Delay: '4', Success: '2', Unclear: '4'}[kind]
	if kind == Failure && r.Expired {
		return "5.4.7" // RFC 3463 §3.5: delivery time expired
	}
	if e := r.Reply.Enhanced; validStatus(e) && e[0] == class {
		return e
	}
	return string(class) + ".0.0"
}

// validStatus checks the form of RFC 3463 §2: class.subject.detail.
func validStatus(s string) bool {
	numbers := strings.Split(s, ".")
	if len(numbers) != 3 || len(numbers[0]) != 1 {
		return false
	}
	for _, n := range numbers {
		if v, err := strconv.ParseUint(n, 10, 16); err != nil || v > 999 || len(n) > 3 {
			return false
		}
	}
	return true
}
