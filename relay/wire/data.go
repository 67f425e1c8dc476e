package wire

import (
	"bytes"
	"encoding/binary"

	"postern/mail"
)

// stuffing decodes the octets after DATA: it removes dot-stuffing and finds the end, which is CRLF.CRLF and nothing
// similar (RFC 5321 §4.1.1.4, §4.5.2).
type stuffing struct {
	lineStart bool // after CRLF
	cr        bool // the previous octet was CR; unused if lineStart is set
}

// next returns the next run of content in b, which must not be empty, how many octets of b were used, and whether they
// include the end. If none were used, it needs more octets to decide.
func (s *stuffing) next(b []byte) (run []byte, used int, end bool) {
	from := 0
	if s.lineStart && b[0] == '.' {
		switch {
		case bytes.HasPrefix(b, []byte(".\r\n")):
			return nil, 3, true
		case len(b) == 1, len(b) == 2 && b[1] == '\r':
			return nil, 0, false
		}
		from = 1
	}
	s.lineStart = false
	to := s.untilDot(b, from)
	if to > from {
		s.cr = b[to-1] == '\r'
	}
	return b[from:to], to, false
}

// untilDot returns the index after the first CRLF that is followed by a dot or ends b, or else len(b).
func (s *stuffing) untilDot(b []byte, from int) int {
	for at := from; ; {
		i := bytes.Index(b[at:], []byte("\n."))
		if i < 0 {
			break
		}
		lf := at + i
		if s.crBefore(b, from, lf) {
			s.lineStart = true
			return lf + 1
		}
		at = lf + 1
	}
	if n := len(b) - 1; n >= from && b[n] == '\n' {
		s.lineStart = s.crBefore(b, from, n)
	}
	return len(b)
}

func (s *stuffing) crBefore(b []byte, from, lf int) bool {
	if lf == from {
		return s.cr
	}
	return b[lf-1] == '\r'
}

// lines checks content line by line and records the first fault: octets that no text message may have. The result does
// not depend on how the content is divided into pieces.
type lines struct {
	takeLong bool // lines over mail.MaxLine are allowed
	size     int64
	eightBit bool
	long     bool // there is a line over mail.MaxLine
	position
	head  [mail.LineHead]byte // of the open line
	kept  int                 // octets in head
	fault fault               // the first one
}

// position is how far the content has come.
type position struct {
	ended  int64 // complete lines
	column int   // length of the open line, with its CR
	cr     bool  // the last octet was CR
}

// length of the open line, without its CR.
func (p *position) length() int {
	if p.cr {
		return p.column - 1
	}
	return p.column
}

// add checks the next piece.
func (l *lines) add(b []byte) {
	if len(b) == 0 {
		return
	}
	l.size += int64(len(b))
	l.eightBit = l.eightBit || hasEightBit(b)
	if l.bad() {
		l.fault.more(b)
		return
	}
	before := l.position
	at, broken, long := l.pass(b)
	l.long = l.long || long
	if broken || long && !l.takeLong || bytes.IndexByte(b, 0) >= 0 {
		l.fault = before.find(b, append([]byte(nil), l.head[:l.kept]...), l.takeLong)
		return
	}
	if at > 0 {
		l.kept = 0
	}
	l.kept += copy(l.head[l.kept:], b[at:])
}

// pass moves past a piece. It returns where the last line in it begins, whether it has a bare CR or LF, and whether a
// line is too long.
func (p *position) pass(b []byte) (at int, broken, long bool) {
	crs := bytes.Count(b, []byte{'\r'}) // finally: those without an LF
	if p.cr {
		crs++
	}
	column, ended := p.column, p.ended
	for {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			break
		}
		lf := at + i
		if lf > 0 && b[lf-1] == '\r' || lf == 0 && p.cr {
			crs--
		} else {
			broken = true
		}
		long = long || column+i > mail.MaxLine+1
		column, at = 0, lf+1
		ended++
	}
	*p = position{ended: ended, column: column + len(b) - at, cr: b[len(b)-1] == '\r'}
	if p.cr {
		crs--
	}
	return at, broken || crs > 0, long || p.length() > mail.MaxLine
}

// find looks for the first fault in b, which has one, octet by octet. head is the head of the line that is open before
// b.
func (p position) find(b, head []byte, takeLong bool) fault {
	for i, c := range b {
		kind := ""
		switch {
		case p.cr && c != '\n':
			kind = bareCR
		case c == '\n' && !p.cr:
			kind = bareLF
		case c == 0:
			kind = nulOctet
		case p.length() >= mail.MaxLine && c != '\r' && c != '\n' && !takeLong:
			kind = longLine
		}
		if kind != "" {
			f := fault{kind: kind, line: p.ended + 1, head: head}
			f.more(b[i:])
			return f
		}
		p.cr = c == '\r'
		p.column++
		head = appendHead(head, b[i:i+1])
		if c == '\n' {
			p.ended, p.column, head = p.ended+1, 0, head[:0]
		}
	}
	return fault{}
}

// open reports whether a line has not ended.
func (l *lines) open() bool { return l.column > 0 }

// bad reports whether a fault was found.
func (l *lines) bad() bool { return l.fault.kind != "" }

// The kinds of fault, as a reply words them after naming the line.
const (
	bareCR   = "has a bare CR; lines must end with CR LF"
	bareLF   = "ends with a bare LF; lines must end with CR LF"
	nulOctet = "has a NUL octet; lines must be text, send other data as base64"
	longLine = "has more than 998 octets; shorten it, or send the part as quoted-printable or base64"
)

// fault is the first octet or line in a message that no text message may have.
type fault struct {
	kind   string // "": none
	line   int64  // from 1
	head   []byte
	closed bool // head is complete
}

// more completes the head of the faulty line from what follows.
func (f *fault) more(b []byte) {
	if f.closed {
		return
	}
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b, f.closed = b[:i], true
	}
	f.head = appendHead(f.head, b)
	f.closed = f.closed || len(f.head) == mail.LineHead
}

func (f *fault) reply() mail.Reply {
	line := bytes.TrimSuffix(f.head, []byte{'\r'})
	return mail.R(550, "5.6.0", "%s %s", mail.NameLine(f.line, line), f.kind)
}

// appendHead appends b to the head of a line, up to mail.LineHead.
func appendHead(head, b []byte) []byte {
	return append(head, b[:min(len(b), mail.LineHead-len(head))]...)
}

const highBits = 0x8080808080808080

// hasEightBit reports whether b has an octet above 0x7f, checking 32 at a time.
func hasEightBit(b []byte) bool {
	for ; len(b) >= 32; b = b[32:] {
		x := binary.NativeEndian.Uint64(b) | binary.NativeEndian.Uint64(b[8:]) |
			binary.NativeEndian.Uint64(b[16:]) | binary.NativeEndian.Uint64(b[24:])
		if x&highBits != 0 {
			return true
		}
	}
	for _, c := range b {
		if c >= 0x80 {
			return true
		}
	}
	return false
}
