package encode

import "bytes"

// lineWidth is the longest line of quoted-printable and base64 (RFC 2045 §6.7, §6.8).
const lineWidth = 76

const hexDigits = "0123456789ABCDEF"

// quoter encodes text as quoted-printable (RFC 2045 §6.7). Line ends stay line ends. No line begins with what
// somebody on the way may take for something else: a delimiter, a dot, the "From " of mbox files.
type quoter struct {
	out    []byte
	column int
	blank  byte // white space that was not written yet: a line must not end with it
	cr     bool // a CR was not written yet
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

// space writes the white space that turned out not to be at the end of a line.
func (q *quoter) space() {
	if q.blank != 0 {
		q.room(1)
		q.put(q.blank)
		q.blank = 0
	}
}

// literal writes a character as it is; follows begins with it.
func (q *quoter) literal(c byte, follows []byte) {
	q.room(1)
	if q.column == 0 && misleading(follows) {
		q.hex(c)
		return
	}
	q.put(c)
}

// misleading reports whether a line should not begin so. It errs where it does not see enough.
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

// room makes room on the line for n octets and for the mark of a soft line break.
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

// end ends the text, which a line end need not do.
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

// folder breaks the long lines of text that is quoted-printable, softly. It never breaks an escape, or what a
// careless reader could take for the beginning of one.
type folder struct {
	out    []byte
	column int
	escape int // octets of an escape that have come: 0 none, 1 "=", 2 "=" and a digit
	widest int // line so far
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
