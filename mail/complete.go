package mail

import (
	"bytes"
	netmail "net/mail"
	"slices"
	"strings"
	"time"
)

// DateLayout is how we write a date (RFC 5322 §3.3).
const DateLayout = "Mon, 02 Jan 2006 15:04:05 -0700"

// Complete adds the fields that RFC 6409 §8 lets a submission server add if the message has no valid one: Date,
// Message-ID and MIME-Version. Valid fields keep their octets. Of fields that may occur once (RFC 5322 §3.6) only one
// stays: some providers refuse a message with two, and readers differ in which one they show. It returns the resulting
// Message-ID and, for the trace, what was changed.
func Complete(h *Header, now time.Time, messageID string) (id string, notes []string) {
	c := completion{Header: h}
	if c.hasOdd() {
		c.dropEmpty("To", "Cc", "Reply-To", "In-Reply-To", "References")
		c.unite("To", "Cc", "Reply-To")
		c.keepFirst("Subject", "In-Reply-To", "References")
		c.dropRepeated("Content-Type", "Content-Transfer-Encoding")
	}
	var added []Field
	if c.keepValid("Date", validDate) == "" {
		added = append(added, NewField("Date", now.Format(DateLayout)))
	}
	if id = c.keepValid("Message-ID", validMessageID); id == "" {
		id = messageID
		added = append(added, NewField("Message-ID", id))
	}
	if c.keepValid("MIME-Version", validVersion) == "" {
		added = append(added, NewField("MIME-Version", "1.0"))
	}
	if len(added) > 0 {
		h.Prepend(added...)
	}
	return bareID(id), c.notes
}

type completion struct {
	*Header
	notes []string
}

// unique are the fields of keepFirst and unite; once are those and the fields of dropRepeated.
var (
	unique = []string{"To", "Cc", "Reply-To", "Subject", "In-Reply-To", "References"}
	once   = append(slices.Clone(unique), "Content-Type", "Content-Transfer-Encoding")
)

// hasOdd reports whether a field that may occur once is repeated or empty. Ordinary mail has none.
func (c *completion) hasOdd() bool {
	var seen [8]bool
	for _, f := range c.Fields {
		for i, name := range once {
			if f.Is(name) {
				if seen[i] || len(bytes.TrimSpace(f.Body())) == 0 {
					return true
				}
				seen[i] = true
			}
		}
	}
	return false
}

func (c *completion) note(name, what string) {
	c.notes = append(c.notes, "the "+name+" field "+what)
}

func (c *completion) noteRepeated(name string) {
	c.notes = append(c.notes, "a repeated "+name+" field is removed")
}

// keepValid keeps the first field of a name that is valid or can be mended, and returns its value, "" if there is none.
// valid returns the mended value.
func (c *completion) keepValid(name string, valid func(string) (string, bool)) (kept string) {
	for i := 0; i < len(c.Fields); i++ {
		f := c.Fields[i]
		if !f.Is(name) {
			continue
		}
		value := f.Value()
		mended, ok := valid(value)
		switch {
		case ok && kept == "":
			if kept = mended; mended != value {
				c.Replace(i, NewField(f.Name, mended))
				c.note(name, "is written anew: "+quoted(value))
			}
			continue
		case ok || kept != "":
			c.noteRepeated(name)
		case value == "":
			c.note(name, "is replaced: it was empty")
		default:
			c.note(name, "is replaced: "+quoted(value)+" is not valid")
		}
		c.RemoveAt(i)
		i--
	}
	return kept
}

// quoted quotes an outside value for the trace.
func quoted(s string) string { return `"` + Printable(Cut(s, 60)) + `"` }

// keepFirst keeps the first non-empty field of each name.
func (c *completion) keepFirst(names ...string) {
	for _, name := range names {
		if c.Count(name) < 2 {
			continue
		}
		keep := c.Index(name)
		for i, f := range c.Fields {
			if f.Is(name) && f.Value() != "" {
				keep = i
				break
			}
		}
		c.removeBut(keep, name)
		c.noteRepeated(name)
	}
}

// dropEmpty removes fields without the required addresses or identifiers (RFC 5322 §3.6.3, §3.6.4): some providers
// refuse them.
func (c *completion) dropEmpty(names ...string) {
	for i := len(c.Fields) - 1; i >= 0; i-- {
		if f := c.Fields[i]; f.Value() == "" && slices.ContainsFunc(names, f.Is) {
			c.RemoveAt(i)
			c.note(f.Name, "is removed: it is empty")
		}
	}
}

// dropRepeated removes fields with the same value as the first of their name.
func (c *completion) dropRepeated(names ...string) {
	for _, name := range names {
		first := c.Index(name)
		for i := len(c.Fields) - 1; i > first && first >= 0; i-- {
			if c.Fields[i].Is(name) && c.Fields[i].Value() == c.Fields[first].Value() {
				c.RemoveAt(i)
				c.noteRepeated(name)
			}
		}
	}
}

