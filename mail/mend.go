package mail

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// mendable reports whether mendHeader may fix the fault.
func (f *headerFault) mendable() bool {
	front := f.line == 1 && (errors.Is(f.err, errHeaderNotField) || errors.Is(f.err, errHeaderSpace))
	return front || errors.Is(f.err, errHeaderBlank)
}

// ofAuthor reports whether mendHeader may fix the fault if author fields are replaced.
func (f *headerFault) ofAuthor() bool {
	return errors.Is(f.err, errHeaderSpace) || errors.Is(f.err, errHeaderControl)
}

// readMended reads a header again after mendHeader. before is the fault to return if there is nothing to mend.
func readMended(b []byte, before error, replaced bool) (scan, error) {
	m := mendHeader(b, replaced)
	if m.notes() == nil {
		return scan{}, before
	}
	s, err := scanHeader(m.out, MaxHeader, MaxHeaderFields)
	s.lines = m.removed
	s.header.Mended = append(s.header.Mended, m.notes()...)
	s.body += len(b) - len(m.out)
	fault, ok := errors.AsType[*headerFault](err)
	switch {
	case err == nil && len(bytes.TrimSuffix(b[:s.body], []byte("\r\n\r\n"))) > MaxHeader-len(crlf): // or b was cut
		err = errHeaderSize
	case !ok:
	case errors.Is(err, errHeaderLineEnd) && len(b) > MaxHeader:
		err = errHeaderSize
	default:
		fault.line = s.lineNumber(fault.line)
	}
	return s, err
}

// mending is a message whose header was mended.
type mending struct {
	out      []byte
	mark     bool  // there was a byte order mark in front
	removed  []int // numbers of the removed lines
	replaced bool  // author fields will be replaced
	author   bool  // the last field is an author field
	cleaned  bool  // an author field was cleaned
}

// mendHeader copies a message without the lines that do not belong in its header: mbox lines in front ("From
// anna@example.com Mon Jan 1 …", also ">From "), and lines of only white space, which some readers take for a
// continuation and others for the end. It also removes a byte order mark. If author fields will be replaced, it removes
// white space before their colon and turns control characters in them into blanks.
func mendHeader(b []byte, replaced bool) *mending {
	rest := bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	m := &mending{out: make([]byte, 0, len(rest)), mark: len(rest) < len(b), replaced: replaced}
	front := true
	for n := 1; ; n++ {
		i := bytes.IndexByte(rest, '\n')
		if i < 1 || i == 1 && rest[0] == '\r' {
			break // the end of the header, or of what is seen of it
		}
		line := rest[:i+1]
		front = front && isMboxLine(line)
		if front || bytes.HasSuffix(line, crlf) && len(bytes.Trim(line[:i-1], " \t")) == 0 && len(m.out) > 0 {
			m.removed = append(m.removed, n)
		} else {
			m.add(line)
		}
		rest = rest[i+1:]
	}
	m.out = append(m.out, rest...)
	return m
}

// add adds a line that stays.
func (m *mending) add(line []byte) {
	start := len(m.out)
	if !isBlank(line[0]) {
		name, value, found := bytes.Cut(line, []byte{':'})
		bare := bytes.TrimRight(name, " \t")
		m.author = m.replaced && found && isAuthorField(string(bare))
		if m.author && len(bare) < len(name) {
			m.out = append(append(m.out, bare...), ':')
			line, m.cleaned = value, true
		}
	}
	m.out = append(m.out, line...)
	if !m.author {
		return
	}
	text := bytes.TrimSuffix(m.out[start:], crlf)
	for i, c := range text {
		if c < ' ' && c != '\t' || c == 0x7f {
			text[i], m.cleaned = ' ', true
		}
	}
}

// isAuthorField reports whether CanonicalAuthors handles a field.
func isAuthorField(name string) bool {
	switch strings.ToLower(name) {
	case "from", "sender", "resent-from", "resent-sender":
		return true
	}
	return false
}

// notes say what mendHeader changed, nil if nothing.
func (m *mending) notes() (notes []string) {
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	switch n := len(m.removed); {
	case n == 1:
		note("line %d removed from the header: an mbox line, or only white space", m.removed[0])
	case n > 1:
		note("%d lines removed from the header, the first is line %d: mbox lines, or only white space", n, m.removed[0])
	case m.mark:
		note("byte order mark before the header removed")
	}
	if m.cleaned {
		note("control characters, or blanks before the colon, removed from an author field")
	}
	return notes
}

// isMboxLine reports whether a line is the separator of mbox files, with an address and a time, and not a field with a
// bad name: "From : anna", "From me: anna".
func isMboxLine(line []byte) bool {
	after, ok := bytes.CutPrefix(bytes.TrimPrefix(line, []byte{'>'}), []byte("From "))
	colon := bytes.IndexByte(after, ':')
	return ok && (colon < 0 || colon > 0 && after[colon-1] >= '0' && after[colon-1] <= '9')
}

// lineNumber maps a line number of the mended header to the message's.
func (s *scan) lineNumber(n int64) int64 {
	for _, removed := range s.lines {
		if int64(removed) <= n {
			n++
		}
	}
	return n
}

