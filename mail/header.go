package mail

import (
	"bytes"
	"errors"
	"slices"
	"strings"
)

// Bounds of an incoming header. Postfix stops at 100 KiB (header_size_limit), Exim at 1 MiB; real mail stays under 20
// KiB and 100 fields. The bounds limit the work of everything that looks at fields.
const (
	MaxHeader       = 256 << 10 // octets, without the blank line
	MaxHeaderFields = 1000
	// HeaderPrefix is how many octets of a message ReadHeader needs: enough for every header that it accepts, with its
	// blank line.
	HeaderPrefix = MaxHeader + 2
)

// Field is one header field, octet for octet.
type Field struct {
	Name string // as written, without the colon
	Raw  []byte // from the name to the last CRLF, including folds
}

// NewField makes a field. The value is one logical line: unprintable characters become question marks, and lines are
// folded at white space to 78 octets where possible. Octets above 0x7f stay: callers that need 7 bits encode them
// first.
func NewField(name, value string) Field {
	return foldField(name, Printable(strings.ReplaceAll(value, "\t", " ")))
}

// foldField makes a field from a value without controls.
func foldField(name, value string) Field {
	b := make([]byte, 0, len(name)+len(value)+16)
	return Field{Name: name, Raw: appendFolded(b, name, value)}
}

// Is reports whether the field has this name, in any case.
func (f Field) Is(name string) bool {
	return len(f.Name) == len(name) && strings.EqualFold(f.Name, name)
}

// Body returns the octets after the colon, including folds but not the last CRLF.
func (f Field) Body() []byte { return bytes.TrimSuffix(f.Raw[len(f.Name)+1:], crlf) }

// Value returns the body, unfolded (RFC 5322 §2.2.3) and trimmed.
func (f Field) Value() string {
	return strings.Trim(strings.ReplaceAll(string(f.Body()), "\r\n", ""), " \t")
}

var crlf = []byte("\r\n")

// Header is the fields of a message from top to bottom. Edits change only the list: fields that stay keep their octets.
type Header struct {
	Fields []Field
	// Mended is what ReadHeader changed, for log and trace; nil for ordinary mail.
	Mended []string
}

// ReadHeader splits a message, or at least its first HeaderPrefix octets, into header fields, and returns where the
// body begins. The fields point into b, which must not change while they are in use.
//
// It accepts only what RFC 5322 §2.2 allows to generate, so that every later reader sees the same fields. It refuses a
// line that is no field, white space before a colon (`From :`), a continuation without a field, controls, and bare CR
// or LF with a *Error of 550 5.6.0, which names the line; and more than MaxHeader octets with 552 5.3.4. It mends what
// mendHeader and foldLong can, but may leave a line over MaxLine in an author field, which CanonicalAuthors rewrites. A
// message without a blank line is all header: its body begins at len(b), and Bytes adds the line.
func ReadHeader(b []byte) (h Header, body int, err error) { return readHeader(b, false) }

// ReadHeaderToRewrite is ReadHeader for a message whose author RewriteAuthor may replace: it also mends author fields
// that cannot be parsed.
func ReadHeaderToRewrite(b []byte) (h Header, body int, err error) { return readHeader(b, true) }

func readHeader(b []byte, replaced bool) (h Header, body int, err error) {
	s, err := scanHeader(b, MaxHeader, MaxHeaderFields)
	if fault, ok := errors.AsType[*headerFault](err); ok && (fault.mendable() || replaced && fault.ofAuthor()) {
		s, err = readMended(b, err, replaced)
	}
	if err == nil && s.long {
		err = s.foldLong()
	}
	if err == nil {
		return s.header, s.body, nil
	}
	return Header{}, 0, refuseHeader(err)
}

func refuseHeader(err error) error {
	code, enhanced := 550, "5.6.0"
	if errors.Is(err, errHeaderSize) {
		code, enhanced = 552, "5.3.4" // RFC 3463 §3.4: message too big for system
	}
	return Refuse(R(code, enhanced, "header refused: %s", err), nil)
}

