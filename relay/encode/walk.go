package encode

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"

	"postern/mail"
)

// pieceSize bounds a piece, and so the memory, in octets.
const pieceSize = 64 << 10

// maxParts bounds the parts of a message.
const maxParts = 10_000

// piece is a line, or a part of a very long one.
type piece struct {
	b     []byte // with CRLF at the end of the line
	line  int64  // its number
	first bool   // it begins the line
	long  bool   // the line is over mail.MaxLine
	like  bool   // the line begins like a delimiter but is none
}

// visitor sees all octets of a body in order.
type visitor interface {
	header(e *entity) error           // the complete header of a part
	body(e *entity, p piece) error    // of a part without parts of its own
	outside(e *entity, p piece) error // before, between and after parts; e is nil after the last
	end(e *entity) error              // the end of a part
}

// walker parses a body (RFC 2046 §5.1). A line is the delimiter of the innermost multipart that it matches.
type walker struct {
	v     visitor
	in    *bufio.Reader
	line  int64
	begun bool // inside a line
	long  bool // the line is long

	open   []*entity // multiparts, outermost first
	part   *entity   // the part whose body is being read
	parent *entity   // the parent of the part whose header is being read
	state  func(*walker, piece) error
	head   []byte // the header being read
	start  int64  // number of its first line
	number int    // of the last part
}

// walk reads the body of a message whose header is known.
func walk(r io.Reader, h mail.Header, line int64, v visitor) error {
	w := &walker{v: v, in: bufio.NewReaderSize(r, pieceSize), line: line - 1}
	top := &entity{header: h, formed: true, line: 1}
	top.read(false)
	if err := w.enter(top); err != nil {
		return err
	}
	for {
		p, err := w.next()
		if err == nil {
			err = w.take(p)
		}
		if errors.Is(err, io.EOF) {
			return w.close(0)
		}
		if err != nil {
			return err
		}
	}
}

// next reads the next piece.
func (w *walker) next() (piece, error) {
	b, err := w.in.ReadSlice('\n')
	if len(b) == 0 && err != nil {
		return piece{}, err
	}
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
		return piece{}, err
	}
	first := !w.begun
	if first {
		w.line++
		w.long = len(bytes.TrimSuffix(b, []byte("\r\n"))) > mail.MaxLine
	}
	w.begun = b[len(b)-1] != '\n'
	return piece{b: b, line: w.line, first: first, long: w.long}, nil
}

// take handles a piece, which may be a delimiter.
func (w *walker) take(p piece) error {
	if p.first && bytes.HasPrefix(p.b, []byte("--")) {
		for i := len(w.open) - 1; i >= 0; i-- {
			switch d := delimits(p.b, w.open[i].boundary); {
			case d == like || d != none && w.begun:
				p.like = true
			case d != none:
				return w.delimiter(i, d, p)
			}
		}
	}
	return w.state(w, p)
}

// delimiter handles a delimiter of the multipart at index i: it ends everything inside.
func (w *walker) delimiter(i int, d delimiter, p piece) error {
	if err := w.close(i + 1); err != nil {
		return err
	}
	e := w.open[i]
	if d == closes {
		if err := w.close(i); err != nil {
			return err
		}
		w.state = (*walker).outside
		return w.v.outside(nil, p)
	}
	e.parts++
	w.begin(e, p.line+1)
	return w.v.outside(e, p)
}

// close ends the current part and the multiparts from index i on.
func (w *walker) close(i int) error {
	if w.parent != nil {
		if err := w.endHeader(true); err != nil { // a part without a body
			return err
		}
	}
	if w.part != nil {
		if err := w.v.end(w.part); err != nil {
			return err
		}
		w.part = nil
	}
	for len(w.open) > i {
		e := w.open[len(w.open)-1]
		w.open = w.open[:len(w.open)-1]
		if err := w.v.end(e); err != nil {
			return err
		}
	}
	w.parent = nil
	return nil
}

// begin starts reading the header of a part.
func (w *walker) begin(parent *entity, line int64) {
	w.parent, w.part, w.head, w.start = parent, nil, w.head[:0], line
	w.state = (*walker).header
}

func (w *walker) header(p piece) error {
	if len(w.head)+len(p.b) > mail.MaxHeader {
		if err := w.endHeader(false); err != nil {
			return err
		}
		return w.state(w, p)
	}
	w.head = append(w.head, p.b...)
	if p.first && len(bytes.TrimSuffix(bytes.TrimSuffix(p.b, []byte{'\n'}), []byte{'\r'})) == 0 {
		return w.endHeader(true)
	}
	return nil
}

// endHeader parses the header of a part, if it is whole, and goes on to its body.
func (w *walker) endHeader(whole bool) error {
	if w.number++; w.number > maxParts {
		return mail.Refuse(mail.R(550, "5.6.0", "the message has lines of more than %d octets, "+
			"and more than %d parts are too many to look for them", mail.MaxLine, maxParts), nil)
	}
	e := &entity{number: w.number, line: w.start, depth: w.parent.depth + 1, raw: w.head}
	h, body, err := mail.SplitHeader(e.raw)
	if e.formed = whole && err == nil && body == len(e.raw); e.formed {
		e.header = h
	}
	e.read(w.parent.digest)
	w.parent = nil
	w.avoidTwins(e)
	if err := w.v.header(e); err != nil {
		return err
	}
	return w.enter(e)
}

const twins = "a multipart has the boundary of another one around it"

// avoidTwins locks a multipart whose delimiters could be those of one around it.
func (w *walker) avoidTwins(e *entity) {
	twin := func(o *entity) bool { return isTwin(e.boundary, o.boundary) }
	if e.kind == multipart && slices.ContainsFunc(w.open, twin) {
		e.kind, e.locked = leaf, twins
	}
}

// isTwin reports whether a delimiter of one boundary can be one of the other.
func isTwin(a, b string) bool { return a == b || a == b+"--" || b == a+"--" }

// enter goes on to the body of an entity.
func (w *walker) enter(e *entity) error {
	switch e.kind {
	case multipart:
		w.open = append(w.open, e)
		w.state = (*walker).outside
	case message:
		w.begin(e, w.line+1)
	default:
		w.part = e
		w.state = (*walker).body
	}
	return nil
}

func (w *walker) body(p piece) error { return w.v.body(w.part, p) }

func (w *walker) outside(p piece) error {
	if len(w.open) == 0 {
		return w.v.outside(nil, p)
	}
	return w.v.outside(w.open[len(w.open)-1], p)
}
