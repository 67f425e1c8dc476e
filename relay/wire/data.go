package wire

import (
	"bytes"
	"encoding/binary"
)

// maxTextLine is the longest text line, without CRLF (RFC 5321 §4.5.3.1.6, RFC 5322 §2.1.1).
const maxTextLine = 998

// stuffing finds the content in the octets behind DATA: it takes away the dots that the client put
// before dots, and it finds the end, which is CRLF.CRLF and nothing that resembles it
// (RFC 5321 §4.1.1.4, §4.5.2).
type stuffing struct {
	lineStart bool // behind CRLF
	cr        bool // the octet before was CR; not where lineStart is set
}

// next returns the next run of content in b, which is not empty, how many octets of b it used up, and
// whether they include the end. If it uses none it needs more octets to decide.
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

// untilDot returns the index behind the first CRLF that a dot follows, or that is the end of b.
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

// lines judges content as lines: which octets are in it that no text message may have. It does not
// depend on how the content is cut into pieces.
type lines struct {
	size     int64
	eightBit bool
	nul      bool
	long     bool // a line over maxTextLine
	bareLF   bool
	crs      int64 // all CRs
	crlfs    int64 // those before an LF
	column   int   // length of the open line
	cr       bool  // the last octet was CR
}

// add judges the next piece.
func (l *lines) add(b []byte) {
	if len(b) == 0 {
		return
	}
	l.size += int64(len(b))
	l.nul = l.nul || bytes.IndexByte(b, 0) >= 0
	l.eightBit = l.eightBit || hasEightBit(b)
	l.crs += int64(bytes.Count(b, []byte{'\r'}))
	at := 0
	for {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			break
		}
		lf := at + i
		if lf > 0 && b[lf-1] == '\r' || lf == 0 && l.cr {
			l.crlfs++
		} else {
			l.bareLF = true
		}
		// The CR of this line's end is counted in the column.
		l.long = l.long || l.column+i > maxTextLine+1
		l.column, at = 0, lf+1
	}
	l.column += len(b) - at
	l.cr = b[len(b)-1] == '\r'
	l.long = l.long || l.column > maxTextLine+1
}

// open reports a line without its end.
func (l *lines) open() bool { return l.column > 0 }

// bad reports whether the content is refused whatever follows.
func (l *lines) bad() bool {
	crs := l.crs
	if l.cr {
		crs-- // an LF may follow
	}
	return l.nul || l.long || l.bareLF || crs > l.crlfs
}

// fault says what is wrong with the content as it is, "" if nothing.
func (l *lines) fault() string {
	switch {
	case l.crs > l.crlfs:
		return "a CR without LF"
	case l.bareLF:
		return "an LF without CR"
	case l.nul:
		return "a NUL octet"
	case l.long:
		return "a line of more than 998 octets"
	}
	return ""
}

const highBits = 0x8080808080808080

// hasEightBit reports an octet above 0x7f, looking at 32 at a time.
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
