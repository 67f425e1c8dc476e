package large

import (
	"io"
	"mime"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-message/charset"

	"postern/mail"
)

// Bounds of a value with parameters. The header of a part may be as long as the message, and what is read of it is
// kept.
const (
	maxValue      = 16 << 10 // octets that are read; long file names in many sections need less
	maxParameters = 64
	maxSections   = 200 // of one parameter, RFC 2231 §3
)

// readParameters reads a value with parameters (RFC 2045 §5.1) as tolerant as senders need it: names with blanks and
// without quotes, encoded words where they must not be (RFC 2047 §5), octets above 0x7f. Names and the value get lower
// case. What cannot be read at all, or is over a bound, is left out. RFC 2231 is put together and decoded.
func readParameters(s string) (value string, params map[string]string) {
	value, rest, _ := strings.Cut(mail.Cut(s, maxValue), ";") // a copy, which does not keep the rest in memory
	value = strings.ToLower(strings.TrimSpace(value))
	if i := strings.IndexAny(value, " \t("); i >= 0 { // a comment, or words behind
		value = value[:i]
	}
	params = make(map[string]string)
	split := make(map[string]*continued)
	for rest != "" && len(params)+len(split) < maxParameters {
		var name, v string
		name, v, rest = nextParameter(rest)
		base, n, encoded := section(name)
		switch {
		case base == "":
		case n < 0 && !encoded:
			if _, twice := params[base]; !twice {
				params[base] = decodeWords(v)
			}
		default:
			c := split[base]
			if c == nil {
				c = &continued{sections: make(map[int]piece)}
				split[base] = c
			}
			c.add(max(n, 0), v, encoded)
		}
	}
	for base, c := range split {
		params[base] = c.value() // RFC 5987 §4.3.1: the extended one is the better one
	}
	return value, params
}

// nextParameter takes one off the front.
func nextParameter(s string) (name, value, rest string) {
	s = strings.TrimLeft(s, " \t\r\n;")
	i := strings.IndexAny(s, "=;")
	if i < 0 || s[i] == ';' {
		if i < 0 {
			return "", "", ""
		}
		return "", "", s[i:]
	}
	name, s = strings.ToLower(strings.TrimSpace(s[:i])), strings.TrimLeft(s[i+1:], " \t")
	if strings.HasPrefix(s, `"`) {
		value, s = unquote(s)
		_, rest, _ = strings.Cut(s, ";") // what stands behind a quoted string means nothing
		return name, value, rest
	}
	value, rest, _ = strings.Cut(s, ";")
	value = strings.TrimSpace(value)
	if !strings.HasPrefix(name, "name") && !strings.HasPrefix(name, "filename") {
		if i := strings.IndexAny(value, " \t("); i >= 0 {
			value = value[:i]
		}
	}
	return name, value, rest
}

// unquote reads a quoted string, and returns what is behind it. A backslash before a letter is kept: it is of a path,
// not a quoted-pair.
func unquote(s string) (value, rest string) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && (s[i+1] == '"' || s[i+1] == '\\'):
			i++
			b.WriteByte(s[i])
		case s[i] == '"':
			return b.String(), s[i+1:]
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), ""
}

// section reads name*3*: the name, which section it is (-1: there are none), and whether it is encoded.
func section(name string) (base string, n int, encoded bool) {
	base, rest, split := strings.Cut(name, "*")
	if !split {
		return base, -1, false
	}
	number, encoded := strings.CutSuffix(rest, "*")
	if rest == "" {
		return base, -1, true
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 || n >= maxSections {
		return "", 0, false
	}
	return base, n, encoded
}

// continued is a parameter in sections (RFC 2231 §3).
type continued struct{ sections map[int]piece }

type piece struct {
	text    string
	encoded bool
}

func (c *continued) add(n int, text string, encoded bool) {
	if _, twice := c.sections[n]; !twice {
		c.sections[n] = piece{text, encoded}
	}
}

// value puts the sections together up to the first that is missing. The first one names the charset of all.
func (c *continued) value() string {
	label := ""
	var b []byte
	for i := 0; ; i++ {
		s, is := c.sections[i]
		if !is {
			break
		}
		if !s.encoded {
			b = append(b, s.text...)
			continue
		}
		if i == 0 {
			if parts := strings.SplitN(s.text, "'", 3); len(parts) == 3 {
				label, s.text = parts[0], parts[2]
			}
		}
		b = append(b, unpercent(s.text)...)
	}
	text, ok := toUTF8(label, b)
	if !ok {
		text, _ = toUTF8("", b)
	}
	return text
}

func unpercent(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(v))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// words decodes RFC 2047.
var words = mime.WordDecoder{CharsetReader: charset.Reader}

// decodeWords makes text of a header readable. What cannot be decoded stays as it is.
func decodeWords(s string) string {
	if !utf8.ValidString(s) {
		s, _ = toUTF8("", []byte(s))
	}
	if !strings.Contains(s, "=?") {
		return s
	}
	if d, err := words.DecodeHeader(s); err == nil && utf8.ValidString(d) {
		return d
	}
	return s
}

// toUTF8 decodes text of a charset. ok is false for a charset that is not known. Text without one, or with less than it
// has, is UTF-8 if it can be and Windows-1252 otherwise, as mail programs take it.
func toUTF8(label string, b []byte) (text string, ok bool) {
	switch strings.ToLower(label) {
	case "", "us-ascii", "ascii", "unknown-8bit", "x-unknown":
		if utf8.Valid(b) {
			return string(b), true
		}
		label = "windows-1252"
	case "utf-8", "utf8":
		return strings.ToValidUTF8(string(b), "\uFFFD"), true
	}
	r, err := charset.Reader(label, strings.NewReader(string(b)))
	if err != nil {
		return "", false
	}
	var out strings.Builder
	if _, err := io.Copy(&out, r); err != nil {
		return "", false
	}
	return strings.ToValidUTF8(out.String(), "\uFFFD"), true
}
