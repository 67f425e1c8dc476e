package mail

import "strings"

// The reasons for which an author field is rewritten; they complete "the From field is rewritten: …".
const (
	notAFold    = "it is folded where readers differ"
	notALine    = "it is too long for a line"
	notAComment = "it has a comment"
	notBits     = "it has 8-bit text outside encoded words"
	notEncoded  = "it has an encoded word that readers decode differently"
	notQuoted   = "its quoted string is one that readers differ in"
	notAddress  = "its address is written in an unusual form"
	notPhrase   = "its display name needs quotes or other spacing"
)

// canonicalBreak says why the body of an author field is not canonical, "" if it is. Canonical is a list of
// `user@example.com`, `<user@example.com>` and `Name <user@example.com>`, where the name is either one quoted string or
// atoms and encoded words, with white space and folds only between these. All readers that we know agree on it, even
// those that decode before they parse. Mail programs write canonical fields.
func canonicalBreak(body string) string {
	for line := range strings.SplitSeq(body, "\r\n") {
		if len(line) > MaxLine-foldWidth { // room for the name of the field
			return notALine
		}
	}
	for s := body; ; {
		rest, reason := canonicalMailbox(s)
		if reason != "" || rest == "" {
			return reason
		}
		s = rest[1:] // a comma
	}
}

// canonicalMailbox checks the mailbox at the beginning of s and returns what follows, a comma first.
func canonicalMailbox(s string) (rest, reason string) {
	var phrase []string
	for {
		s = skipFolds(s)
		n := tokenLen(s)
		token := s[:n]
		rest = s[n:]
		after := skipFolds(rest)
		switch {
		case n == 0:
			return "", unusual(s)
		case len(rest) == len(after) && after != "" && after[0] != ',':
			return "", unusual(after)
		case token[0] == '<':
			if reason = canonicalPhrase(phrase); reason == "" && !canonicalAddress(token[1:n-1]) {
				reason = notAddress
			}
			return after, endOf(after, reason)
		case after == "" || after[0] == ',':
			if len(phrase) > 0 || token[0] == '"' || !canonicalAddress(token) {
				return "", notAddress
			}
			return after, endOf(after, "")
		}
		phrase, s = append(phrase, token), rest
	}
}

// endOf adds to the result for a mailbox that only a comma may follow it.
func endOf(after, reason string) string {
	if reason == "" && after != "" && after[0] != ',' {
		return unusual(after)
	}
	return reason
}

// unusual names what an unexpected character belongs to.
func unusual(s string) string {
	switch {
	case s == "":
		return notAddress
	case s[0] == '(':
		return notAComment
	case s[0] == '"':
		return notQuoted
	case s[0] >= 0x80:
		return notBits
	case s[0] == '\r':
		return notAFold
	}
	return notPhrase
}

// skipFolds skips white space and folds, but not a fold at the end.
func skipFolds(s string) string {
	for {
		t := strings.TrimLeft(s, " \t")
		if !strings.HasPrefix(t, "\r\n ") && !strings.HasPrefix(t, "\r\n\t") {
			return t
		}
		s = t[2:]
	}
}

// tokenLen returns the length of the quoted string, angle address or word at the beginning of s, 0 for none.
func tokenLen(s string) int {
	if s == "" {
		return 0
	}
	n := 0
	switch s[0] {
	case '"':
		n = QuotedLen(s)
	case '<':
		n = strings.IndexByte(s, '>') + 1
	default:
		for n < len(s) && (isAtext(s[n]) || s[n] >= 0x80 || strings.IndexByte(".@[]:", s[n]) >= 0) {
			n++
		}
	}
	return n
}

// canonicalAddress reports whether an address is written as Address.String would write it, except for its case.
func canonicalAddress(s string) bool {
	a, err := parseHeaderAddress(s)
	return err == nil && strings.EqualFold(a.String(), s)
}

// canonicalPhrase says why readers may differ on a display name, "" if they agree.
func canonicalPhrase(words []string) string {
	if len(words) == 1 && words[0][0] == '"' {
		return canonicalQuoted(words[0])
	}
	encoded := false
	for _, word := range words {
		switch {
		case word[0] == '"':
			return notQuoted
		case strings.HasPrefix(word, "=?"):
			if !tidyWord(word) {
				return notEncoded
			}
			encoded = true
		case !isAtom(word):
			if !IsASCII(word) {
				return notBits
			}
			return notPhrase
		}
	}
	if !encoded {
		return ""
	}
	text, err := decodeWords(strings.Join(words, " "))
	if err != nil || harmless(text) != text {
		return notEncoded
	}
	return ""
}

