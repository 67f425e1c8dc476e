// Package mangen writes manual pages, in mdoc: postern(1) and a page for each command from the tree of commands, and
// relay.toml(5) from the annotated relay.toml. It adds no words of its own about a command or a key, so that a page
// says what --help and relay.toml say.
package mangen

import (
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Page is one manual page.
type Page struct {
	Name string // of its file, such as postern-queue.1
	Text string
}

// width is how long lines of the source become, in octets; mandoc asks for at most 80.
const width = 78

// roff is a page while it is written.
type roff struct{ strings.Builder }

// newPage begins a page with its head and its name.
func newPage(date time.Time, name, section, about string) *roff {
	r := new(roff)
	fmt.Fprintf(r, ".Dd %s\n", date.UTC().Format("January 2, 2006"))
	r.macro("Dt", strings.ToUpper(name), section)
	r.WriteString(".Os Postern\n")
	r.macro("Sh", "NAME")
	r.macro("Nm", name)
	fmt.Fprintf(r, ".Nd %s\n", escape(strings.TrimSuffix(about, "."), false))
	return r
}

// macro writes a request whose arguments mean what they say, even those that are named as macros are.
func (r *roff) macro(name string, args ...string) {
	r.WriteString("." + name)
	for _, a := range args {
		r.WriteString(" " + argument(a))
	}
	r.WriteByte('\n')
}

var isPlain = regexp.MustCompile(`^([A-Z]{4,}|[0-9a-z][0-9a-z.]{3,}|[0-9]+)$`)

func argument(s string) string {
	if isPlain.MatchString(s) {
		return s
	}
	return `"\&` + strings.ReplaceAll(escape(s, true), `"`, `\(dq`) + `\&"`
}

// text writes paragraphs: blank lines separate them, and what is indented keeps its lines.
func (r *roff) text(s string) {
	for i, paragraph := range strings.Split(strings.Trim(s, "\n"), "\n\n") {
		if strings.HasPrefix(paragraph, "  ") {
			r.literal(paragraph)
			continue
		}
		if i > 0 {
			r.macro("Pp")
		}
		r.fill(strings.Fields(paragraph))
	}
}

// fill writes words in lines, each sentence on a line of its own, as mdoc wants it: the end of a line after a full stop
// is the end of a sentence, and gets more room.
func (r *roff) fill(words []string) {
	line := ""
	for i, word := range words {
		word = escape(word, false)
		if len(line)+1+len(word) > width && line != "" {
			if endsSentence(line) {
				line += `\&`
			}
			r.line(line)
			line = ""
		}
		line = strings.TrimLeft(line+" "+word, " ")
		if endsSentence(word) && i+1 < len(words) && begins(words[i+1]) {
			r.line(line)
			line = ""
		}
	}
	if line != "" {
		r.line(line)
	}
}

func endsSentence(s string) bool {
	return strings.ContainsAny(lastOf(strings.TrimRight(s, `)"'`)), ".?!")
}

func lastOf(s string) string {
	_, size := utf8.DecodeLastRuneInString(s)
	return s[len(s)-size:]
}

// begins reports whether a sentence may begin with a word.
func begins(word string) bool {
	first, _ := utf8.DecodeRuneInString(strings.TrimLeft(word, "(\"'`"))
	return !unicode.IsLower(first)
}

// line writes a line of text that no reader takes for a request.
func (r *roff) line(s string) {
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	r.WriteString(s + "\n")
}

// literal writes lines as they are.
func (r *roff) literal(s string) {
	r.WriteString(".Bd -literal -offset indent\n") // which begins a paragraph
	for line := range strings.Lines(strings.Trim(s, "\n")) {
		r.line(escape(strings.TrimPrefix(strings.TrimRight(line, "\n"), "  "), true))
	}
	r.WriteString(".Ed\n")
}

// escape writes text so that readers show it with the characters it has, which people copy. In literal text quotes
// stand as typed, too.
func escape(s string, literal bool) string {
	var b strings.Builder
	for _, c := range s {
		switch {
		case c == '\\':
			b.WriteString(`\e`)
		case c == '-':
			b.WriteString(`\-`)
		case c == '~':
			b.WriteString(`\(ti`)
		case c == '^':
			b.WriteString(`\(ha`)
		case c == '\'' && literal:
			b.WriteString(`\(aq`)
		case c == '`':
			b.WriteString(`\(ga`)
		case c >= utf8.RuneSelf:
			fmt.Fprintf(&b, `\[u%04X]`, c)
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}