// SplitHeader is ReadHeader for a message that we have completed: it mends nothing, and checks no bounds, since our
// fields came on top.
func SplitHeader(b []byte) (h Header, body int, err error) {
	s, err := scanHeader(b, len(b), len(b))
	return s.header, s.body, err
}

var (
	errHeaderSize     = errors.New("it is larger than 256 KiB")
	errHeaderFields   = errors.New("is field 1001, and a header has at most 1000")
	errHeaderLineEnd  = errors.New("does not end with CRLF")
	errHeaderControl  = errors.New("contains a control character")
	errHeaderNotField = errors.New(`is neither a header field ("Name: value") nor the empty line that ends the header`)
	errHeaderSpace    = errors.New("has white space before the colon of a field name")
	errHeaderLeading  = errors.New("is a continuation line at the beginning of the header")
	errHeaderBlank    = errors.New("is a continuation line of white space only")
)

// headerFault is a line of a header that is refused.
type headerFault struct {
	line int64 // from 1
	head []byte
	err  error
}

func newHeaderFault(line int64, b []byte, err error) *headerFault {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b = bytes.TrimSuffix(b[:i], []byte{'\r'})
	}
	return &headerFault{line: line, head: b[:min(len(b), LineHead)], err: err}
}

func (f *headerFault) Error() string { return NameLine(f.line, f.head) + " " + f.err.Error() }
func (f *headerFault) Unwrap() error { return f.err }

// scan is a header that was read.
type scan struct {
	header Header
	body   int   // where the body begins
	long   bool  // there is a line over MaxLine
	lines  []int // numbers of the message's lines that were removed, from 1, ascending
}

func scanHeader(b []byte, maxOctets, maxFields int) (s scan, err error) {
	fields := make([]Field, 0, 24)
	start, pos := 0, 0 // where the field and the line begin
	for n := int64(1); pos < len(b); n++ {
		line, err := headerLine(b[pos:])
		if err != nil {
			if len(b) > maxOctets {
				return scan{}, errHeaderSize
			}
			return scan{}, newHeaderFault(n, b[pos:], err)
		}
		if len(line) == 0 {
			s.header, s.body = nameFields(fields, b[:pos]), pos+2
			return s, nil
		}
		next := pos + len(line) + 2
		if next > maxOctets {
			return scan{}, errHeaderSize
		}
		s.long = s.long || len(line) > MaxLine
		if line[0] == ' ' || line[0] == '\t' {
			if err := checkContinuation(line, len(fields)); err != nil {
				return scan{}, newHeaderFault(n, line, err)
			}
			fields[len(fields)-1].Raw = b[start:next]
		} else {
			if err := checkName(line); err != nil {
				return scan{}, newHeaderFault(n, line, err)
			}
			if len(fields) == maxFields {
				return scan{}, newHeaderFault(n, line, errHeaderFields)
			}
			start = pos
			fields = append(fields, Field{Raw: b[start:next]})
		}
		pos = next
	}
	s.header, s.body = nameFields(fields, b), pos
	return s, nil
}

// headerLine returns the line at the beginning of b without its CRLF.
func headerLine(b []byte) ([]byte, error) {
	i := bytes.IndexByte(b, '\n')
	if i < 1 || b[i-1] != '\r' {
		return nil, errHeaderLineEnd
	}
	line := b[:i-1]
	for _, c := range line {
		if c < ' ' && c != '\t' || c == 0x7f {
			return nil, errHeaderControl // or a bare CR
		}
	}
	return line, nil
}

// checkContinuation refuses a line of only white space (obsolete in RFC 5322 §4.2): some readers end the header there.
func checkContinuation(line []byte, fields int) error {
	if fields == 0 {
		return errHeaderLeading
	}
	if len(bytes.TrimLeft(line, " \t")) == 0 {
		return errHeaderBlank
	}
	return nil
}

func checkName(line []byte) error {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return errHeaderNotField
	}
	for _, c := range line[:colon] {
		if c == ' ' || c == '\t' {
			if len(bytes.TrimRight(line[:colon], " \t")) == bytes.IndexAny(line, " \t") {
				return errHeaderSpace
			}
			return errHeaderNotField
		}
		if c > '~' {
			return errHeaderNotField // field names are ASCII even in RFC 6532 §3.2
		}
	}
	return nil
}