// foldLong folds the fields with lines over MaxLine. A word too long for a line becomes several encoded words.
func (s *scan) foldLong() error {
	n := int64(1)
	fields := slices.Clone(s.header.Fields)
	var names []string
	for i, f := range fields {
		folded, err := FoldLong(f)
		if err != nil {
			if short, ok := s.header.shortened(f); ok {
				folded, err = short, nil
			}
		}
		if err != nil && !isAuthorField(f.Name) { // CanonicalAuthors rewrites those
			n += int64(bytes.Count(f.Raw[:LongLine(f.Raw)], crlf))
			return newHeaderFault(s.lineNumber(n), f.Raw[LongLine(f.Raw):], err)
		}
		if LongLine(f.Raw) < len(f.Raw) && LongLine(folded.Raw) == len(folded.Raw) {
			names = append(names, Printable(Cut(f.Name, 40)))
		}
		fields[i] = folded
		n += int64(bytes.Count(f.Raw, crlf))
	}
	s.header.Fields = fields
	if names == nil {
		return nil
	}
	s.header.Mended = append(s.header.Mended,
		fmt.Sprintf("header lines over %d octets folded: %s", MaxLine, Cut(strings.Join(names, ", "), 200)))
	return nil
}

// LongLine returns the index of the first line over MaxLine, len(raw) if there is none.
func LongLine(raw []byte) int {
	at := 0
	for at < len(raw) {
		i := bytes.Index(raw[at:], crlf)
		if i < 0 || i > MaxLine {
			return at
		}
		at += i + len(crlf)
	}
	return at
}

// FoldLong folds the lines of a field that are over MaxLine: at white space, after commas in address lists, between
// message identifiers, after semicolons in parameters; never inside a quoted string or comment of a structured field.
// Short lines stay as they are.
func FoldLong(f Field) (Field, error) {
	if LongLine(f.Raw) == len(f.Raw) {
		return f, nil
	}
	good, all := foldPlaces(f)
	for _, places := range [][]foldPlace{good, all} {
		raw := foldAt(f.Raw, places)
		if LongLine(raw) == len(raw) {
			return Field{Name: f.Name, Raw: raw}, nil
		}
	}
	return f, fmt.Errorf("has more than %d octets, and %s has no place where it can be folded; shorten it",
		MaxLine, Printable(Cut(f.Name, 40)))
}

// foldPlace is an index before which CRLF may be inserted.
type foldPlace struct {
	at    int
	blank bool // a blank must follow the CRLF
}

// foldPlaces returns where a field can be folded: the preferred places, and all.
func foldPlaces(f Field) (good, all []foldPlace) {
	separators := foldSeparators(f.Name)
	structured := separators != ""
	var nest nesting
	for i := len(f.Name) + 1; i < len(f.Raw)-2; i++ {
		c := f.Raw[i]
		inside := nest.next(c) && structured
		if inside || isBlank(c) && !wordFollows(f.Raw[i+1:]) || c == '\r' || c == '\n' {
			continue
		}
		next := f.Raw[i+1]
		separates := structured && separators != " " && strings.IndexByte(separators, c) >= 0
		switch {
		case isBlank(c) && !isBlank(f.Raw[i-1]) && f.Raw[i-1] != '\n':
			p := foldPlace{at: i}
			if i > len(f.Name)+1 && (!structured || strings.IndexByte(separators, f.Raw[i-1]) >= 0) {
				good = append(good, p)
			}
			all = append(all, p)
		case separates && !isBlank(next) && next != '\r':
			p := foldPlace{at: i + 1, blank: true}
			good, all = append(good, p), append(all, p)
		}
	}
	return good, all
}

// foldSeparators returns the character after which to fold a field; "" for an unstructured field.
func foldSeparators(name string) string {
	lower := strings.ToLower(name)
	switch lower {
	case "from", "sender", "reply-to", "to", "cc", "bcc", "mail-followup-to", "errors-to", "keywords",
		"disposition-notification-to", "return-receipt-to":
		return ","
	case "references", "in-reply-to", "message-id":
		return ">"
	case "dkim-signature", "domainkey-signature":
		return " " // the signature stays valid if folds replace existing white space
	case "received", "authentication-results", "mime-version", "date":
		return ";"
	}
	switch prefix, _, _ := strings.Cut(lower, "-"); prefix {
	case "resent", "list":
		return ","
	case "content":
		return ";"
	case "arc":
		return " "
	}
	return ""
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// wordFollows reports whether the rest of the line has more than white space.
func wordFollows(b []byte) bool {
	for _, c := range b {
		if !isBlank(c) {
			return c != '\r'
		}
	}
	return false
}

// nesting tracks quoted strings, comments and angle brackets in a structured field.
type nesting struct {
	quoted, escaped, angle bool
	comments               int
}

// next takes the next octet and reports whether the position after it is inside any of them.
func (n *nesting) next(c byte) bool {
	switch {
	case n.escaped:
		n.escaped = false
	case c == '\\' && (n.quoted || n.comments > 0):
		n.escaped = true
	case n.quoted:
		n.quoted = c != '"'
	case c == '(':
		n.comments++
	case n.comments > 0:
		if c == ')' {
			n.comments--
		}
	case c == '"':
		n.quoted = true
	case c == '<', c == '>':
		n.angle = c == '<'
	}
	return n.quoted || n.comments > 0 || n.angle
}

// foldAt folds the long lines of a field at places, to 78 octets if possible.
func foldAt(raw []byte, places []foldPlace) []byte {
	out := make([]byte, 0, len(raw)+len(raw)/32)
	for at := 0; at < len(raw); {
		end := at + bytes.Index(raw[at:], crlf)
		long := end-at > MaxLine
		for long && end-at > foldWidth {
			for len(places) > 0 && places[0].at <= at {
				places = places[1:]
			}
			n := 0 // the last one that keeps the line short, else the first
			for n+1 < len(places) && places[n+1].at <= at+foldWidth {
				n++
			}
			if n >= len(places) || places[n].at >= end {
				break
			}
			out = append(append(out, raw[at:places[n].at]...), crlf...)
			if places[n].blank {
				out = append(out, ' ')
			}
			at = places[n].at
		}
		out = append(out, raw[at:end+2]...)
		at = end + 2
	}
	return out
}
