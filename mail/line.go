package mail

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxLine is the longest line of a message, in octets without CRLF (RFC 5321 §4.5.3.1.6, RFC 5322 §2.1.1).
const MaxLine = 998

// A refusal shows the first lineHeadChars characters of a line. They always fit in LineHead octets.
const (
	lineHeadChars = 40
	LineHead      = lineHeadChars * utf8.UTFMax
)

// NameLine identifies a line of a message in replies, logs and traces: by its number, from 1, and its first 40
// characters in quotes, with unprintable ones escaped as in Go: \r, \x00, \xfc.
func NameLine(number int64, line []byte) string {
	return "line " + strconv.FormatInt(number, 10) + ` ("` + lineHead(line) + `")`
}

func lineHead(line []byte) string {
	var b strings.Builder
	for n := 0; len(line) > 0 && n < lineHeadChars; n++ {
		r, size := utf8.DecodeRune(line)
		switch quoted := strconv.Quote(string(line[:size])); {
		case r != utf8.RuneError && unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		line = line[size:]
	}
	return b.String()
}
