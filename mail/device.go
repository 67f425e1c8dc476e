package mail

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// ReadDeviceHeader is ReadHeader for what old devices and programs write. Where ReadHeader refuses, it mends: a blank
// line that is missing, or has white space in it, before the body; a fold without white space; white space before a
// colon; control characters; a line in front that is no field. Whatever it takes a line for, so does every reader
// behind it, since the header that it returns has one meaning. It still refuses what is too large.
func ReadDeviceHeader(b []byte) (h Header, body int, err error) {
	if h, body, err = readDeviceLines(b); err == nil {
		h.mendFields()
	}
	return h, body, err
}

func readDeviceLines(b []byte) (h Header, body int, err error) {
	s, err := scanHeader(b, MaxHeader, MaxHeaderFields)
	if err == nil && !s.long {
		return s.header, s.body, nil
	}
	m := deviceMending{rest: b}
	for m.next() {
	}
	s, err = scanHeader(append(m.out, crlf...), MaxHeader, MaxHeaderFields)
	s.body, s.lines = len(b)-len(m.rest), m.removed
	s.header.Mended = m.notes()
	if err == nil && s.body > MaxHeader+len(crlf) {
		err = errHeaderSize
	}
	if err == nil && s.long {
		s.header.encodeLongWords()
		err = s.foldLong()
	}
	if err != nil {
		return Header{}, 0, refuseHeader(err)
	}
	return s.header, s.body, nil
}

// encodeLongWords writes text fields that cannot be folded as encoded words, which readers show as the same text.
func (h *Header) encodeLongWords() {
	for i, f := range h.Fields {
		if _, err := FoldLong(f); err == nil || isOneOf(f, structured) || isOneOf(f, addressFields) ||
			isOneOf(f, parametric) {
			continue
		}
		text, err := decodeWords(h.decode(f.Value()))
		if err != nil {
			continue
		}
		if short, ok := encodeField(f, text); ok && LongLine(short.Raw) == len(short.Raw) {
			h.Replace(i, short)
			name := Printable(Cut(f.Name, 40))
			h.Mended = append(h.Mended, "the "+name+" field is rewritten: a word of it was too long")
		}
	}
}

// deviceMending is a header that is mended line by line.
type deviceMending struct {
	rest []byte // of the message
	line int    // number of the line that rest begins with, from 0
	out  []byte // the header without its blank line

	removed  []int // numbers of lines that were left out, from 1
	joined   []int // of lines that became folds
	ended    int   // of the line that the body was found at without a blank line before it
	blank    int   // of a line of white space that was taken for the blank line
	controls int   // lines that had control characters
	colons   int   // fields with white space before their colon
}

// next takes the next line and reports whether the header goes on.
func (m *deviceMending) next() bool {
	i := bytes.IndexByte(m.rest, '\n')
	if i < 1 || len(m.out) > MaxHeader { // the end, or too large; LF alone does not reach us
		m.out, m.rest = append(m.out, m.rest...), nil
		return false
	}
	m.line++
	line, rest := m.clean(m.rest[:i-1]), m.rest[i+1:]
	if m.line == 1 {
		line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
	}
	switch {
	case len(line) == 0 && i == 1:
		m.rest = rest
		return false
	case len(bytes.Trim(line, " \t")) == 0:
		if !fieldsFollow(rest) {
			m.blank, m.rest = m.line, rest
			return false
		}
		m.removed = append(m.removed, m.line)
	case isBlank(line[0]) && len(m.out) > 0:
		m.add(line)
	case len(m.out) == 0 && isMboxLine(append(slices.Clone(line), '\r', '\n')):
		m.removed = append(m.removed, m.line)
	default:
		if !m.field(bytes.TrimLeft(line, " \t"), rest) {
			return false
		}
	}
	m.rest = rest
	return true
}

// field takes a line that should begin a field, and reports whether the header goes on.
func (m *deviceMending) field(line, rest []byte) bool {
	name, value, found := bytes.Cut(line, []byte{':'})
	bare := bytes.TrimRight(name, " \t")
	switch {
	case checkName(line) == nil:
		m.add(line)
	case found && len(bare) < len(name) && checkName(append(slices.Clone(bare), ':')) == nil:
		m.colons++
		m.add(slices.Concat(bare, []byte{':'}, value))
	case bytes.HasPrefix(line, []byte("--")) || !fieldsFollow(rest): // a MIME boundary, or text
		m.ended = m.line
		m.line--
		return false
	case len(m.out) == 0:
		m.removed = append(m.removed, m.line)
	default:
		m.joined = append(m.joined, m.line)
		m.add(append([]byte{' '}, line...))
	}
	return true
}

