package postgres

import "strings"

// What the tokens of a statement are.
type tokenKind uint8

const (
	space   tokenKind = iota // also a comment
	word                     // a keyword or a name without quotes
	literal                  // '…'
	blob                     // x'…'
	param                    // ?, ?1
	opaque                   // what is the same in both dialects: "…", E'…', $$…$$, numbers, $1
	punct                    // one character
)

type token struct {
	kind tokenKind
	text string
}

// lex cuts SQL into tokens, of which nothing is left out. What is not closed goes on to the end.
func lex(s string) (all []token) {
	for len(s) > 0 {
		kind, n := lexOne(s)
		all = append(all, token{kind, s[:n]})
		s = s[n:]
	}
	return all
}

func lexOne(s string) (tokenKind, int) {
	switch c := s[0]; {
	case isSpace(c):
		return space, span(s, isSpace)
	case strings.HasPrefix(s, "--"):
		return space, until(s, 2, "\n")
	case strings.HasPrefix(s, "/*"):
		return space, until(s, 2, "*/")
	case c == '\'':
		return literal, quoted(s, 0)
	case c == '"':
		return opaque, quoted(s, 0)
	case len(s) > 1 && s[1] == '\'' && (c == 'x' || c == 'X'):
		return blob, quoted(s, 1)
	case len(s) > 1 && s[1] == '\'' && (c == 'e' || c == 'E'):
		return opaque, escaped(s)
	case isLetter(c):
		return word, span(s, isName)
	case isDigit(c):
		return opaque, span(s, func(c byte) bool { return isName(c) || c == '.' })
	case c == '?':
		return param, 1 + span(s[1:], isDigit)
	case c == '$':
		return opaque, dollar(s)
	}
	return punct, 1
}

func isSpace(c byte) bool  { return c == ' ' || c >= '\t' && c <= '\r' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c >= 0x80 }
func isName(c byte) bool   { return isLetter(c) || isDigit(c) || c == '$' }

func span(s string, is func(byte) bool) int {
	n := 0
	for n < len(s) && is(s[n]) {
		n++
	}
	return n
}

// until is the length up to the end of mark, which is looked for from an offset on.
func until(s string, from int, mark string) int {
	if i := strings.Index(s[from:], mark); i >= 0 {
		return from + i + len(mark)
	}
	return len(s)
}

// quoted is the length of what the quote at an offset begins. A quote within is doubled.
func quoted(s string, at int) int {
	quote := s[at]
	for i := at + 1; i < len(s); i++ {
		if s[i] != quote {
			continue
		}
		if i+1 == len(s) || s[i+1] != quote {
			return i + 1
		}
		i++
	}
	return len(s)
}

// escaped is the length of E'…', in which a backslash takes the next character.
func escaped(s string) int {
	for i := 2; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case s[i] == '\'' && i+1 < len(s) && s[i+1] == '\'':
			i++
		case s[i] == '\'':
			return i + 1
		}
	}
	return len(s)
}

// dollar is the length of $1, $$…$$ or $tag$…$tag$.
func dollar(s string) int {
	if n := span(s[1:], isDigit); n > 0 {
		return 1 + n
	}
	n := 1 + span(s[1:], func(c byte) bool { return isName(c) && c != '$' })
	if n == len(s) || s[n] != '$' {
		return n
	}
	return until(s, n+1, s[:n+1])
}
