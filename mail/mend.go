package mail

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// mendable reports whether mendHeader may help.
func (f *headerFault) mendable() bool {
	front := f.line == 1 && (errors.Is(f.err, errHeaderNotField) || errors.Is(f.err, errHeaderSpace))
	return front || errors.Is(f.err, errHeaderBlank)
}

// ofAuthor reports whether mendHeader may help where author fields are replaced.
func (f *headerFault) ofAuthor() bool {
	return errors.Is(f.err, errHeaderSpace) || errors.Is(f.err, errHeaderControl)
}

// readMended reads a header again without what mendHeader takes out; before is what was wrong with it.
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
	case err == nil && len(bytes.TrimSuffix(b[:s.body], []byte("\r\n\r\n"))) > MaxHeader-len(crlf): // or b is cut
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
	mark     bool  // a byte order mark was in front
	removed  []int // numbers of the lines that were taken out
	replaced bool  // author fields need no reading
	author   bool  // the last field is one
	cleaned  bool  // one was unreadable
}

// mendHeader copies a message without the lines that do not belong into its header: mbox lines in front
// ("From anna@example.com Mon Jan  1 …", also ">From "), which say nothing that a message has, and lines of white
// space only, which some readers take for a continuation and others for the end. A byte order mark in front goes too.
// In author fields, where those are replaced, so does white space before the colon, and control characters become blanks.
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

// isAuthorField reports the fields that CanonicalAuthors judges and writes.
func isAuthorField(name string) bool {
	switch strings.ToLower(name) {
	case "from", "sender", "resent-from", "resent-sender":
		return true
	}
	return false
}

// notes say what mendHeader did, nothing if that is nothing.
func (m *mending) notes() (notes []string) {
	switch n := len(m.removed); {
	case n == 1:
		notes = append(notes, fmt.Sprintf("line %d taken out of the header: an mbox line, or white space only", m.removed[0]))
	case n > 1:
		notes = append(notes, fmt.Sprintf("%d lines taken out of the header, the first is line %d: mbox lines, or white space only",
			n, m.removed[0]))
	case m.mark:
		notes = append(notes, "a byte order mark in front of the header taken out")
	}
	if m.cleaned {
		notes = append(notes, "control characters, or blanks before the colon, of an author field taken out")
	}
	return notes
}

// isMboxLine tells the line that mbox files have between messages, with an address and a time, from a field whose
// name is wrong: "From : anna", "From me: anna".
func isMboxLine(line []byte) bool {
	after, ok := bytes.CutPrefix(bytes.TrimPrefix(line, []byte{'>'}), []byte("From "))
	colon := bytes.IndexByte(after, ':')
	return ok && (colon < 0 || colon > 0 && after[colon-1] >= '0' && after[colon-1] <= '9')
}

// lineNumber is the number that a line of the mended header has in the message.
func (s *scan) lineNumber(n int64) int64 {
	for _, removed := range s.lines {
		if int64(removed) <= n {
			n++
		}
	}
	return n
}

// foldLong folds the fields that have lines over MaxLine. One word of text that is too long becomes several encoded ones.
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
		if err != nil && !isAuthorField(f.Name) { // those are written anew
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

// LongLine returns where the first line over MaxLine begins, len(raw) if there is none.
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

// FoldLong folds the lines of a field that are over MaxLine: at white space, in lists of addresses behind commas,
// in lists of message identifiers between them, in parameters behind semicolons, never inside of a quoted string
// or comment where those mean something. Lines that are short stay as they are.
func FoldLong(f Field) (Field, error) {
	if LongLine(f.Raw) == len(f.Raw) {
		return f, nil
	}
	good, others := foldPlaces(f)
	for _, places := range [][]foldPlace{good, others} {
		raw := foldAt(f.Raw, places)
		if LongLine(raw) == len(raw) {
			return Field{Name: f.Name, Raw: raw}, nil
		}
	}
	return f, fmt.Errorf("has more than %d octets, and %s has no place where it can be folded; shorten it",
		MaxLine, Printable(Cut(f.Name, 40)))
}

// foldPlace is an index before which CRLF may come; with a blank of its own where there is none.
type foldPlace struct {
	at    int
	blank bool
}

// foldPlaces returns the places to fold a field at: those that are good, and all.
func foldPlaces(f Field) (good, all []foldPlace) {
	separators := foldSeparators(f.Name)
	structured := separators != ""
	var nest nesting
	for i := len(f.Name) + 1; i < len(f.Raw)-2; i++ {
		c := f.Raw[i]
		if inside := nest.next(c); structured && inside || !wordFollows(f.Raw[i+1:]) && isBlank(c) || c == '\r' || c == '\n' {
			continue
		}
		next := f.Raw[i+1]
		switch {
		case isBlank(c) && !isBlank(f.Raw[i-1]) && f.Raw[i-1] != '\n':
			p := foldPlace{at: i}
			if i > len(f.Name)+1 && (!structured || strings.IndexByte(separators, f.Raw[i-1]) >= 0) {
				good = append(good, p)
			}
			all = append(all, p)
		case structured && separators != " " && strings.IndexByte(separators, c) >= 0 && !isBlank(next) && next != '\r':
			p := foldPlace{at: i + 1, blank: true}
			good, all = append(good, p), append(all, p)
		}
	}
	return good, all
}

// foldSeparators returns the characters behind which a field is best folded; "" for fields without structure.
func foldSeparators(name string) string {
	lower := strings.ToLower(name)
	switch lower {
	case "from", "sender", "reply-to", "to", "cc", "bcc", "mail-followup-to", "errors-to", "keywords",
		"disposition-notification-to", "return-receipt-to":
		return ","
	case "references", "in-reply-to", "message-id":
		return ">"
	case "dkim-signature", "domainkey-signature":
		return " " // a signature holds if white space stays where it was
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

// wordFollows reports whether there is more than white space on the line.
func wordFollows(b []byte) bool {
	for _, c := range b {
		if !isBlank(c) {
			return c != '\r'
		}
	}
	return false
}

// nesting knows whether an octet of a structured field is inside of a quoted string, comment or angle brackets.
type nesting struct {
	quoted, escaped, angle bool
	comments               int
}

// next takes the next octet and reports whether it, and what stands behind it, is inside.
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

// foldAt folds the long lines of a field at places, to 78 octets where it can.
func foldAt(raw []byte, places []foldPlace) []byte {
	out := make([]byte, 0, len(raw)+len(raw)/32)
	for at := 0; at < len(raw); {
		end := at + bytes.Index(raw[at:], crlf)
		long := end-at > MaxLine
		for long && end-at > foldWidth {
			for len(places) > 0 && places[0].at <= at {
				places = places[1:]
			}
			n := 0 // the last one that keeps the line short, or else the first
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
