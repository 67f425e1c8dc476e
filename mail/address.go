package mail

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// In octets. RFC 5321 §4.5.3.1 says only what every server must accept (local parts of 64, paths of 256): variable
// envelope return paths and generated recipients are longer. DNS itself limits a domain name to 255.
const (
	maxDomain  = 255
	maxAddress = 512
)

// Address is a mailbox in a path: a local part, unquoted and case-sensitive, and a domain in lower case or an address
// literal in brackets. The zero Address is the null reverse-path. Two addresses are the same mailbox if they are ==.
//
// Nothing in a local part means a route: no percent hack, no bang path.
type Address struct {
	Local  string
	Domain string
}

// The reasons for which ParseAddress refuses.
var (
	ErrAddressSyntax = errors.New("malformed address")
	ErrAddressLength = errors.New("address too long")
	ErrAddressRoute  = errors.New("source routes are not accepted")
)

// ParseAddress parses an addr-spec in wire form, without angle brackets: a dot-atom or a quoted string, "@", and a
// domain or address literal (RFC 5321 §4.1.2). Octets above 0x7f must be valid UTF-8 (RFC 6531 §3.3); the caller
// decides whether to allow them, see NeedsUTF8. An empty string is an error: callers that accept the null path check
// for it first.
func ParseAddress(s string) (Address, error) {
	if len(s) > 2*maxAddress { // quoting can double a local part
		return Address{}, ErrAddressLength
	}
	if !utf8.ValidString(s) {
		return Address{}, ErrAddressSyntax
	}
	if strings.HasPrefix(s, "@") && strings.Contains(s, ":") {
		return Address{}, ErrAddressRoute
	}
	local, rest, err := parseLocal(s)
	if err != nil {
		return Address{}, err
	}
	domain, ok := strings.CutPrefix(rest, "@")
	if !ok {
		return Address{}, ErrAddressSyntax
	}
	if len(domain) > maxDomain {
		return Address{}, ErrAddressLength
	}
	if domain, err = ParseDomain(domain); err != nil {
		return Address{}, err
	}
	if len(local)+1+len(domain) > maxAddress {
		return Address{}, ErrAddressLength
	}
	return Address{Local: local, Domain: domain}, nil
}

func parseLocal(s string) (local, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		at := strings.IndexByte(s, '@')
		if at <= 0 || !isDotAtom(s[:at]) {
			return "", "", ErrAddressSyntax
		}
		return s[:at], s[at:], nil
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			if b.Len() == 0 || !isPrint(b.String()) {
				return "", "", ErrAddressSyntax
			}
			return b.String(), s[i+1:], nil
		case c == '\\':
			i++
			if i == len(s) || s[i] < ' ' || s[i] > '~' {
				return "", "", ErrAddressSyntax
			}
			b.WriteByte(s[i])
		case c < ' ' || c == 0x7f:
			return "", "", ErrAddressSyntax
		default:
			b.WriteByte(c)
		}
	}
	return "", "", ErrAddressSyntax
}

// ParseDomain checks a domain name or address literal in a path and returns it in lower case. It refuses a trailing
// dot, an empty label, and a label that begins or ends with a hyphen. It accepts underscores, which real host names
// have. It refuses non-ASCII letters with an ASCII lower case (the Kelvin sign, the dotted capital I): we would check
// another domain than DNS sees.
func ParseDomain(s string) (string, error) {
	if strings.HasPrefix(s, "[") {
		return parseLiteral(s)
	}
	if !IsASCII(s) && strings.ContainsFunc(s, lowersToASCII) {
		return "", ErrAddressSyntax
	}
	s = strings.ToLower(s)
	if s == "" || len(s) > maxDomain {
		return "", ErrAddressSyntax
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 && IsASCII(label) || label[0] == '-' || label[len(label)-1] == '-' {
			return "", ErrAddressSyntax
		}
		for _, r := range label {
			ascii := r < utf8.RuneSelf
			alnum := r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_'
			if ascii && !alnum || !ascii && !(unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsNumber(r)) {
				return "", ErrAddressSyntax
			}
		}
	}
	return s, nil
}

func lowersToASCII(r rune) bool { return r >= utf8.RuneSelf && unicode.ToLower(r) < utf8.RuneSelf }

// LowerASCII returns s with ASCII letters in lower case and all others unchanged, so that no Unicode rule makes one
// name match another.
func LowerASCII(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] >= 'A' && s[i] <= 'Z' {
			return strings.Map(func(r rune) rune {
				if r >= 'A' && r <= 'Z' {
					return r + 'a' - 'A'
				}
				return r
			}, s)
		}
	}
	return s
}

// IsASCII reports whether s has no octet above 0x7f.
func IsASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// isPrint reports whether s is free of controls, including C1, line separators and direction marks.
func isPrint(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// isDotAtom reports whether s is a Dot-string (RFC 5321), with the letters of RFC 6531.
func isDotAtom(s string) bool {
	if s == "" {
		return false
	}
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" {
			return false
		}
		for _, r := range atom {
			if r >= utf8.RuneSelf {
				if unicode.IsSpace(r) || !unicode.IsPrint(r) {
					return false
				}
				continue
			}
			if !isAtext(byte(r)) {
				return false
			}
		}
	}
	return true
}

func isAtext(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

// IsNull reports whether a is the null reverse-path.
func (a Address) IsNull() bool { return a == Address{} }

// String returns the addr-spec in wire form, quoted if necessary; "" for the null path.
func (a Address) String() string {
	if a.IsNull() {
		return ""
	}
	if isDotAtom(a.Local) {
		return a.Local + "@" + a.Domain
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(a.Local); i++ {
		if c := a.Local[i]; c == '"' || c == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(a.Local[i])
	}
	b.WriteString(`"@`)
	b.WriteString(a.Domain)
	return b.String()
}

// Path returns the address as a path, "<user@example.com>" or "<>".
func (a Address) Path() string { return "<" + a.String() + ">" }

// NeedsUTF8 reports whether the address has octets that only SMTPUTF8 may carry.
func (a Address) NeedsUTF8() bool { return !IsASCII(a.Local) || !IsASCII(a.Domain) }

// Printable replaces everything unprintable in s with question marks: controls, C1, DEL, line separators, direction
// marks and invalid UTF-8. Every outside text that reaches a header, a log, a report or a reply goes through it.
func Printable(s string) string {
	clean := true
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// Cut shortens s to at most n octets, at a rune boundary, and marks the cut with three dots.
func Cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:runeBoundary(s, n)] + "..."
}

func runeBoundary(s string, n int) int {
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return n
}
