package policy

import (
	"errors"
	"fmt"
	"strings"

	"postern/mail"
)

// glob reports whether s matches a pattern in which * matches any text. At worst it takes time proportional to the
// product of both lengths.
func glob(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// pattern is a compiled address pattern. Exactly one of everybody, null, group, login without domain, or domain is set.
type pattern struct {
	text      string // as written
	everybody bool   // "*"
	null      bool   // "<>"
	group     string // "@group"
	login     bool   // "{login}", or "{login}@domain" with a domain
	local     string // of "local@domain", in lower case; has stars if wild
	wild      bool
	domain    string // A-labels
	below     bool   // "*.domain": the domains below it
}

// loginPattern stands for the sender's login.
const loginPattern = "{login}"

// parsePattern parses the forms that are allowed in all lists: address, local parts with stars, *@domain, *@*.domain,
// {login}, {login}@domain.
func parsePattern(s string) (pattern, error) {
	if s == loginPattern {
		return pattern{text: s, login: true}, nil
	}
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return pattern{}, fmt.Errorf("%q is not an address; for all addresses of a domain write \"*@%s\"", s,
			domainOr(s))
	}
	p := pattern{text: s}
	var err error
	if p.domain, p.below, err = parseDomainPattern(s[at+1:]); err != nil {
		return pattern{}, fmt.Errorf("%q: %w", s, err)
	}
	switch local := s[:at]; {
	case local == loginPattern:
		p.login = true
	case strings.Contains(local, "*"):
		p.local, p.wild = mail.LowerASCII(local), true
		if strings.ContainsAny(local, "\"\\ @{}<>") {
			return pattern{}, fmt.Errorf("%q: only letters, digits and stars can stand before the last @ of a pattern",
				s)
		}
	case strings.ContainsAny(local, "{}"):
		return pattern{}, fmt.Errorf("%q: only {login} can stand in braces", s)
	default:
		a, err := mail.ParseAddress(local + "@example.com")
		if err != nil {
			return pattern{}, fmt.Errorf("%q is not an address; write \"user@example.com\" or \"*@example.com\"", s)
		}
		p.local = mail.LowerASCII(a.Local)
	}
	return p, nil
}

func parseDomainPattern(s string) (domain string, below bool, err error) {
	s, below = strings.CutPrefix(s, "*.")
	if domain, err = mail.ParseDomain(s); err != nil {
		return "", false, fmt.Errorf(
			"%q is not a domain; a star can only stand for what is before its first dot, as in *@*.example.com", s)
	}
	if below && strings.HasPrefix(domain, "[") {
		return "", false, errors.New("an address literal has nothing below it")
	}
	return mail.ALabels(domain), below, nil
}

func domainOr(s string) string {
	if d, err := mail.ParseDomain(s); err == nil && strings.Contains(d, ".") {
		return d
	}
	return "example.com"
}

// parseSender parses a pattern of `senders`. A star for everybody is not allowed: nobody sends as somebody else.
func parseSender(s string) (pattern, error) {
	name, isGroup := strings.CutPrefix(s, "@")
	switch {
	case isGroup && strings.Contains(name, "."):
		return pattern{}, fmt.Errorf(
			"%q: for all addresses of a domain write \"*%s\"; for the members of a group write @ and its name", s, s)
	case isGroup && (name == "" || strings.ContainsAny(name, "@*{}! ")):
		return pattern{}, fmt.Errorf("%q: write @ and the name of a group", s)
	case isGroup:
		return pattern{text: s, group: mail.LowerASCII(name)}, nil
	case strings.HasPrefix(s, "!"):
		return pattern{}, fmt.Errorf("%q: senders are only ever allowed; leave out what may not be used", s)
	case s == "*":
		return pattern{}, errors.New(`"*" would let a login send as anybody; write "*@example.com" for each domain`)
	}
	return parsePattern(s)
}

// CheckSenderPattern checks a pattern of senders: address, *@domain, *@*.domain, {login}, {login}@domain, @group, or
// stars in local parts.
func CheckSenderPattern(s string) error {
	_, err := parseSender(s)
	return err
}

// IsSenderAddress reports whether a pattern of senders stands for the one address that it is. What people may edit
// themselves, such as claims of a login provider, must be no more than that.
func IsSenderAddress(s string) bool {
	p, err := parseSender(s)
	return err == nil && !p.wild && !p.below && !p.login && p.group == ""
}

// matches reports whether a folded address matches. The caller checks groups.
func (p *pattern) matches(a mail.Address, login string) bool {
	switch {
	case a.IsNull():
		return p.null
	case p.everybody:
		return true
	case p.null, p.group != "":
		return false
	case p.login && p.domain == "":
		own, ok := loginAddress(login)
		return ok && own == a
	case p.below && !strings.HasSuffix(a.Domain, "."+p.domain), !p.below && a.Domain != p.domain:
		return false
	case p.login:
		return mail.LowerASCII(login) == a.Local
	case p.wild:
		return glob(p.local, a.Local)
	}
	return p.local == a.Local
}

// address returns the address of a pattern that stands for only one, as written.
func (p *pattern) address(login string) (mail.Address, bool) {
	switch {
	case p.everybody, p.null, p.group != "", p.wild, p.below:
		return mail.Address{}, false
	case p.login && p.domain == "":
		a, err := mail.ParseAddress(login)
		return a, err == nil
	case p.login:
		a, err := mail.ParseAddress(login + "@" + p.domain)
		return a, err == nil
	}
	a, err := mail.ParseAddress(p.text)
	return a, err == nil
}

// loginAddress returns a login that is an address, folded. It runs for each comparison, so a login without "@" must
// cost nothing.
func loginAddress(login string) (mail.Address, bool) {
	if !strings.Contains(login, "@") {
		return mail.Address{}, false
	}
	a, err := mail.ParseAddress(login)
	return folded(a), err == nil
}

// shown is the pattern for people to read.
func (p *pattern) shown(login string) string {
	if a, ok := p.address(login); ok {
		return a.String()
	}
	return p.text
}