// nameFields gives the fields their names, all cut from one string.
func nameFields(fields []Field, header []byte) Header {
	s, pos := string(header), 0
	for i := range fields {
		fields[i].Name = s[pos : pos+strings.IndexByte(s[pos:], ':')]
		pos += len(fields[i].Raw)
	}
	return Header{Fields: fields}
}

// Index returns the index of the first field with this name, -1 if there is none.
func (h Header) Index(name string) int {
	return slices.IndexFunc(h.Fields, func(f Field) bool { return f.Is(name) })
}

// Has reports whether there is a field with this name.
func (h Header) Has(name string) bool { return h.Index(name) >= 0 }

// Get returns the value of the first field with this name, "" if there is none.
func (h Header) Get(name string) string {
	if i := h.Index(name); i >= 0 {
		return h.Fields[i].Value()
	}
	return ""
}

// All returns the fields with this name from top to bottom.
func (h Header) All(name string) []Field {
	var all []Field
	for _, f := range h.Fields {
		if f.Is(name) {
			all = append(all, f)
		}
	}
	return all
}

// Count returns how many fields have this name.
func (h Header) Count(name string) int {
	n := 0
	for _, f := range h.Fields {
		if f.Is(name) {
			n++
		}
	}
	return n
}

// Remove removes every field with one of these names and returns their number.
func (h *Header) Remove(names ...string) int {
	kept := make([]Field, 0, len(h.Fields))
next:
	for _, f := range h.Fields {
		for _, name := range names {
			if f.Is(name) {
				continue next
			}
		}
		kept = append(kept, f)
	}
	n := len(h.Fields) - len(kept)
	h.Fields = kept
	return n
}

// RemoveAt removes the field at index i.
func (h *Header) RemoveAt(i int) {
	h.Fields = append(h.Fields[:i:i], h.Fields[i+1:]...)
}

// Prepend puts fields on top, in order: where trace fields go (RFC 5321 §4.4).
func (h *Header) Prepend(fields ...Field) {
	h.Fields = append(append(make([]Field, 0, len(fields)+len(h.Fields)), fields...), h.Fields...)
}

// Append puts fields at the bottom.
func (h *Header) Append(fields ...Field) {
	h.Fields = append(h.Fields[:len(h.Fields):len(h.Fields)], fields...)
}

// Replace replaces the field at index i.
func (h *Header) Replace(i int, f Field) {
	fields := append([]Field(nil), h.Fields...)
	fields[i] = f
	h.Fields = fields
}

// Bytes returns the header with its blank line.
func (h Header) Bytes() []byte {
	n := len(crlf)
	for _, f := range h.Fields {
		n += len(f.Raw)
	}
	b := make([]byte, 0, n)
	for _, f := range h.Fields {
		b = append(b, f.Raw...)
	}
	return append(b, crlf...)
}

// Bounds of the lines we write, without CRLF (RFC 5322 §2.1.1), and of consecutive blanks.
const (
	foldWidth = 78
	maxBlanks = 40
)

// appendFolded writes a field. It folds only before existing white space, so that unfolding gives the same value. A
// word too long for a line is cut. More than maxBlanks consecutive blanks become one, so that no line is blank.
func appendFolded(b []byte, name, value string) []byte {
	b = append(append(b, name...), ':')
	width := len(name) + 1
	value = strings.Trim(value, " ")
	if value != "" {
		value = " " + value
	}
	first := true
	for value != "" {
		n := len(value) - len(strings.TrimLeft(value, " "))
		if n > maxBlanks {
			value, n = value[n-1:], 1
		}
		if end := strings.IndexByte(value[n:], ' '); end >= 0 {
			n += end
		} else {
			n = len(value)
		}
		word := value[:n]
		value = value[n:]
		if !first && width+len(word) > foldWidth {
			b = append(b, crlf...)
			width = 0
		}
		if width+len(word) > MaxLine {
			word = word[:runeBoundary(word, MaxLine-width)]
		}
		b = append(b, word...)
		width += len(word)
		first = false
	}
	return append(b, crlf...)
}
