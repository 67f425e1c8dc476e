package large

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"mime/quotedprintable"
	"net/textproto"
	"strings"

	"postern/mail"
)

// Bounds of a structure that is taken apart. Exchange Online takes 250 attachments and 30 message/rfc822 within each
// other (learn.microsoft.com, Exchange Online limits); what people send has a handful of parts.
const (
	maxDepth    = 20
	maxEntities = 1000
	// maxContentID is what fits a line (RFC 5322 §2.1.1), in octets.
	maxContentID = 998
)

// entity is one node of a MIME structure (RFC 2045 §2.4). What is inside a message/rfc822 is no entity: it stays as it
// is.
type entity struct {
	media       string            // type/subtype, lower case
	params      map[string]string // of Content-Type, names lower case, values in UTF-8
	disposition string            // attachment, inline, or "" where it is not said
	name        string            // of the file, in UTF-8
	cid         string            // Content-ID without its brackets
	encoding    string            // of the transfer, lower case
	parts       []*entity         // of a multipart
	number      int               // of a leaf: its place among the leaves
	size        int64             // of a leaf: octets without transfer encoding
	blank       bool              // a text with nothing in it
}

func (e *entity) isMultipart() bool { return strings.HasPrefix(e.media, "multipart/") }

// Refusal is why a message cannot be rebuilt: its own matter, in words for its sender.
type Refusal struct {
	Enhanced string // status code, RFC 3463
	Text     string
}

// Error implements error.
func (r *Refusal) Error() string { return r.Text }

func refuse(enhanced, format string, args ...any) *Refusal {
	return &Refusal{enhanced, fmt.Sprintf(format, args...)}
}

// measure walks, and knows the size of every leaf then.
func (m *Message) measure(leaf func(e *entity, decoded io.Reader) error) (*entity, error) {
	return m.walkWith(walker{leaf: leaf, sizes: true})
}

// walk reads the structure of the message from its first octet to its last and gives every leaf, decoded, to leaf,
// which need not read it. It may be called again and sees the same. A *Refusal is about the structure, any other error
// is leaf's or the content's.
func (m *Message) walk(leaf func(e *entity, decoded io.Reader) error) error {
	_, err := m.walkWith(walker{leaf: leaf})
	return err
}

func (m *Message) walkWith(w walker) (*entity, error) {
	body, err := m.Open()
	if err != nil {
		return nil, err
	}
	defer body.Close()
	src := &source{r: body, left: m.Size}
	top := newEntity(m.Header.Get, "text/plain")
	err = w.entity(top, src, 0)
	if src.err != nil { // the parsers call it a damaged structure
		err = src.err
	}
	return top, err
}

var errShort = errors.New("the message is shorter than it was")

// source remembers why the content could not be read to its end.
type source struct {
	r    io.Reader
	left int64
	err  error
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	s.left -= int64(n)
	if err == io.EOF && s.left > 0 {
		err = errShort
	}
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

type walker struct {
	leaf             func(e *entity, decoded io.Reader) error
	sizes            bool
	entities, leaves int
}

func (w *walker) entity(e *entity, body io.Reader, depth int) error {
	if w.entities++; w.entities > maxEntities {
		return refuse("5.6.0", "it has more than %d parts", maxEntities)
	}
	if !e.isMultipart() {
		return w.single(e, body)
	}
	if depth++; depth > maxDepth {
		return refuse("5.6.0", "its parts are more than %d deep within each other", maxDepth)
	}
	return w.multipart(e, body, depth)
}

func (w *walker) single(e *entity, body io.Reader) error {
	e.number = w.leaves
	w.leaves++
	decoded, ok := decoder(e.encoding, body)
	if !ok {
		return refuse("5.6.1", "a part of it has the transfer encoding %q, which is none of RFC 2045",
			mail.Cut(mail.Printable(e.encoding), 40))
	}
	counted := &counter{r: decoded}
	if err := w.leaf(e, counted); err != nil {
		return err
	}
	if !w.sizes {
		return nil
	}
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return refuse("5.6.0", "a part of it (%s) cannot be decoded", mail.Cut(mail.Printable(e.media), 80))
	}
	e.size = counted.n
	return nil
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

// multipart reads the parts of one (RFC 2046 §5.1). A missing last delimiter is added, as senders forget it; in a
// message that has one, ours is in the epilogue, which nobody sees.
func (w *walker) multipart(e *entity, body io.Reader, depth int) error {
	boundary := e.params["boundary"]
	if boundary == "" || len(boundary) > 200 {
		return refuse("5.6.0", "its %s has no boundary", mail.Cut(mail.Printable(e.media), 80))
	}
	def := "text/plain"
	if e.media == "multipart/digest" {
		def = "message/rfc822"
	}
	r := multipart.NewReader(io.MultiReader(body, strings.NewReader("\r\n--"+boundary+"--\r\n")), boundary)
	for {
		part, err := r.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return refuse("5.6.0", "its %s is damaged", mail.Cut(mail.Printable(e.media), 80))
		}
		child := newEntity(first(part.Header), def)
		e.parts = append(e.parts, child)
		if err := w.entity(child, part, depth); err != nil {
			return err
		}
	}
	if len(e.parts) == 0 {
		return refuse("5.6.0", "its %s has no parts", mail.Cut(mail.Printable(e.media), 80))
	}
	return nil
}

