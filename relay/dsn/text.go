package dsn

import (
	"bytes"
	"fmt"
	"mime"
	"strings"

	"postern/mail"
)

// textPart is the part for people: what happened, to whom, in whose words, and what to do.
func (r Report) textPart(o original) part {
	w := textWriter{}
	w.paragraph("", "This is the mail relay "+r.ReportingMTA+".")
	w.blank()
	w.paragraph("", opening(r, o))
	for _, rcpt := range r.Recipients {
		w.recipient(r, rcpt)
	}
	w.blank()
	w.paragraph("", "Your administrator finds the message under the ID "+r.ID+".")
	if s := o.says(); s != "" {
		w.paragraph("", s)
	}
	return part{
		description: "What happened",
		contentType: "text/plain; charset=us-ascii",
		eightBit:    "text/plain; charset=utf-8",
		body:        w.b.Bytes(),
	}
}

func opening(r Report, o original) string {
	what := "Your message"
	if o.subject != "" {
		what += ` "` + o.subject + `"`
	}
	if !r.Arrival.IsZero() {
		what += " of " + date(r.Arrival)
	}
	switch r.Kind {
	case Failure:
		return what + " could not be delivered to:"
	case Delay:
		return what + " has not been delivered yet to:"
	case Unclear:
		return "It is not known whether " + strings.ToLower(what[:1]) + what[1:] + " was delivered to:"
	}
	return what + " was passed on for:"
}

type textWriter struct{ b bytes.Buffer }

func (w *textWriter) recipient(r Report, rcpt Recipient) {
	w.blank()
	w.paragraph("  ", rcpt.Final.Path())
	if original := rcpt.originalAddress(); original != "" {
		w.paragraph("    ", "(you wrote to "+original+")")
	}
	if !rcpt.Reply.IsZero() {
		if rcpt.RemoteMTA == "" {
			w.paragraph("    ", "The relay says:")
		} else {
			w.paragraph("    ", "The server "+rcpt.RemoteMTA+" said:")
		}
		for line := range strings.SplitSeq(replyText(rcpt.Reply), "\n") {
			w.paragraph("      ", line)
		}
	}
	if r.Kind == Failure && rcpt.Doubts > 0 {
		w.paragraph("    ", "The server did not say of an earlier attempt whether it took the message, "+
			"so it may have been delivered all the same.")
	}
	w.paragraph("    ", advice(r.Kind, rcpt))
}

// originalAddress returns the address of ORCPT if it differs from the final one.
func (r Recipient) originalAddress() string {
	_, address, ok := strings.Cut(r.ORcpt, ";")
	if !ok || strings.EqualFold(address, r.Final.String()) {
		return ""
	}
	return address
}

// replyText returns the reply with its line breaks.
func replyText(r mail.Reply) string {
	first, rest, more := strings.Cut(strings.ReplaceAll(r.Text, "\r\n", "\n"), "\n")
	text := mail.R(r.Code, r.Enhanced, "").String() + " " + first
	if more {
		text += "\n" + rest
	}
	return mail.Cut(text, maxText)
}

func (w *textWriter) blank() { w.b.WriteString("\r\n") }

// textWidth is the width of lines for people; words longer than maxWord are split.
const (
	textWidth = 72
	maxWord   = 900
)

// paragraph writes text, wrapped at textWidth. Unprintable characters become question marks.
func (w *textWriter) paragraph(indent, text string) {
	width := 0
	for _, word := range words(mail.Printable(text)) {
		switch {
		case width == 0:
			w.b.WriteString(indent)
			width = len(indent)
		case width+1+len(word) > textWidth:
			w.b.WriteString("\r\n" + indent)
			width = len(indent)
		default:
			w.b.WriteByte(' ')
			width++
		}
		w.b.WriteString(word)
		width += len(word)
	}
	w.b.WriteString("\r\n")
}