// unite joins the fields of each name into one list, so that nobody is left out.
func (c *completion) unite(names ...string) {
	for _, name := range names {
		if c.Count(name) < 2 {
			continue
		}
		var b []byte
		for _, f := range c.All(name) {
			list := strings.Trim(string(f.Body()), " \t\r\n,")
			switch {
			case list == "":
			case b == nil:
				b = append(append(append(b, f.Name...), ": "...), list...)
			default:
				b = append(append(b, ",\r\n "...), list...)
			}
		}
		at := c.Index(name)
		if b == nil {
			c.Remove(name)
		} else {
			c.Replace(at, foldedList(Field{Name: name, Raw: append(b, crlf...)}))
			c.removeBut(at, name)
		}
		c.note(name, "occurred more than once: its lists are joined")
	}
}

// foldedList folds a joined field whose lines have become too long.
func foldedList(f Field) Field {
	if folded, err := FoldLong(f); err == nil {
		return folded
	}
	raw := bytes.Replace(f.Raw, []byte(": "), []byte(":\r\n "), 1) // the line was short enough without the name
	if folded, err := FoldLong(Field{Name: f.Name, Raw: raw}); err == nil {
		return folded
	}
	return f
}

// removeBut removes all fields of a name but the one at keep.
func (c *completion) removeBut(keep int, name string) {
	kept := make([]Field, 0, len(c.Fields))
	for i, f := range c.Fields {
		if i == keep || !f.Is(name) {
			kept = append(kept, f)
		}
	}
	c.Fields = kept
}

// otherDates are layouts of programs that do not follow RFC 5322 but do give the offset.
var otherDates = []string{
	time.RFC3339, "2006-01-02 15:04:05 -0700", "2006-01-02 15:04:05Z07:00", time.RubyDate,
	"Mon Jan _2 2006 15:04:05 GMT-0700", "Mon, 02 Jan 2006 15:04:05 GMT-0700",
	"Monday, 02-Jan-06 15:04:05 -0700", "Mon, _2-Jan-2006 15:04:05 -0700", "Mon Jan _2 15:04:05 2006 -0700",
	"Mon _2 Jan 2006 15:04:05 -0700", "_2 Jan 2006 15:04:05 -0700", "_2 Jan 2006 15:04:05 Z07:00",
	"_2 January 2006 15:04:05 -0700", "_2-Jan-2006 15:04:05 -0700",
}

// validDate accepts the dates of RFC 5322 §3.3 and §4.3 and converts other unambiguous ones.
func validDate(s string) (string, bool) {
	if _, err := time.Parse("Mon, _2 Jan 2006 15:04:05 -0700", s); err == nil { // ordinary mail, at a tenth of the cost
		return s, true
	}
	if IsASCII(s) {
		if _, err := netmail.ParseDate(s); err == nil {
			return s, true
		}
	}
	s, _, _ = strings.Cut(s, "(") // a time zone with umlauts
	s = strings.Trim(s, " \t")
	if t, err := netmail.ParseDate(s); err == nil {
		return t.Format(DateLayout), true
	}
	_, behind, _ := strings.Cut(s, ", ") // a weekday in full, or in another language
	for _, layout := range otherDates {
		for _, text := range []string{s, strings.TrimLeft(behind, " ")} {
			if t, err := time.Parse(layout, text); err == nil {
				return t.Format(DateLayout), true
			}
		}
	}
	return "", false
}

// validMessageID accepts one msg-id (RFC 5322 §3.6.4). It is lenient about characters, since answers refer to the id,
// and adds missing brackets.
func validMessageID(s string) (string, bool) {
	id := bareID(s)
	if strings.HasPrefix(id, "<") && strings.HasSuffix(id, ">") {
		return s, isMessageID(id[1 : len(id)-1])
	}
	return "<" + id + ">", isMessageID(id)
}

// bareID is a Message-ID without comments before and after it.
func bareID(s string) string {
	for strings.HasPrefix(s, "(") && CommentLen(s) > 0 {
		s = strings.TrimLeft(s[CommentLen(s):], " \t")
	}
	if end := strings.IndexByte(s, '>'); end > 0 {
		rest := strings.TrimLeft(s[end+1:], " \t")
		if strings.HasPrefix(rest, "(") && CommentLen(rest) == len(rest) {
			return s[:end+1]
		}
	}
	return s
}

func isMessageID(s string) bool {
	if len(s) > 900 { // must fit on one line with the name
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' || s[i] == '<' || s[i] == '>' {
			return false
		}
	}
	left := ""
	if strings.HasPrefix(s, `"`) { // the quoted string of an old id may have any number of at signs
		left = s[:QuotedLen(s)]
	}
	more, right, ok := strings.Cut(s[len(left):], "@")
	return ok && left+more != "" && right != "" && !strings.Contains(right, "@")
}

// validVersion accepts 1.0, with comments and white space anywhere (RFC 2045 §4).
func validVersion(s string) (string, bool) {
	var b strings.Builder
	for rest := s; rest != ""; {
		if rest[0] == '(' {
			n := CommentLen(rest)
			if n == 0 {
				return "", false
			}
			rest = rest[n:]
			continue
		}
		if rest[0] != ' ' && rest[0] != '\t' {
			b.WriteByte(rest[0])
		}
		rest = rest[1:]
	}
	return s, b.String() == "1.0" && IsASCII(s)
}