// first returns the first value of a field, as mail.Header.Get does.
func first(h textproto.MIMEHeader) func(string) string { return h.Get }

// newEntity reads what a header says of a body. def is the type where there is none (RFC 2045 §5.2, RFC 2046 §5.1.5).
func newEntity(get func(name string) string, def string) *entity {
	e := &entity{}
	e.media, e.params = readParameters(get("Content-Type"))
	switch kind, subtype, ok := strings.Cut(e.media, "/"); {
	case e.media == "":
		e.media = def
	case e.media == "text": // of the days before RFC 1341
		e.media = "text/plain"
	case !ok || kind == "" || subtype == "" || strings.ContainsAny(e.media, " \t\"()<>@,:\\"):
		e.media = "application/octet-stream"
	}
	var params map[string]string
	if e.disposition, params = readParameters(get("Content-Disposition")); e.disposition != "" &&
		e.disposition != "inline" {
		e.disposition = "attachment" // RFC 2183 §2.8
	}
	if e.name = params["filename"]; e.name == "" {
		e.name = e.params["name"]
	}
	if id := get("Content-Id"); len(id) <= maxContentID {
		e.cid = strings.Trim(strings.TrimSpace(id), "<>")
	}
	e.encoding, _ = readParameters(get("Content-Transfer-Encoding"))
	return e
}

// decoder takes off a transfer encoding (RFC 2045 §6). ok is false for one that is not known.
func decoder(encoding string, r io.Reader) (decoded io.Reader, ok bool) {
	switch encoding {
	case "", "7bit", "8bit", "binary":
		return r, true
	case "base64":
		return &base64Reader{r: r}, true
	case "quoted-printable":
		return quotedprintable.NewReader(r), true
	}
	return nil, false
}

// base64Reader decodes as RFC 2045 §6.8 wants it: whatever is not of the alphabet is ignored. Padding ends a group, not
// the data: programs put encoded pieces behind each other.
type base64Reader struct {
	r    io.Reader
	in   [8 << 10]byte
	n    int // how many of in's first octets are letters of an incomplete group
	buf  [6 << 10]byte
	out  []byte // of buf, not handed out yet
	rest []byte // of in, behind a padding
	err  error
}

func (b *base64Reader) Read(dst []byte) (int, error) {
	for len(b.out) == 0 {
		if len(b.rest) == 0 && b.err != nil {
			if b.n == 0 {
				return 0, b.err
			}
			b.decode(b.in[:b.n], true)
			b.n = 0
			continue
		}
		b.fill()
	}
	n := copy(dst, b.out)
	b.out = b.out[n:]
	return n, nil
}

// fill decodes what can be decoded of the next octets, up to a padding.
func (b *base64Reader) fill() {
	src := b.rest
	if len(src) == 0 {
		var n int
		n, b.err = b.r.Read(b.in[b.n:])
		src = b.in[b.n : b.n+n]
	}
	b.rest = nil
	k, in := b.n, b.in[:]
	for i, c := range src {
		if inAlphabet[c] {
			in[k] = c // k is never ahead of i
			k++
		} else if c == '=' {
			b.rest = src[i+1:]
			b.decode(in[:k], true)
			b.n = 0
			return
		}
	}
	whole := k &^ 3
	b.decode(in[:whole], false)
	b.n = copy(in, in[whole:k])
}

// decode decodes letters. An incomplete group at the end gives the whole octets that are in it.
func (b *base64Reader) decode(letters []byte, end bool) {
	if end && len(letters)%4 == 1 { // six bits are no octet
		letters = letters[:len(letters)-1]
	}
	n, _ := base64.RawStdEncoding.Decode(b.buf[:], letters) // nothing but letters, so nothing can fail
	b.out = b.buf[:n]
}

// inAlphabet are the letters of base64.
var inAlphabet = func() (t [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		t[c] = true
	}
	return t
}()

var errTooLong = errors.New("too long")

// readText reads a text that must not be longer than limit octets.
func readText(r io.Reader, limit int) ([]byte, error) {
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(r, int64(limit)+1))
	if err == nil && n > int64(limit) {
		err = errTooLong
	}
	return b.Bytes(), err
}
