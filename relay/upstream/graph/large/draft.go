package large

import (
	"fmt"
	netmail "net/mail"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"postern/mail"
)

// Draft is a message for some recipients as Graph has it (learn.microsoft.com, message resource type).
type (
	Draft struct {
		b    *Rebuilt
		left []string // header fields that have no place in it

		Subject     string       `json:"subject"`
		Body        draftBody    `json:"body"`
		From        *person      `json:"from,omitempty"`
		Sender      *person      `json:"sender,omitempty"`
		To          []person     `json:"toRecipients"`
		Cc          []person     `json:"ccRecipients"`
		Bcc         []person     `json:"bccRecipients"`
		ReplyTo     []person     `json:"replyTo,omitempty"`
		Importance  string       `json:"importance,omitempty"`
		MessageID   string       `json:"internetMessageId,omitempty"`
		ReadReceipt bool         `json:"isReadReceiptRequested,omitempty"`
		Headers     []draftField `json:"internetMessageHeaders,omitempty"`
	}
	draftBody struct {
		ContentType string `json:"contentType"`
		Content     string `json:"content"`
	}
	person struct {
		Email emailAddress `json:"emailAddress"`
	}
	emailAddress struct {
		Name    string `json:"name,omitempty"`
		Address string `json:"address"`
	}
	draftField struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
)

// maxOwnFields: Graph answers InvalidInternetMessageHeaderCollection, "Maximum number of headers in one message should
// be less than or equal to 5" (learn.microsoft.com/answers/questions/762243).
const maxOwnFields = 5

// maxOwnValue bounds the value of one, in octets: what fits a line (RFC 5322 §2.1.1).
const maxOwnValue = 900

// Recipient is one of the envelope.
type Recipient struct {
	To    mail.Address
	Blind bool // the header does not name him
}

// Draft makes the draft for some recipients. Every one of them is in exactly one of its lists, and nobody else.
func (b *Rebuilt) Draft(to []Recipient) (*Draft, error) {
	h := b.m.Header
	d := &Draft{b: b, Body: draftBody{"text", b.text}, To: []person{}, Cc: []person{}, Bcc: []person{}}
	if b.html {
		d.Body.ContentType = "html"
	}
	from, err := b.m.people(h.Get("From"))
	if err != nil || len(from) != 1 || h.Count("From") != 1 {
		return nil, refuse("5.6.0", "its From is not one address")
	}
	d.From = &from[0]
	d.address(to)
	return d, d.fields(h)
}

// address sorts the recipients: whom To and Cc name stands there with his name, the others are blind.
func (d *Draft) address(recipients []Recipient) {
	m := d.b.m
	to, cc := m.named("To"), m.named("Cc")
	for _, r := range recipients {
		p := person{emailAddress{Address: r.To.String()}}
		inTo, isTo := to[m.Key(r.To)]
		inCc := cc[m.Key(r.To)]
		switch {
		case r.Blind:
			d.Bcc = append(d.Bcc, p)
		case isTo:
			p.Email.Name = inTo
			d.To = append(d.To, p)
		default: // who is not blind is in one of the two
			p.Email.Name = inCc
			d.Cc = append(d.Cc, p)
		}
	}
}

// named are the addresses of a field, with their names where the field is well formed.
func (m *Message) named(field string) map[string]string {
	found := make(map[string]string)
	if m.Header.Count(field) != 1 {
		return found
	}
	value := m.Header.Get(field)
	sure, _ := m.Addresses(value)
	for _, a := range sure {
		found[m.Key(a)] = ""
	}
	list, _ := m.people(value)
	for _, p := range list {
		a, err := mail.ParseAddress(p.Email.Address)
		if err != nil {
			continue
		}
		if _, is := found[m.Key(a)]; is && !strings.Contains(p.Email.Name, "@") {
			found[m.Key(a)] = p.Email.Name
		}
	}
	return found
}

// people reads an address list. One that is not well formed is read as header and envelope are compared, without names,
// if nothing in it is doubtful.
func (m *Message) people(value string) ([]person, error) {
	if value == "" {
		return nil, nil
	}
	if !utf8.ValidString(value) {
		value, _ = toUTF8("", []byte(value))
	}
	parser := netmail.AddressParser{WordDecoder: &words}
	list, err := parser.ParseList(value)
	if err != nil {
		sure, clear := m.Addresses(value)
		if !clear || len(sure) == 0 {
			return nil, err
		}
		all := make([]person, len(sure))
		for i, a := range sure {
			all[i].Email.Address = a.String()
		}
		return all, nil
	}
	all := make([]person, len(list))
	for i, a := range list {
		all[i] = person{emailAddress{Name: oneLine(strings.ToValidUTF8(a.Name, "\uFFFD")), Address: a.Address}}
	}
	return all, nil
}

