package sign

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"postern/mail"
)

// readSize is how much of a message that is not in memory is read at a time, in octets.
const readSize = 64 << 10

// maxHeader bounds the header of a stored message: what mail.ReadHeader accepts, and our own fields.
const maxHeader = mail.MaxHeader + 256<<10

var errHeaderSize = errors.New("the header is larger than any that was accepted")

// Hash reads a message once. Its lines must end with CRLF. It fails if octets cannot be read or the header is
// malformed.
func Hash(c mail.Content, o Options) (*Digest, error) {
	d := &Digest{expire: o.Expire}
	body := bodyHash{hash: sha256.New()}
	take := func(header []byte) error {
		h, _, err := mail.SplitHeader(header)
		if err != nil {
			return err
		}
		return d.addHeader(h, o.Unsigned)
	}
	if err := feed(c, take, &body); err != nil {
		return nil, err
	}
	body.sum(&d.body)
	return d, nil
}

// addHeader picks the fields to sign and their order.
func (d *Digest) addHeader(h mail.Header, unsigned []string) error {
	if h.Count("From") != 1 {
		return errAuthor
	}
	omit := func(name string) bool {
		same := func(s string) bool { return strings.EqualFold(s, name) }
		return name != "From" && slices.ContainsFunc(unsigned, same)
	}
	for _, name := range oversigned {
		if !omit(name) {
			d.addFields(h, name)
			d.names = append(d.names, name)
		}
	}
	for _, name := range signed {
		if !omit(name) {
			d.addFields(h, name)
		}
	}
	return nil
}

// addFields adds all fields with a name from the bottom up, as RFC 6376 §5.4.2 counts them.
func (d *Digest) addFields(h mail.Header, name string) {
	for _, f := range slices.Backward(h.Fields) {
		if f.Is(name) {
			d.names = append(d.names, name)
			d.fields = append(appendRelaxed(d.fields, strings.ToLower(name), f.Body()), '\r', '\n')
		}
	}
}

// feed passes on the header and the body, without copying if they are in memory.
func feed(c mail.Content, header func([]byte) error, body *bodyHash) error {
	pieces := [][]byte{c.Bytes()}
	if p, ok := c.(interface{ Pieces() [][]byte }); ok && pieces[0] == nil {
		pieces = p.Pieces()
	}
	if len(pieces) == 0 || pieces[0] == nil {
		return feedReader(c, header, body)
	}
	end, found := headerEnd(pieces[0])
	if !found && len(pieces) > 1 {
		return feedReader(c, header, body)
	}
	if err := header(pieces[0][:end]); err != nil {
		return err
	}
	body.write(pieces[0][end:])
	for _, p := range pieces[1:] {
		body.write(p)
	}
	return nil
}

func feedReader(c mail.Content, header func([]byte) error, body *bodyHash) error {
	r, err := c.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	buf := make([]byte, readSize)
	n, err := io.ReadFull(r, buf)
	end, found := headerEnd(buf[:n])
	for !found && err == nil {
		if n > maxHeader {
			return errHeaderSize
		}
		buf = append(buf, make([]byte, len(buf))...)
		var more int
		more, err = io.ReadFull(r, buf[n:])
		n += more
		end, found = headerEnd(buf[:n])
	}
	if err != nil && !isEnd(err) {
		return err
	}
	if err := header(buf[:end]); err != nil {
		return err
	}
	body.write(buf[end:n])
	total := int64(n)
	for err == nil {
		n, err = io.ReadFull(r, buf)
		body.write(buf[:n])
		total += int64(n)
	}
	if !isEnd(err) {
		return err
	}
	if total != c.Size() { // never sign part of a message
		return fmt.Errorf("read %d of %d octets: %w", total, c.Size(), io.ErrUnexpectedEOF)
	}
	return nil
}

// isEnd reports whether io.ReadFull has reached the end.
func isEnd(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF }

// headerEnd returns where the body begins, or len(b) if there is no blank line in b.
func headerEnd(b []byte) (end int, found bool) {
	if bytes.HasPrefix(b, crlf) {
		return 2, true
	}
	if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 {
		return i + 4, true
	}
	return len(b), false
}

var (
	crlf      = []byte("\r\n")
	oneCR     = []byte("\r")
	oneBlank  = []byte(" ")
	twoBlanks = []byte("  ")
	blankCR   = []byte(" \r")
)

// appendRelaxed appends a field in relaxed canonical form (RFC 6376 §3.4.2), without CRLF. name must be in lower case.
func appendRelaxed(b []byte, name string, body []byte) []byte {
	b = append(append(b, name...), ':')
	start := len(b)
	space := false
	for _, c := range body {
		if c == ' ' || c == '\t' || c == '\r' || c == '\n' {
			space = true
			continue
		}
		if space && len(b) > start {
			b = append(b, ' ')
		}
		space = false
		b = append(b, c)
	}
	return b
}

