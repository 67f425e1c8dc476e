package wire

import "bytes"

// lineEnds repairs the line ends of a transfer: a bare LF, a bare CR, and CR CR LF become CRLF. It works on content, so
// after the end of the message was looked for: that is CRLF.CRLF of what came, whatever is repaired.
//
// It never makes a line of a single dot, which a careless server behind us could take for the end of the message (SMTP
// smuggling): a dot alone on a line is a fault unless CRLF stood on both sides of it. The result does not depend on how
// the content is divided into pieces.
type lineEnds struct {
	out      []byte
	held     int   // CRs at the end of the content so far: what follows decides what they are
	repaired int64 // line ends
	ended    int64 // lines
	open     openLine
	fault    fault
}

// openLine is the line that has not ended.
type openLine struct {
	bare   bool // the line end before it was not CRLF
	dot    bool // it begins with a dot
	length int  // octets; from 2 on they are not counted
}

// maxHeld bounds the CRs that are held back. More than these are line ends of their own.
const maxHeld = 16

// next returns the next piece of content with its line ends repaired. It is valid until the next call, or as long as b.
func (e *lineEnds) next(b []byte) []byte {
	if len(b) == 0 || e.fault.kind != "" {
		return b
	}
	if e.held == 0 && isClean(b) {
		e.pass(b)
		return b
	}
	e.out = e.out[:0]
	for _, c := range b {
		switch c {
		case '\r':
			if e.held++; e.held > maxHeld {
				e.held--
				e.end(true)
			}
		case '\n':
			e.end(e.held != 1)
			e.held = 0
		default:
			for ; e.held > 0; e.held-- {
				e.end(true)
			}
			e.open.add(c)
			e.out = append(e.out, c)
		}
	}
	return e.out
}

// isClean reports whether all CR and LF of a piece stand together.
func isClean(b []byte) bool {
	pairs := bytes.Count(b, lineEnd)
	return pairs == bytes.Count(b, lineEnd[1:]) && pairs == bytes.Count(b, lineEnd[:1])
}

// pass moves past a piece that is clean.
func (e *lineEnds) pass(b []byte) {
	first := bytes.IndexByte(b, '\n')
	if first < 0 {
		e.open.add(b...)
		return
	}
	e.open.add(b[:first-1]...)
	e.close(false)
	e.ended += int64(bytes.Count(b[first+1:], lineEnd[1:]))
	e.open = openLine{}
	e.open.add(b[bytes.LastIndexByte(b, '\n')+1:]...)
}

func (l *openLine) add(b ...byte) {
	if len(b) > 0 && l.length == 0 {
		l.dot = b[0] == '.'
	}
	l.length = min(l.length+len(b), 2)
}

// end writes the end of a line.
func (e *lineEnds) end(bare bool) {
	e.out = append(e.out, lineEnd...)
	if bare {
		e.repaired++
	}
	e.close(bare)
}

// close ends the open line. bare says that its line end is not CRLF.
func (e *lineEnds) close(bare bool) {
	e.ended++
	if e.open.dot && e.open.length == 1 && (e.open.bare || bare) && e.fault.kind == "" {
		e.fault = fault{kind: loneDot, line: e.ended, head: []byte{'.'}, closed: true}
	}
	e.open = openLine{bare: bare}
}

// unended reports whether the content so far ends in a CR whose meaning is open.
func (e *lineEnds) unended() bool { return e != nil && e.held > 0 }

// loneDot refuses what could end a message at another server, and is no text that a device writes.
const loneDot = "is a dot alone between line ends that are not CR LF, which some servers take for the end of a " +
	"message (SMTP smuggling); end messages with CR LF . CR LF"
