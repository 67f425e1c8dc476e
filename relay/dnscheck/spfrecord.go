package dnscheck

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"postern/mail"
)

// spfVersion begins an SPF record (RFC 7208 §4.5).
const spfVersion = "v=spf1"

// isSPF reports whether a TXT record is an SPF record: the version, then a blank or the end.
func isSPF(text string) bool {
	if len(text) < len(spfVersion) || !strings.EqualFold(text[:len(spfVersion)], spfVersion) {
		return false
	}
	return len(text) == len(spfVersion) || text[len(spfVersion)] == ' '
}

// looksLikeSPF reports whether somebody meant a record to be one, and receivers do not see it.
func looksLikeSPF(text string) bool {
	text = strings.ToLower(strings.Trim(text, " \t\"'\u201c\u201d"))
	if strings.HasPrefix(text, "v=spf1") || strings.HasPrefix(text, "v=spf 1") || strings.HasPrefix(text, "spf1 ") ||
		strings.HasPrefix(text, "v = spf1") {
		return true
	}
	return false
}

// term is a mechanism or modifier of an SPF record.
type term struct {
	text      string // as it is written
	qualifier byte   // of a mechanism: + - ~ ?
	name      string // lower case
	value     string // domain-spec or network
	modifier  bool
	prefix    netip.Prefix // of ip4 and ip6
}

// spfRecord is a parsed record.
type spfRecord struct {
	text  string
	terms []term
}

var spfMechanisms = []string{"all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists"}

// parseSPF reads a record (RFC 7208 §12). The error names the term that is wrong.
func parseSPF(text string) (spfRecord, error) {
	r := spfRecord{text: text}
	if !isSPF(text) {
		return r, fmt.Errorf("it does not begin with %s", spfVersion)
	}
	seen := map[string]bool{}
	for word := range strings.SplitSeq(text[len(spfVersion):], " ") {
		if word == "" {
			continue
		}
		t, err := parseTerm(word)
		if err != nil {
			return r, fmt.Errorf("%q %w", clean(word), err)
		}
		if t.modifier && (t.name == "redirect" || t.name == "exp") {
			if seen[t.name] {
				return r, fmt.Errorf("%s= stands twice", t.name)
			}
			seen[t.name] = true
		}
		r.terms = append(r.terms, t)
	}
	return r, nil
}

func parseTerm(word string) (term, error) {
	t := term{text: word, qualifier: '+'}
	if strings.ContainsFunc(word, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return t, fmt.Errorf("has a character that is not allowed")
	}
	if name, value, ok := strings.Cut(word, "="); ok && isModifierName(name) {
		t.modifier, t.name, t.value = true, strings.ToLower(name), value
		if t.name == "redirect" || t.name == "exp" {
			return t, checkDomainSpec(value)
		}
		return t, checkMacros(value)
	}
	if strings.ContainsRune("+-~?", rune(word[0])) {
		t.qualifier, word = word[0], word[1:]
	}
	end := strings.IndexAny(word, ":/")
	if end < 0 {
		end = len(word)
	}
	t.name = strings.ToLower(word[:end])
	if !slices.Contains(spfMechanisms, t.name) {
		return t, fmt.Errorf("is not known to SPF")
	}
	return t.withValue(word[end:])
}

func isModifierName(s string) bool {
	for i, r := range strings.ToLower(s) {
		letter := r >= 'a' && r <= 'z'
		if !letter && (i == 0 || !(r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')) {
			return false
		}
	}
	return s != ""
}

// withValue reads what stands behind a mechanism's name.
func (t term) withValue(rest string) (term, error) {
	colon := strings.HasPrefix(rest, ":")
	switch t.name {
	case "all":
		if rest != "" {
			return t, fmt.Errorf("must stand alone")
		}
	case "ip4", "ip6":
		if !colon {
			return t, fmt.Errorf("names no network")
		}
		return t.withNetwork(rest[1:])
	case "include", "exists":
		if !colon {
			return t, fmt.Errorf("names no domain")
		}
		t.value = rest[1:]
		return t, checkDomainSpec(t.value)
	case "ptr":
		if rest == "" {
			return t, nil
		}
		if !colon {
			return t, fmt.Errorf("is followed by something else than a domain")
		}
		t.value = rest[1:]
		return t, checkDomainSpec(t.value)
	default: // a, mx
		spec, err := cutLengths(rest)
		if err != nil || spec == "" {
			return t, err
		}
		if !colon {
			return t, fmt.Errorf("is followed by something else than a domain")
		}
		t.value = spec[1:]
		return t, checkDomainSpec(t.value)
	}
	return t, nil
}

func (t term) withNetwork(text string) (term, error) {
	t.value = text
	var err error
	if strings.Contains(text, "/") {
		t.prefix, err = netip.ParsePrefix(text)
	} else {
		var addr netip.Addr
		if addr, err = netip.ParseAddr(text); err == nil {
			t.prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
	}
	if err != nil || strings.Contains(text, "%") { // a zone, which netip takes
		return t, fmt.Errorf("has no valid network")
	}
	if t.prefix.Addr().Is4() != (t.name == "ip4") {
		return t, fmt.Errorf("has an address of the other kind: ip4 is for IPv4, ip6 for IPv6")
	}
	return t, nil
}

// cutLengths takes "/24", "//64" or "/24//64" from the end of a and mx.
func cutLengths(rest string) (string, error) {
	spec, lengths := rest, ""
	if i := strings.LastIndex(rest, "}"); strings.Contains(rest[i+1:], "/") {
		j := i + 1 + strings.Index(rest[i+1:], "/")
		spec, lengths = rest[:j], rest[j:]
	}
	if lengths == "" {
		return spec, nil
	}
	four, six, dual := strings.Cut(lengths, "//")
	for _, l := range []struct {
		text string
		most int
		must bool
	}{{strings.TrimPrefix(four, "/"), 32, four != ""}, {six, 128, dual}} {
		n, err := strconv.Atoi(l.text)
		if l.must && (err != nil || n < 0 || n > l.most || l.text[0] == '+' || len(l.text) > 1 && l.text[0] == '0') {
			return spec, fmt.Errorf("has no valid length of a network")
		}
	}
	return spec, nil
}

// checkDomainSpec checks a domain with or without macros (RFC 7208 §7.1).
func checkDomainSpec(s string) error {
	if err := checkMacros(s); err != nil {
		return err
	}
	if hasMacro(s) {
		return nil
	}
	domain, err := mail.ParseDomain(strings.TrimSuffix(s, "."))
	if err != nil || !strings.Contains(domain, ".") || strings.HasPrefix(domain, "[") {
		return fmt.Errorf("has no valid domain")
	}
	return nil
}

func hasMacro(s string) bool { return strings.Contains(s, "%") }

func checkMacros(s string) error {
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			continue
		}
		if i+1 < len(s) && strings.ContainsRune("%_-", rune(s[i+1])) {
			i++
			continue
		}
		end := strings.IndexByte(s[i:], '}')
		if i+2 >= len(s) || s[i+1] != '{' || end < 0 || !isMacro(s[i+2:i+end]) {
			return fmt.Errorf("has a %% that is no macro")
		}
		i += end
	}
	return nil
}

// isMacro checks what stands between %{ and }: a letter, digits, r, delimiters.
func isMacro(s string) bool {
	if s == "" || !strings.ContainsRune("slodiphcrtv", rune(s[0]|0x20)) {
		return false
	}
	s = strings.TrimLeft(s[1:], "0123456789")
	s = strings.TrimPrefix(strings.TrimPrefix(s, "r"), "R")
	return strings.Trim(s, ".-+,/_=") == ""
}