// canonicalQuoted is canonicalPhrase for a quoted string. Canonical is printable ASCII on one line, with no needless
// quoted pairs and nothing to decode.
func canonicalQuoted(s string) string {
	if len(s) > maxQuoted || strings.Contains(s, "=?") {
		return notQuoted
	}
	for i := 1; i < len(s)-1; i++ {
		if s[i] == '\r' {
			return notAFold
		}
		if s[i] >= 0x80 {
			return notBits
		}
		if s[i] == '\\' {
			if i++; s[i] != '"' && s[i] != '\\' {
				return notQuoted
			}
		}
		if s[i] < ' ' || s[i] > '~' {
			return notQuoted
		}
	}
	return ""
}

// isAtom reports whether s is an atom (RFC 5322 §3.2.3) without any part of an encoded word.
func isAtom(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isAtext(s[i]) {
			return false
		}
	}
	return s != "" && !strings.Contains(s, "=?")
}

// Bounds of a display name that we write, in octets: in any form, and as a quoted string, which must fit on one line.
const (
	maxName   = 512
	maxQuoted = 300
)

var (
	looksLikeSyntax = strings.NewReplacer("@", " at ", `"`, "'", "<", "\u2039", ">", "\u203a", `\`, "/", "[", "(", "]",
		")",
		":", "\u2236", ";", ",")
	noParentheses = strings.NewReplacer("(", "", ")", "")
	noEmptyItems  = strings.NewReplacer(",,", ",", ", ,", ",")
	quotedPairs   = strings.NewReplacer(`"`, `\"`, `\`, `\\`)
)

// harmless replaces syntax in a display name with look-alikes and drops unbalanced parentheses, so that even a reader
// that decodes encoded words before it parses finds one mailbox. Commas stay, since half of all directories say "Last,
// First"; only those that separate nothing go.
func harmless(s string) string {
	if !strings.ContainsAny(s, "@<>[]\"\\:;,()=") {
		return s
	}
	s = strings.ReplaceAll(s, " @ ", " at ")
	s = looksLikeSyntax.Replace(s)
	depth := 0
	for _, r := range s {
		if r == '(' {
			depth++
		} else if r == ')' {
			if depth--; depth < 0 {
				break
			}
		}
	}
	if depth != 0 {
		s = noParentheses.Replace(s)
	}
	for strings.Contains(s, ",,") || strings.Contains(s, ", ,") {
		s = noEmptyItems.Replace(s)
	}
	s = strings.Trim(s, ", ")
	return strings.ReplaceAll(s, "=?", "= ?")
}

// written is the display name as we write it.
func (m mailbox) written() string {
	name := m.name
	if len(name) > maxName {
		name = name[:runeBoundary(name, maxName)]
	}
	if !IsASCII(name) || strings.Contains(name, "=?") || len(name) > maxQuoted-2 {
		name = harmless(name)
	}
	return name
}

// tokens writes a mailbox as tokens to be joined by white space or folds.
func (m mailbox) tokens() []string {
	address := m.address.Path()
	name := m.written()
	words := strings.Split(name, " ")
	plain := true
	for _, w := range words {
		plain = plain && isAtom(w)
	}
	switch quoted := `"` + quotedPairs.Replace(name) + `"`; {
	case name == "":
		return []string{address}
	case plain:
		return append(words, address)
	case IsASCII(name) && canonicalQuoted(quoted) == "":
		return []string{quoted, address}
	}
	return append(encodeWords(name), address)
}

// authorField writes a field of mailboxes in canonical form, folded only between tokens.
func authorField(name string, boxes []mailbox) Field {
	b := append([]byte(name), ':')
	width := len(b)
	for i, box := range boxes {
		tokens := box.tokens()
		if i < len(boxes)-1 {
			tokens[len(tokens)-1] += ","
		}
		for j, token := range tokens {
			if width+1+len(token) > foldWidth && (i > 0 || j > 0) {
				b = append(b, crlf...)
				width = 0
			}
			b = append(append(b, ' '), token...)
			width += 1 + len(token)
		}
	}
	return Field{Name: name, Raw: append(b, crlf...)}
}