func (m *deviceMending) add(line []byte) { m.out = append(append(m.out, line...), crlf...) }

// clean makes blanks of control characters.
func (m *deviceMending) clean(line []byte) []byte {
	isControl := func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
	if !bytes.ContainsFunc(line, isControl) {
		return line
	}
	m.controls++
	line = slices.Clone(line)
	for i, c := range line {
		if isControl(rune(c)) {
			line[i] = ' '
		}
	}
	return line
}

// maxAhead bounds how far fieldsFollow looks, in lines.
const maxAhead = 100

// usualFields are the names of fields that no text begins its lines with by chance.
var usualFields = []string{"from", "to", "cc", "bcc", "sender", "reply-to", "subject", "date", "message-id",
	"mime-version", "in-reply-to", "references", "importance", "priority", "received", "return-path", "user-agent",
	"organization", "errors-to", "return-receipt-to", "disposition-notification-to"}

// fieldsFollow reports whether there is a field among the lines before the next blank one.
func fieldsFollow(rest []byte) bool {
	for range maxAhead {
		i := bytes.IndexByte(rest, '\n')
		if i < 2 {
			return false
		}
		name, _, found := bytes.Cut(rest[:i], []byte{':'})
		lower := strings.ToLower(string(bytes.TrimRight(name[:min(len(name), 64)], " \t")))
		prefix, _, _ := strings.Cut(lower, "-")
		if found && checkName([]byte(lower+":")) == nil && (slices.Contains(usualFields, lower) ||
			len(prefix) < len(lower) && slices.Contains([]string{"x", "content", "resent", "list"}, prefix)) {
			return true
		}
		rest = rest[i+1:]
	}
	return false
}

// notes say what was mended, nil if nothing.
func (m *deviceMending) notes() (notes []string) {
	note := func(n int, format string, args ...any) {
		if n > 0 {
			notes = append(notes, fmt.Sprintf(format, args...))
		}
	}
	first := func(lines []int) int { return append(lines, 0)[0] }
	note(len(m.removed), "%s removed from the header: not a field, or only white space", lineNumbers(m.removed))
	note(first(m.joined), "%s joined to the header field before: no field of its own", lineNumbers(m.joined))
	note(m.ended, "a blank line is added before line %d: the body began without one", m.ended)
	note(m.blank, "line %d is taken for the blank line before the body: it has only white space", m.blank)
	note(m.controls, "control characters in the header became blanks, in %d lines", m.controls)
	note(m.colons, "white space before the colon of %d header fields is removed", m.colons)
	return notes
}

// lineNumbers writes up to five of them.
func lineNumbers(lines []int) string {
	var b strings.Builder
	b.WriteString("line")
	if len(lines) > 1 {
		b.WriteString("s")
	}
	for i, n := range lines {
		switch {
		case i == 5:
			fmt.Fprintf(&b, " and %d more", len(lines)-5)
			return b.String()
		case i > 0:
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %d", n)
	}
	return b.String()
}

// OneAuthorField keeps of several From fields the one at index i.
func OneAuthorField(h *Header, i int) {
	kept := make([]Field, 0, len(h.Fields))
	for j, f := range h.Fields {
		if j == i || !f.Is("From") {
			kept = append(kept, f)
		}
	}
	h.Fields = kept
}

// WithoutNamed takes the display names that show an address out of the From fields, and reports whether there was any.
func WithoutNamed(h *Header) (changed bool) {
	for i, f := range h.Fields {
		boxes, err := []mailbox(nil), error(nil)
		if f.Is("From") {
			boxes, err = readAuthors(f)
		}
		if err != nil {
			continue
		}
		shows := false
		for j := range boxes {
			if len(boxes[j].named()) > 0 {
				boxes[j].name, shows = "", true
			}
		}
		if shows {
			h.Replace(i, authorField(f.Name, boxes))
			changed = true
		}
	}
	return changed
}