// oneLine blanks out controls, line ends among them, which encoded words can hide: Exchange makes a header of the text.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// withoutLoss are fields that Exchange writes itself, or that are about the MIME that is taken apart.
var withoutLoss = []string{
	"Subject", "From", "To", "Cc", "Bcc", "Date", "Received", "Return-Path", "MIME-Version", "Content-Type",
	"Content-Transfer-Encoding", "Content-Disposition", "Content-ID", "Content-Description", "Content-Language",
	"Thread-Index", "Thread-Topic", "User-Agent",
}

// fields takes over what the draft has room for, and notes the names of the rest.
func (d *Draft) fields(h mail.Header) error {
	d.Subject = oneLine(decodeWords(h.Get("Subject")))
	if isAutomatic(h) && !h.Has(suppressField) {
		d.Headers = append(d.Headers, draftField{suppressField, "All"})
	}
	for _, f := range h.Fields {
		value := f.Value()
		switch {
		case slices.ContainsFunc(withoutLoss, f.Is):
		case f.Is("Message-ID"):
			d.MessageID = value
		case f.Is("Sender"):
			list, err := d.b.m.people(value)
			if err != nil || len(list) != 1 {
				return refuse("5.6.0", "its Sender is not one address")
			}
			d.Sender = &list[0]
		case f.Is("Reply-To"):
			list, err := d.b.m.people(value)
			if err != nil {
				return refuse("5.6.0", "its Reply-To cannot be read")
			}
			d.ReplyTo = append(d.ReplyTo, list...)
		case f.Is("Importance"), f.Is("X-Priority"), f.Is("X-MSMail-Priority"), f.Is("Priority"):
			d.importance(value)
		case f.Is("Disposition-Notification-To") && d.asksAuthor(value):
			d.ReadReceipt = true
		case !d.own(f.Name, value):
			d.leave(mail.Printable(f.Name))
		}
	}
	return nil
}

// leave notes a field that is left out, once.
func (d *Draft) leave(name string) {
	if !slices.ContainsFunc(d.left, func(l string) bool { return strings.EqualFold(l, name) }) {
		d.left = append(d.left, name)
	}
}

// importance reads the words and numbers that programs write. The first that is not normal decides.
func (d *Draft) importance(value string) {
	if d.Importance != "" {
		return
	}
	switch word, _, _ := strings.Cut(strings.ToLower(value), " "); word {
	case "high", "urgent", "1", "2":
		d.Importance = "high"
	case "low", "non-urgent", "4", "5":
		d.Importance = "low"
	}
}

func (d *Draft) asksAuthor(value string) bool {
	list, err := d.b.m.people(value)
	return err == nil && len(list) == 1 && strings.EqualFold(list[0].Email.Address, d.From.Email.Address)
}

// own takes over a field that begins with X-, of which Graph takes a few. Exchange keeps those of its own for itself.
func (d *Draft) own(name, value string) bool {
	lower := strings.ToLower(name)
	if !strings.HasPrefix(lower, "x-") || strings.HasPrefix(lower, "x-ms-") || len(d.Headers) == maxOwnFields ||
		value == "" || len(value) > maxOwnValue {
		return false
	}
	if strings.IndexFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
		return false
	}
	if slices.ContainsFunc(d.Headers, func(f draftField) bool { return strings.EqualFold(f.Name, name) }) {
		return false
	}
	d.Headers = append(d.Headers, draftField{name, value})
	return true
}

// maxNamed bounds how many fields a note names.
const maxNamed = 8

// Note says for the trace what became of the message.
func (d *Draft) Note() string {
	text := fmt.Sprintf("the message was too large for one request, so it was rebuilt (large_mail): its text, and "+
		"%d files by upload", len(d.b.order))
	if len(d.left) == 0 {
		return text
	}
	left, more := d.left, ""
	if n := len(left) - maxNamed; n > 0 {
		left, more = left[:maxNamed], fmt.Sprintf(" and %d more", n)
	}
	return text + "; Graph has no place for its fields " + mail.Cut(strings.Join(left, ", "), 400) + more
}