// bodyHash hashes a body in relaxed canonical form (RFC 6376 §3.4.4), in pieces of any size: white space at the end of
// a line is dropped, runs of it become one blank, and empty lines at the end are dropped. Octets that are already
// canonical, which is nearly all, are hashed without copying.
type bodyHash struct {
	hash  hash.Hash
	lines int  // pending line ends: dropped if the body ends here
	blank bool // pending white space: dropped if the line ends here
	cr    bool // pending CR: LF may follow
	any   bool // something was hashed
	small []byte
}

// gather is the size in octets below which pieces are joined before they are hashed.
const gather = 512

func (h *bodyHash) write(b []byte) {
	s := scanner{b: b}
	for s.pos < len(b) {
		if !h.resume(&s) {
			return
		}
		start := s.pos
		s.pos = s.change()
		piece := b[start:s.pos]
		if s.pos == len(b) && len(piece) > 0 && piece[len(piece)-1] == '\r' {
			h.cr = true
			piece = piece[:len(piece)-1]
		}
		h.emit(piece)
		h.blank = s.pos < len(b)
	}
}

// resume decides on what is pending by the next octets. It returns false if there are none.
func (h *bodyHash) resume(s *scanner) bool {
	for h.blank && !h.cr && s.pos < len(s.b) && (s.b[s.pos] == ' ' || s.b[s.pos] == '\t') {
		s.pos++
	}
	if s.pos == len(s.b) {
		return false
	}
	if h.blank && !h.cr && s.b[s.pos] == '\r' {
		h.cr = true
		if s.pos++; s.pos == len(s.b) {
			return false
		}
	}
	if h.cr && s.b[s.pos] == '\n' {
		h.cr, h.blank = false, false
		h.lines++
		s.pos++
		return s.pos < len(s.b)
	}
	h.flushBlank()
	return true
}

// flushBlank hashes pending white space as a blank, and a CR that turned out to be bare.
func (h *bodyHash) flushBlank() {
	if h.blank {
		h.emit(oneBlank)
	}
	if h.cr {
		h.emit(oneCR)
	}
	h.blank, h.cr = false, false
}

// emit hashes canonical octets, but keeps trailing line ends pending.
func (h *bodyHash) emit(p []byte) {
	end := len(p)
	for end >= 2 && p[end-2] == '\r' && p[end-1] == '\n' {
		end -= 2
	}
	if end > 0 {
		for ; h.lines > 0; h.lines-- {
			h.put(crlf)
		}
		h.put(p[:end])
		h.any = true
	}
	h.lines += (len(p) - end) / 2
}

func (h *bodyHash) put(p []byte) {
	if len(p) < gather && len(h.small)+len(p) <= cap(h.small) {
		h.small = append(h.small, p...)
		return
	}
	h.hash.Write(h.small)
	h.small = h.small[:0]
	if len(p) >= gather {
		h.hash.Write(p)
		return
	}
	if h.small == nil {
		h.small = make([]byte, 0, 4*gather)
	}
	h.small = append(h.small, p...)
}

// sum ends the body. Unless empty, it ends with exactly one CRLF.
func (h *bodyHash) sum(out *[sha256.Size]byte) {
	if h.cr {
		h.flushBlank()
	}
	if h.any {
		h.put(crlf)
	}
	h.hash.Write(h.small)
	h.hash.Sum(out[:0])
}

// scanner finds the white space that the canonical form changes. Each of its three searches passes over the octets
// once.
type scanner struct {
	b                []byte
	pos              int
	tab, double, end int // the next match from pos on; stale if before pos
	started          bool
}

// change returns the index, from pos on, of white space other than a single blank before text, or of white space that
// reaches the end; len(b) if there is none.
func (s *scanner) change() int {
	rest := s.b[s.pos:]
	if !s.started || s.tab < s.pos {
		s.tab = s.at(bytes.IndexByte(rest, '\t'))
	}
	if !s.started || s.double < s.pos {
		s.double = s.at(bytes.Index(rest, twoBlanks))
	}
	if !s.started || s.end < s.pos {
		s.end = s.at(bytes.Index(rest, blankCR))
	}
	s.started = true
	first := min(s.tab, s.double, s.end)
	if first == s.tab && first > s.pos && first < len(s.b) && s.b[first-1] == ' ' {
		return first - 1
	}
	if first == len(s.b) && first > s.pos && s.b[first-1] == ' ' {
		return first - 1
	}
	return first
}

// at turns an index relative to pos into a position.
func (s *scanner) at(i int) int {
	if i < 0 {
		return len(s.b)
	}
	return s.pos + i
}
