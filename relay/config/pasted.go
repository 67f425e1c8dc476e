package config

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// typographic are the quotes that word processors, chats and web pages make of straight ones.
const typographic = "“”„‟«»‹›‘’‚‛′″＂＇「」"

// pasted looks for what came with a text from elsewhere and breaks TOML: up to a line, which is where the parser gave
// up, the last character beyond ASCII that stands outside straight quotes and comments. It returns its line and what
// to do, without the text, which may be a password.
func pasted(data []byte, upTo int) (line int, message string) {
	n := 0
	for text := range bytes.Lines(data) {
		if n++; n > upTo {
			break
		}
		r := strayRune(bytes.TrimRight(text, "\r\n"))
		switch {
		case r == 0:
		case strings.ContainsRune(typographic, r):
			line, message = n, fmt.Sprintf("%c is a typographic quote, which word processors and web pages make; "+
				`write straight quotes: "..."`, r)
		case unicode.IsSpace(r), unicode.Is(unicode.Cf, r):
			line, message = n, fmt.Sprintf("there is a blank of an unusual kind (U+%04X), which web pages have; "+
				"type the blanks of this line again", r)
		default:
			line, message = n, fmt.Sprintf("%q (U+%04X) stands outside quotes; keys are letters of ASCII, "+
				"and texts stand in straight quotes", r, r)
		}
	}
	return line, message
}

// strayRune returns the first character beyond ASCII of a line that is outside straight quotes and comments, or in a
// text whose straight quote is not closed; 0 if there is none.
func strayRune(line []byte) rune {
	var quote byte  // that is open
	var inside rune // the first within it
	for i := 0; i < len(line); {
		r, size := utf8.DecodeRune(line[i:])
		c := line[i]
		i += size
		switch {
		case quote != 0 && c == quote:
			quote, inside = 0, 0
		case quote == '"' && c == '\\':
			i++
		case quote != 0 && r >= utf8.RuneSelf && inside == 0:
			inside = r
		case quote != 0:
		case c == '#':
			return 0
		case c == '"' || c == '\'':
			quote = c
		case r >= utf8.RuneSelf:
			return r
		}
	}
	return inside
}
