package graph

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	netmail "net/mail"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"postern/mail"
)

// Bounds of what Graph takes of a message in pieces.
const (
	// maxText is in octets of UTF-8: text and envelope share one request of 4 MB.
	maxText = 2_000_000
	// maxFiles of one message (learn.microsoft.com, Exchange Online limits, message limits).
	maxFiles = 250
	// maxFile is the largest file of an upload session, in octets (learn.microsoft.com, attachment: createUploadSession).
	maxFile = 150_000_000
	// maxFileName keeps within what Windows and Exchange store, in octets.
	maxFileName = 240
)

// file is one attachment of a rebuilt message.
type file struct {
	name, media, cid string
	inline           bool
	size             int64
}

// rebuilt is a message taken apart into what Graph makes one of.
type rebuilt struct {
	text  string // in UTF-8
	html  bool
	files map[int]*file // by entity.number
	order []int         // the keys of files, ascending

	body []*entity // where text comes from
}

// rebuild judges a message that is too large for one request and takes it apart, all but the content of its files.
func (m *message) rebuild() (*rebuilt, *fault) {
	b := &rebuilt{files: make(map[int]*file)}
	var leaves []*entity
	top, err := m.measure(func(e *entity, decoded io.Reader) error {
		leaves = append(leaves, e)
		e.blank = strings.HasPrefix(e.media, "text/") && isBlank(decoded)
		return nil
	})
	if err == nil {
		err = faithful(m.header, top)
	}
	if err == nil {
		err = b.collect(top, true)
	}
	if err == nil {
		err = b.read(m)
	}
	if err == nil {
		err = b.settle(leaves)
	}
	return b, rebuildFault(err)
}

// rebuildFault gives a refusal to the sender of the message. Nothing was asked of Graph.
func rebuildFault(err error) *fault {
	var r *refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &r):
		return messageFault(554, r.enhanced, "the message is too large for Microsoft Graph as it is, and cannot be rebuilt for it: %s. Send less than %d octets, a link, or by an SMTP upstream",
			r.text, DefaultMessageSize)
	}
	return contentFault(err)
}

// collect finds the text of a message and its files. What a rebuilt message would falsify is refused.
func (b *rebuilt) collect(e *entity, root bool) error {
	if err := sealed(e); err != nil {
		return err
	}
	switch {
	case e.media == "multipart/alternative":
		return b.alternative(e)
	case e.media == "multipart/related":
		return b.related(e)
	case e.isMultipart(): // others are read as mixed, RFC 2046 §5.1.7
		for _, part := range e.parts {
			if err := b.collect(part, false); err != nil {
				return err
			}
		}
	case e.blank && e.name == "" && !root: // programs put one before each file
	case b.isText(e, root):
		b.body = append(b.body, e)
	default:
		b.files[e.number] = &file{}
	}
	return nil
}

// isText tells the text of the message from files: the first one that has neither a file's name nor its disposition, and plain
// text behind plain text, as mailing lists add it.
func (b *rebuilt) isText(e *entity, root bool) bool {
	if e.media != "text/plain" && e.media != "text/html" || e.disposition == "attachment" || e.name != "" && !root {
		return false
	}
	return len(b.body) == 0 || e.media == "text/plain" && b.body[len(b.body)-1].media == "text/plain"
}

// alternative takes the last version that Graph can hold, which is the best one (RFC 2046 §5.1.4). Texts that say the same in a
// poorer form are left out: Exchange makes one from HTML by itself.
func (b *rebuilt) alternative(e *entity) error {
	chosen := -1
	for i, part := range e.parts {
		switch {
		case part.media == "text/calendar":
			return sealed(part)
		case part.media == "text/html" || part.isMultipart():
			if chosen >= 0 && e.parts[chosen].isMultipart() {
				return refuse("5.6.0", "it offers several versions of itself with parts, of which Graph takes one")
			}
			chosen = i
		case part.media == "text/plain" && (chosen < 0 || e.parts[chosen].media == "text/plain"):
			chosen = i
		}
	}
	for i, part := range e.parts {
		if i != chosen && strings.HasPrefix(part.media, "text/") && part.disposition != "attachment" {
			continue
		}
		if err := b.collect(part, false); err != nil {
			return err
		}
	}
	return nil
}

// related begins with its root (RFC 2387 §3.2).
func (b *rebuilt) related(e *entity) error {
	root := 0
	if start := strings.Trim(e.params["start"], "<>"); start != "" {
		root = max(0, slices.IndexFunc(e.parts, func(p *entity) bool { return p.cid == start }))
	}
	if err := b.collect(e.parts[root], false); err != nil {
		return err
	}
	for i, part := range e.parts {
		if i == root {
			continue
		}
		if err := b.collect(part, false); err != nil {
			return err
		}
	}
	return nil
}

// isBlank reports whether a text is short and has nothing to read.
func isBlank(r io.Reader) bool {
	b, err := readText(r, 64)
	return err == nil && len(bytes.TrimSpace(b)) == 0
}

