package mail

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxLine is the longest line of a message, in octets without CRLF (RFC 5321 §4.5.3.1.6, RFC 5322 §2.1.1).
const MaxLine = 998

// What a refusal shows of a line: its first characters. LineHead octets hold them in any case.
const (
	lineHeadChars = 40
	LineHead      = lineHeadChars * utf8.UTFMax
)

// NameLine says which line of a message is meant, for replies, logs and traces: its number, counted from 1
// for the first line of the message, and its first 40 characters in quotes. What is not printable is
// written as Go writes it: \r, \x00, \xfc.
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
