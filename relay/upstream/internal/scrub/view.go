package scrub

import (
	"html"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// view is a text as one of its readers takes it. It knows where each of its octets comes from.
type view struct {
	text     string
	from, to []int // of each octet in the source; nil: it is the source
	joined   bool  // words are put together that are none
}

// source is where octets i to j of a view come from.
func (v *view) source(i, j int) (from, to int) {
	if v.from == nil {
		return i, j
	}
	return v.from[i], v.to[j-1]
}

// builder makes a view of another one.
type builder struct {
	of  *view
	out view
	b   strings.Builder
}

// add adds what octets i to j of the other view stand for.
func (b *builder) add(text string, i, j int) {
	from, to := b.of.source(i, j)
	b.b.WriteString(text)
	for range len(text) {
		b.out.from, b.out.to = append(b.out.from, from), append(b.out.to, to)
	}
}

// maxViews bounds how often a text is unescaped: JSON in an address in JSON.
const maxViews = 3

// views are the text, the text with one layer of escapes after the other undone, and each of these without white space
// where has finds something in it.
func views(text string, has func(squeezed string) bool) []*view {
	all := []*view{{text: text}}
	for len(all) < maxViews {
		v := unescaped(all[len(all)-1])
		if v == nil {
			break
		}
		all = append(all, v)
	}
	for _, v := range all {
		if strings.ContainsAny(v.text, blanks) && has(squeezed(v.text)) {
			all = append(all, joined(v))
		}
	}
	return all
}

// unescaped undoes the escapes of JSON and C, percent-encoding, character references and quoted-printable; nil: there
// are none.
func unescaped(v *view) *view {
	if !strings.ContainsAny(v.text, `\%&=`) {
		return nil
	}
	b := builder{of: v}
	found := false
	for i := 0; i < len(v.text); {
		text, n := unescape(v.text[i:])
		if n == 0 {
			text, n = v.text[i:i+1], 1
		} else {
			found = true
		}
		b.add(text, i, i+n)
		i += n
	}
	if !found {
		return nil
	}
	b.out.text = b.b.String()
	return &b.out
}

// unescape reads the escape at the beginning of s: what it stands for and its length, 0 for none.
func unescape(s string) (text string, n int) {
	switch s[0] {
	case '\\':
		return backslash(s)
	case '%', '=':
		if octet, ok := number(s, 1, 2); ok {
			return string([]byte{byte(octet)}), 3
		}
		if strings.HasPrefix(s, "=\r\n") {
			return "", 3
		}
	case '&':
		if end := strings.IndexByte(s[:min(len(s), 12)], ';'); end > 0 {
			if text = html.UnescapeString(s[:end+1]); text != s[:end+1] {
				return text, end + 1
			}
		}
	}
	return "", 0
}

func backslash(s string) (text string, n int) {
	if len(s) < 2 {
		return "", 0
	}
	switch s[1] {
	case 'u':
		high, ok := number(s, 2, 4)
		if !ok {
			return "", 0
		}
		if low, ok := number(s, 8, 4); ok && s[6:8] == `\u` {
			if r := utf16.DecodeRune(rune(high), rune(low)); r != utf8.RuneError {
				return string(r), 12
			}
		}
		return string(rune(high)), 6
	case 'x':
		if octet, ok := number(s, 2, 2); ok {
			return string([]byte{byte(octet)}), 4
		}
	case 'n', 'r', 't', 'b', 'f':
		return " ", 2
	case '/', '\\', '"', '\'':
		return s[1:2], 2
	}
	return "", 0
}

// number reads digits of base 16.
func number(s string, at, digits int) (uint64, bool) {
	if len(s) < at+digits {
		return 0, false
	}
	n, err := strconv.ParseUint(s[at:at+digits], 16, 32)
	return n, err == nil
}

// blanks are what separates words and lines.
const blanks = " \t\r\n"

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func squeezed(s string) string {
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		if !isBlank(s[i]) {
			b = append(b, s[i])
		}
	}
	return string(b)
}

// joined is a view without its white space.
func joined(v *view) *view {
	b := builder{of: v}
	b.out.joined = true
	for i := range len(v.text) {
		if !isBlank(v.text[i]) {
			b.add(v.text[i:i+1], i, i+1)
		}
	}
	b.out.text = b.b.String()
	return &b.out
}