// read reads the text.
func (b *rebuilt) read(m *message) error {
	texts := make(map[int]string, len(b.body))
	left := maxText
	err := m.walk(func(e *entity, decoded io.Reader) error {
		if !slices.ContainsFunc(b.body, func(t *entity) bool { return t.number == e.number }) {
			return nil
		}
		raw, err := readText(decoded, left)
		if errors.Is(err, errTooLong) {
			return refuse("5.3.4", "its text alone, without files, has more than %d octets", maxText)
		}
		if err != nil {
			return refuse("5.6.0", "its text cannot be decoded")
		}
		label := e.params["charset"]
		text, ok := toUTF8(label, raw)
		if !ok {
			return refuse("5.6.1", "its text has the charset %q, which we do not know", mail.Cut(mail.Printable(label), 40))
		}
		left -= len(raw)
		texts[e.number] = text
		return nil
	})
	if err != nil {
		return err
	}
	var all []string
	for _, e := range b.body {
		b.html = b.html || e.media == "text/html"
		all = append(all, texts[e.number])
	}
	b.text = strings.Join(all, "\r\n")
	switch {
	case len(b.text) > maxText:
		return refuse("5.3.4", "its text alone, without files, has more than %d octets", maxText)
	case strings.Contains(b.text, "-----BEGIN PGP SIGNED MESSAGE-----"), strings.Contains(b.text, "-----BEGIN PGP MESSAGE-----"):
		return refuse("5.6.0", "its text is signed or encrypted by PGP, which would not survive")
	}
	return nil
}

// settle gives the files their names.
func (b *rebuilt) settle(leaves []*entity) error {
	if len(b.files) > maxFiles {
		return refuse("5.3.4", "it has %d files, Exchange takes at most %d", len(b.files), maxFiles)
	}
	for _, e := range leaves {
		f := b.files[e.number]
		if f == nil {
			continue
		}
		f.name, f.media, f.cid, f.size = fileName(e, len(b.order)+1), e.media, e.cid, e.size
		f.inline = b.html && e.cid != "" && mentions(b.text, e.cid)
		if f.size > maxFile {
			return refuse("5.3.4", "its file %q has %d octets, Microsoft Graph takes at most %d", mail.Printable(f.name), f.size, maxFile)
		}
		b.order = append(b.order, e.number)
	}
	return nil
}

// mentions reports whether a text shows a part (RFC 2392). One that it does not show must not be hidden as inline.
func mentions(html, cid string) bool {
	return strings.Contains(html, "cid:"+cid) || strings.Contains(html, "cid:"+url.PathEscape(cid))
}

// extensions are for files without name; the rest is .bin.
var extensions = map[string]string{
	"application/pdf": "pdf", "image/jpeg": "jpg", "image/png": "png", "image/gif": "gif", "image/tiff": "tif", "text/plain": "txt", "text/html": "html",
	"text/csv": "csv", "text/calendar": "ics", "application/zip": "zip", "application/xml": "xml", "text/xml": "xml", "message/rfc822": "eml",
}

