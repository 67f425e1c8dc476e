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

// readMended reads a header again without what mendHeader takes out; before is what was wrong with it.
func readMended(b []byte, before error) (scan, error) {
	mended, lines := mendHeader(b)
	if len(mended) == len(b) {
		return scan{}, before
	}
	s, err := scanHeader(mended, MaxHeader, MaxHeaderFields)
	s.lines = lines
	s.header.Mended = append(s.header.Mended, mendedNote(lines))
	s.body += len(b) - len(mended)
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

// mendHeader copies a message without the lines that do not belong into its header, and returns their numbers:
// mbox lines in front ("From anna@example.com Mon Jan  1 …", also ">From "), which say nothing that a message
// has, and lines of white space only, which some readers take for a continuation and others for the end. A byte
// order mark in front goes too.
func mendHeader(b []byte) (mended []byte, removed []int) {
	rest := bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	mended = make([]byte, 0, len(rest))
	front := true
	for n := 1; ; n++ {
		i := bytes.IndexByte(rest, '\n')
		if i < 1 || i == 1 && rest[0] == '\r' {
			break // the end of the header, or of what is seen of it
		}
		line := rest[:i+1]
		front = front && isMboxLine(line)
		if front || bytes.HasSuffix(line, crlf) && len(bytes.Trim(line[:i-1], " \t")) == 0 && len(mended) > 0 {
			removed = append(removed, n)
		} else {
			mended = append(mended, line...)
		}
		rest = rest[i+1:]
	}
	return append(mended, rest...), removed
}

// mendedNote says what mendHeader did.
func mendedNote(lines []int) string {
	switch len(lines) {
	case 0:
		return "a byte order mark in front of the header taken out"
	case 1:
		return fmt.Sprintf("line %d taken out of the header: an mbox line, or white space only", lines[0])
	}
	return fmt.Sprintf("%d lines taken out of the header, the first is line %d: mbox lines, or white space only",
		len(lines), lines[0])
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

// foldLong folds the fields that have lines over MaxLine.
func (s *scan) foldLong() error {
	n := int64(1)
	fields := slices.Clone(s.header.Fields)
	var names []string
	for i, f := range fields {
		folded, err := FoldLong(f)
		if err != nil {
			n += int64(bytes.Count(f.Raw[:LongLine(f.Raw)], crlf))
			return newHeaderFault(s.lineNumber(n), f.Raw[LongLine(f.Raw):], err)
		}
		if len(folded.Raw) > len(f.Raw) {
			names = append(names, Printable(Cut(f.Name, 40)))
		}
		fields[i] = folded
		n += int64(bytes.Count(f.Raw, crlf))
	}
	s.header.Fields = fields
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