// words returns the words of a text, none longer than maxWord.
func words(text string) []string {
	var all []string
	for _, word := range strings.Fields(text) {
		for len(word) > maxWord {
			head := strings.TrimSuffix(mail.Cut(word, maxWord), "...")
			all = append(all, head)
			word = word[len(head):]
		}
		all = append(all, word)
	}
	return all
}

// advice says what the reader can do.
func advice(kind Kind, r Recipient) string {
	switch {
	case kind == Delay && r.WillRetryUntil.IsZero():
		return "It will be tried again. You need not do anything; do not send it again."
	case kind == Delay:
		return "It will be tried again until " + date(r.WillRetryUntil) +
			". You need not do anything; do not send it again."
	case kind == Unclear:
		return unclear(r.Doubts)
	case kind == Success:
		return "The server took the message. It sends no confirmations, " +
			"so this is the last you hear of it unless delivery fails."
	case r.Expired:
		return "It was tried again and again until its time was up. Send it again later, or ask your administrator."
	}
	if _, detail, ok := strings.Cut(status(kind, r), "."); ok {
		for _, a := range advices {
			if detail == a.status || strings.HasSuffix(a.status, ".") && strings.HasPrefix(detail, a.status) {
				return a.text
			}
		}
	}
	return "It will not be tried again. If the words above do not tell you what to change, ask your administrator."
}

// unclear says what is known about a message that may have been delivered, once or more often.
func unclear(doubts int) string {
	sent := "It was sent once, and the server did not say whether it has taken it. " +
		"The recipient may have got it, or not."
	if doubts > 1 {
		sent = fmt.Sprintf("It was sent %d times, and the server did not say whether it has taken it. "+
			"The recipient may have got it up to %d times, or not at all.", doubts, doubts)
	}
	return sent + " It will not be sent again. Ask the recipient before you send it again."
}

// advices are by subject and detail of the status code (RFC 3463 §3, RFC 7505, RFC 7372); the first match counts.
var advices = []struct{ status, text string }{
	{"1.1", "There is no such mailbox. Check the address for typing errors."},
	{"1.2", "There is no such domain. Check what stands behind the @ for typing errors."},
	{"1.3", "The address is not well-formed. Check it for typing errors."},
	{"1.6", "The mailbox has moved. Ask the recipient for the new address."},
	{"1.7", "Your own sender address was refused. Check it in the settings of your mail program."},
	{"1.8", "Your own sender address was refused. Check it in the settings of your mail program."},
	{"1.10", "This domain takes no mail. Check what stands behind the @ for typing errors."},
	{"1.", "Check the address for typing errors."},
	{"2.1", "The mailbox is switched off. Reach the recipient in another way."},
	{"2.2", "The mailbox is full. Reach the recipient in another way, or send it again later."},
	{"2.3", "The message is too large for this recipient. Send a smaller one, or a link to the file."},
	{"2.", "Something is wrong with the recipient's mailbox. Reach the recipient in another way."},
	{"3.4", "The message is too large. Send a smaller one, or a link to the file."},
	{"4.4", "No mail server was found for this domain. Check what stands behind the @ for typing errors."},
	{"4.6", "The message ran in a circle. Tell your administrator."},
	{"5.3", "There are too many recipients. Send it to fewer at a time."},
	{"6.7", "The server cannot take addresses with letters beyond ASCII. Use an ASCII address of the recipient."},
	{"6.", "The server cannot take this kind of content. Send it in a simpler form."},
	{"7.", "The server refused the message by its rules. The words above say which; " +
		"if they do not help, ask your administrator."},
}

// subjectText decodes the subject of the original for people.
func subjectText(value string) string {
	decoder := mime.WordDecoder{}
	decoded, err := decoder.DecodeHeader(value)
	if err != nil {
		decoded = value
	}
	return mail.Cut(strings.Join(strings.Fields(mail.Printable(decoded)), " "), 100)
}