// fileName is what a file is called: as its sender says, without a path and controls.
func fileName(e *entity, n int) string {
	name := e.name
	if i := strings.LastIndexAny(name, `/\`); i >= 0 {
		name = name[i+1:]
	}
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(name, "_"))
	if name = strings.TrimSpace(name); name == "" || name == "." || name == ".." {
		ext := extensions[e.media]
		if ext == "" {
			ext = "bin"
		}
		return fmt.Sprintf("attachment-%d.%s", n, ext)
	}
	if e.media == "message/rfc822" && !strings.Contains(name, ".") {
		name += ".eml"
	}
	if len(name) > maxFileName { // the end says what it is
		name = strings.ToValidUTF8(name[len(name)-maxFileName:], "")
	}
	return name
}

// The draft as Graph has it (learn.microsoft.com, message resource type).
type (
	draft struct {
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

// maxOwnFields: Graph answers InvalidInternetMessageHeaderCollection, "Maximum number of headers in one message should be less
// than or equal to 5" (learn.microsoft.com/answers/questions/762243).
const maxOwnFields = 5

// maxOwnValue bounds the value of one, in octets: what fits a line (RFC 5322 §2.1.1).
const maxOwnValue = 900

// draftOf makes a draft for those whom blind and named tell apart. left are the header fields that have no place in it.
func (m *message) draftOf(b *rebuilt, recipients []mail.Recipient, batch, blind []int) (d *draft, left []string, f *fault) {
	d = &draft{Body: draftBody{"text", b.text}, To: []person{}, Cc: []person{}, Bcc: []person{}}
	if b.html {
		d.Body.ContentType = "html"
	}
	from, err := people(m.header.Get("From"))
	if err != nil || len(from) != 1 || m.header.Count("From") != 1 {
		return nil, nil, rebuildFault(refuse("5.6.0", "its From is not one address"))
	}
	d.From = &from[0]
	d.addressees(m.header, recipients, batch, blind)
	left, err = d.fields(m.header)
	return d, left, rebuildFault(err)
}

// addressees sorts every recipient of the batch into exactly one list, and nobody else: whom To and Cc name stands there with
// his name, the others are blind.
func (d *draft) addressees(h mail.Header, recipients []mail.Recipient, batch, blind []int) {
	hidden := make(map[int]bool, len(blind))
	for _, i := range blind {
		hidden[i] = true
	}
	to, cc := named(h, "To"), named(h, "Cc")
	for _, i := range batch {
		a := recipients[i].To
		p := person{emailAddress{Address: a.String()}}
		inTo, isTo := to[key(a)]
		inCc := cc[key(a)]
		switch {
		case hidden[i]:
			d.Bcc = append(d.Bcc, p)
		case isTo:
			p.Email.Name = inTo
			d.To = append(d.To, p)
		default: // compare has found him, so he is here
			p.Email.Name = inCc
			d.Cc = append(d.Cc, p)
		}
	}
}

// named are the addresses of a field, with their names where the field is well formed.
func named(h mail.Header, field string) map[string]string {
	found := make(map[string]string)
	if h.Count(field) != 1 {
		return found
	}
	value := h.Get(field)
	for _, a := range readAddressees(value).sure {
		found[key(a)] = ""
	}
	list, _ := people(value)
	for _, p := range list {
		a, err := mail.ParseAddress(p.Email.Address)
		if err != nil {
			continue
		}
		if _, is := found[key(a)]; is && !strings.Contains(p.Email.Name, "@") {
			found[key(a)] = p.Email.Name
		}
	}
	return found
}

// people reads an address list. One that is not well formed is read as compare does, without names, if nothing in it is
// doubtful.
func people(value string) ([]person, error) {
	if value == "" {
		return nil, nil
	}
	if !utf8.ValidString(value) {
		value, _ = toUTF8("", []byte(value))
	}
	parser := netmail.AddressParser{WordDecoder: &words}
	list, err := parser.ParseList(value)
	if err != nil {
		who := readAddressees(value)
		if who.unclear != "" || len(who.possible)+len(who.locals) > 0 || len(who.sure) == 0 {
			return nil, err
		}
		all := make([]person, len(who.sure))
		for i, a := range who.sure {
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
	"Subject", "From", "To", "Cc", "Bcc", "Date", "Received", "Return-Path", "MIME-Version", "Content-Type", "Content-Transfer-Encoding",
	"Content-Disposition", "Content-ID", "Content-Description", "Content-Language", "Thread-Index", "Thread-Topic", "User-Agent",
}

// fields takes over what the draft has room for, and returns the names of the rest.
func (d *draft) fields(h mail.Header) (left []string, err error) {
	keep := func(name string) { // names that are left out, each once
		if name = mail.Printable(name); !slices.ContainsFunc(left, func(l string) bool { return strings.EqualFold(l, name) }) {
			left = append(left, name)
		}
	}
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
			list, err := people(value)
			if err != nil || len(list) != 1 {
				return nil, refuse("5.6.0", "its Sender is not one address")
			}
			d.Sender = &list[0]
		case f.Is("Reply-To"):
			list, err := people(value)
			if err != nil {
				return nil, refuse("5.6.0", "its Reply-To cannot be read")
			}
			d.ReplyTo = append(d.ReplyTo, list...)
		case f.Is("Importance"), f.Is("X-Priority"), f.Is("X-MSMail-Priority"), f.Is("Priority"):
			d.importance(value)
		case f.Is("Disposition-Notification-To") && asksAuthor(value, d.From):
			d.ReadReceipt = true
		case !d.own(f.Name, value):
			keep(f.Name)
		}
	}
	return left, nil
}

// importance reads the words and numbers that programs write. The first that is not normal decides.
func (d *draft) importance(value string) {
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

func asksAuthor(value string, author *person) bool {
	list, err := people(value)
	return err == nil && len(list) == 1 && strings.EqualFold(list[0].Email.Address, author.Email.Address)
}

// own takes over a field that begins with X-, of which Graph takes a few. Exchange keeps those of its own for itself.
func (d *draft) own(name, value string) bool {
	lower := strings.ToLower(name)
	if !strings.HasPrefix(lower, "x-") || strings.HasPrefix(lower, "x-ms-") || len(d.Headers) == maxOwnFields || value == "" || len(value) > maxOwnValue {
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

// note says in the trace what became of the message.
func (b *rebuilt) note(left []string) string {
	text := fmt.Sprintf("the message was too large for one request, so it was rebuilt (large_mail): its text, and %d files by upload", len(b.order))
	if len(left) == 0 {
		return text
	}
	more := ""
	if n := len(left) - maxNamed; n > 0 {
		left, more = left[:maxNamed], fmt.Sprintf(" and %d more", n)
	}
	return text + "; Graph has no place for its fields " + mail.Cut(strings.Join(left, ", "), 400) + more
}
