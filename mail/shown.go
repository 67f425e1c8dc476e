package mail

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// lookAlikes are characters that look like an at sign or a dot and that NFKC does not fold (Unicode TR 39 confusables;
// RFC 3490 §3.1 for the dots that resolvers accept).
var lookAlikes = strings.NewReplacer(
	"\u24d0", "@", "\u24b6", "@", "a\u20dd", "@", "A\u20dd", "@",
	"\u3002", ".", "\uff61", ".", "\u0701", ".", "\u0702", ".", "\ua60e", ".", "\U00010a50", ".",
	"\u0660", ".", "\u06f0", ".",
	"\ua4f8", ".", "\u06d4", ".", "\u00b7", ".", "\u0387", ".",
	"\u2022", ".", "\u2027", ".", "\u2219", ".", "\u22c5", ".",
	"\u30fb", ".", "\uff65", ".", "\u16eb", ".", "\U00010101", ".",
	"\u1427", ".", "\ua78f", ".", "\u2e31", ".", "\u2e33", ".",
	"\U0001d16d", ".",
)

// skeleton is a text as the eye sees it: without invisible characters, with wide and circled forms folded.
func skeleton(text string) string {
	if IsASCII(text) {
		return text
	}
	text = strings.Map(func(r rune) rune {
		if isInvisible(r) {
			return -1
		}
		return r
	}, text)
	return lookAlikes.Replace(norm.NFKC.String(lookAlikes.Replace(text)))
}

func isInvisible(r rune) bool {
	return r == '\u2800' || r >= 0xad &&
		unicode.In(r, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// addressesIn finds what a person or a lenient reader would take for an address in a display name: an at sign with
// something on its left and a domain with a dot on its right, even if white space, quotes and brackets separate them.
func addressesIn(text string) []Address {
	text = skeleton(text)
	if !strings.Contains(text, "@") {
		return nil
	}
	views := []string{text}
	if strings.ContainsAny(text, `([\`) { // some readers drop brackets and backslashes in names
		views = append(views, withoutBrackets(text))
	}
	if last, first, ok := strings.Cut(text, ","); ok { // some reverse "Last, First"
		views = append(views, first+" "+last)
	}
	var found []Address
	known := map[Address]bool{}
	for _, view := range views {
		for i := 0; i < len(view); i++ {
			if view[i] != '@' {
				continue
			}
			local, domain := shownLocal(view[:i]), shownDomain(view[i+1:])
			if local == "" || !isShownDomain(domain) {
				continue
			}
			// An address that is cut belongs to nobody, and a reply can still quote it.
			a := Address{Local: Cut(local, maxAddress), Domain: Cut(domain, maxDomain)}
			if !known[a] {
				known[a] = true
				found = append(found, a)
			}
		}
	}
	return found
}

func withoutBrackets(s string) string {
	depth := 0
	return strings.Map(func(r rune) rune {
		switch r {
		case '(', '[':
			depth++
			return -1
		case ')', ']':
			depth = max(depth-1, 0)
			return -1
		}
		if depth > 0 || r == '\\' {
			return -1
		}
		return r
	}, s)
}

// shownLocal returns the end of a text that can be a local part.
func shownLocal(s string) string {
	s = strings.TrimRightFunc(s, func(r rune) bool {
		return isGap(r) || isBracket(r, unicode.Pe) || r == '>' || r == '\\'
	})
	if end := strings.LastIndexFunc(s, endsLocal); end >= 0 {
		_, n := utf8.DecodeRuneInString(s[end:])
		s = s[end+n:]
	}
	return s
}

func endsLocal(r rune) bool {
	return isGap(r) || isBracket(r, unicode.Ps) || isBracket(r, unicode.Pe) || strings.ContainsRune(`,;:@<>\`, r)
}

// isGap reports whether r, white space or a quote, can separate the parts of an address without hiding it.
func isGap(r rune) bool {
	return unicode.IsSpace(r) || unicode.In(r, unicode.Pi, unicode.Pf) || strings.ContainsRune("\"'´\u201a\u201e", r)
}

// isBracket reports whether r is a bracket that no atom may have, unlike braces.
func isBracket(r rune, kind *unicode.RangeTable) bool {
	return unicode.Is(kind, r) && r != '{' && r != '}'
}

// shownDomain returns the domain at the beginning of a text.
func shownDomain(s string) string {
	s = strings.TrimLeftFunc(s, func(r rune) bool { return isGap(r) || unicode.Is(unicode.Ps, r) || r == '<' })
	if end := strings.IndexByte(s[:min(len(s), 64)], ']'); end > 0 {
		if literal, err := ParseDomain("[" + s[:end] + "]"); err == nil {
			return literal
		}
	}
	var domain strings.Builder
	for {
		n := strings.IndexFunc(s, func(r rune) bool { return !isLabel(r) })
		if n < 0 {
			n = len(s)
		}
		domain.WriteString(s[:n])
		s = s[n:]
		gap := strings.TrimLeftFunc(s, isGap)
		after, dot := strings.CutPrefix(gap, ".")
		next := strings.TrimLeftFunc(after, isGap)
		first, _ := utf8.DecodeRuneInString(next)
		// After a whole domain, a dot and a blank end a sentence.
		if !dot || !isLabel(first) || next == "" || len(next) < len(after) && strings.Contains(domain.String(), ".") {
			return strings.ToLower(domain.String())
		}
		domain.WriteByte('.')
		s = next
	}
}

func isLabel(r rune) bool {
	return r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r)
}

// isShownDomain reports whether s looks like a domain or address literal, rather than like a number with a decimal
// point.
func isShownDomain(s string) bool {
	if strings.HasPrefix(s, "[") || strings.Count(s, ".") == 3 {
		return true
	}
	dot := strings.IndexByte(s, '.')
	return dot >= 0 && strings.ContainsFunc(s[dot:], unicode.IsLetter)
}
