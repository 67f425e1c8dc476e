package encode

import "bytes"

// lineWidth is the longest line of quoted-printable and base64 (RFC 2045 §6.7, §6.8).
const lineWidth = 76

const hexDigits = "0123456789ABCDEF"

// quoter encodes text as quoted-printable (RFC 2045 §6.7). Line ends stay line ends. No line begins with something that
// could be mistaken on the way: a delimiter, a dot, or the "From " of mbox files.
type quoter struct {
	out    []byte
	column int
	blank  byte // white space not yet written, since no line may end with it
	cr     bool // a CR is not yet written
}

func (q *quoter) add(b []byte) {
	for i, c := range b {
		if q.cr {
			if q.cr = false; c == '\n' {
				q.endLine()
				continue
			}
			q.escape('\r')
		}
		switch {
		case c == '\r':
			q.cr = true
		case c == ' ', c == '\t':
			q.space()
			q.blank = c
		case c > ' ' && c <= '~' && c != '=':
			q.space()
			q.literal(c, b[i:])
		default:
			q.escape(c)
		}
	}
}

// space writes pending white space that is not at the end of a line.
func (q *quoter) space() {
	if q.blank != 0 {
		q.room(1)
		q.put(q.blank)
		q.blank = 0
	}
}

// literal writes a character unencoded. rest is the text from it on.
func (q *quoter) literal(c byte, rest []byte) {
	q.room(1)
	if q.column == 0 && misleading(rest) {
		q.hex(c)
		return
	}
	q.put(c)
}

// misleading reports whether no line should begin with b. If b is too short to tell, it reports true.
func misleading(b []byte) bool {
	const from = "From "
	return b[0] == '-' || b[0] == '.' || b[0] == 'F' && bytes.HasPrefix([]byte(from), b[:min(len(b), len(from))])
}

func (q *quoter) escape(c byte) {
	q.space()
	q.hex(c)
}

func (q *quoter) hex(c byte) {
	q.room(3)
	q.put('=', hexDigits[c>>4], hexDigits[c&15])
}

// room breaks the line unless n octets and a soft line break fit.
func (q *quoter) room(n int) {
	if q.column+n > lineWidth-1 {
		q.put('=', '\r', '\n')
		q.column = 0
	}
}

func (q *quoter) put(b ...byte) {
	q.out = append(q.out, b...)
	q.column += len(b)
}

func (q *quoter) endLine() {
	if blank := q.blank; blank != 0 {
		q.blank = 0
		q.hex(blank)
	}
	q.put('\r', '\n')
	q.column = 0
}

// end ends the text, which may lack a line end.
func (q *quoter) end() {
	if q.cr {
		q.escape('\r')
	}
	if blank := q.blank; blank != 0 {
		q.blank = 0
		q.hex(blank)
	}
	q.column, q.cr = 0, false
}

// folder adds soft line breaks to quoted-printable text. It never breaks an escape, nor what a careless reader could
// take for the beginning of one.
type folder struct {
	out    []byte
	column int
	escape int // octets seen of an escape: 0 none, 1 "=", 2 "=" and a digit
	widest int // the widest line so far
}

func (f *folder) add(b []byte) {
	for i, c := range b {
		switch {
		case c == '\n':
			f.put(c)
			f.column, f.escape = 0, 0
			continue
		case c == '\r':
			f.put(c)
			continue
		case f.escape > 0:
			f.put(c)
			f.escape = afterEscape(f.escape, c)
			continue
		case c == '=':
			f.room(3)
			f.escape = 1
			f.put(c)
			continue
		}
		f.room(1)
		if f.column == 0 && misleading(b[i:]) {
			f.put('=', hexDigits[c>>4], hexDigits[c&15])
			continue
		}
		f.put(c)
	}
}

func afterEscape(n int, c byte) int {
	isHex := c >= '0' && c <= '9' || c >= 'A' && c <= 'F' || c >= 'a' && c <= 'f'
	switch {
	case c == '=':
		return 1
	case n == 1 && isHex:
		return 2
	}
	return 0
}

func (f *folder) room(n int) {
	if f.column+n > lineWidth-1 {
		f.put('=', '\r', '\n')
		f.column = 0
	}
}

func (f *folder) put(b ...byte) {
	f.out = append(f.out, b...)
	f.column += len(b)
	f.widest = max(f.widest, f.column)
}

func (f *folder) end() { f.column, f.escape = 0, 0 }
