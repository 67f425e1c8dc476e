package wire

import (
	"errors"
	"strings"

	"postern/mail"
)

// parseMail parses the argument of MAIL. A non-zero reply refuses it. SIZE is not checked here. replace, unless nil,
// may replace a malformed reverse-path. tolerant is Options.Appliance.
func parseMail(arg string, replace func(path string) (mail.Address, bool), tolerant bool) (mail.Envelope, mail.Reply) {
	path, params, readable := cutPath(arg, "FROM:")
	if !readable && tolerant {
		path, params, readable = cutNamed(arg, "FROM")
	}
	var unreadable mail.Reply
	if !readable {
		unreadable = mail.R(501, "5.1.7",
			"the sender cannot be read: expected MAIL FROM:<user@example.com>, not MAIL %s", quoted(arg))
		ok := false
		if path, params, ok = cutUnreadable(arg, "FROM"); !ok || replace == nil {
			return mail.Envelope{}, unreadable
		}
	}
	var env mail.Envelope
	if reply := eachParameter(params, func(name, value string, given bool) mail.Reply {
		return ignoreUnknown(mailParameter(&env, name, value, given), tolerant)
	}); !reply.IsZero() {
		return mail.Envelope{}, reply
	}
	if path == "" && readable { // null reverse-path, RFC 5321 §4.5.5
		return env, mail.Reply{}
	}
	a, reply := mail.Address{}, unreadable
	if readable {
		a, reply = reversePath(path, env.UTF8)
	}
	if !reply.IsZero() && replace != nil {
		if replaced, ok := replace(path); ok {
			a, reply = replaced, mail.Reply{}
		}
	}
	env.From = a
	return env, reply
}

func reversePath(path string, utf8 bool) (mail.Address, mail.Reply) {
	a, err := parsePath(path)
	switch {
	case err != nil:
		return mail.Address{}, badAddress(err, path, "5.1.7", "sender")
	case a.NeedsUTF8() && !utf8:
		return mail.Address{}, needsUTF8
	}
	return a, mail.Reply{}
}

// parseRcpt parses the argument of RCPT. utf8 says whether MAIL had SMTPUTF8. <postmaster>, the only address without a
// domain (RFC 5321 §4.5.1), is completed with hostname. tolerant is Options.Appliance.
func parseRcpt(arg string, utf8 bool, hostname string, tolerant bool) (mail.Recipient, mail.Reply) {
	path, params, ok := cutPath(arg, "TO:")
	if !ok && tolerant {
		path, params, ok = cutNamed(arg, "TO")
	}
	if !ok {
		return mail.Recipient{}, mail.R(501, "5.1.3",
			"the recipient cannot be read: expected RCPT TO:<user@example.com>, not RCPT %s", quoted(arg))
	}
	var r mail.Recipient
	if reply := eachParameter(params, func(name, value string, given bool) mail.Reply {
		return ignoreUnknown(rcptParameter(&r, name, value, given, utf8), tolerant)
	}); !reply.IsZero() {
		return mail.Recipient{}, reply
	}
	if strings.EqualFold(path, "postmaster") {
		path += "@" + hostname
	}
	a, err := parsePath(path)
	if err != nil {
		return mail.Recipient{}, badAddress(err, path, "5.1.3", "recipient")
	}
	if a.NeedsUTF8() && !utf8 {
		return mail.Recipient{}, needsUTF8
	}
	r.To = a
	return r, mail.Reply{}
}

// RFC 6531 §3.5.
var needsUTF8 = mail.R(553, "5.6.7",
	"the address has letters beyond ASCII, and the mail program did not ask for SMTPUTF8; write it in ASCII")

// quoted is what a client sent, for a reply: whoever set it up will recognise it.
func quoted(s string) string { return mail.Printable(mail.Cut(s, 80)) }

func badAddress(err error, path, enhanced, what string) mail.Reply {
	switch {
	case errors.Is(err, mail.ErrAddressRoute):
		return mail.R(501, enhanced, "source routes are not accepted: write the %s as user@example.com alone", what)
	case errors.Is(err, mail.ErrAddressLength):
		return mail.R(501, enhanced, "the %s is too long for an address", what)
	case strings.Count(path, "@") > 1 && strings.ContainsAny(path, ",;"):
		return mail.R(501, enhanced, "the %s is more than one address: enter each by itself, not %q", what,
			quoted(path))
	}
	return mail.R(501, enhanced, "the %s is not a complete address: expected user@example.com, not %q", what,
		quoted(path))
}

// parsePath parses the address in a path. A local part of atoms and dots that is no dot-atom, such as "a..b" or "ann.",
// is read as if it were quoted: some providers have issued such addresses, and their owners have no others.
func parsePath(path string) (mail.Address, error) {
	a, err := mail.ParseAddress(path)
	local, domain, _ := strings.Cut(path, "@")
	if !errors.Is(err, mail.ErrAddressSyntax) || !isDotted(local) {
		return a, err
	}
	return mail.ParseAddress(`"` + local + `"@` + domain)
}

// isDotted reports whether s consists of atom characters (RFC 5321 §4.1.2) and dots, and not of dots alone.
func isDotted(s string) bool {
	return s != "" && strings.Trim(s, ".") != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`"(),:;<>@[\]`, r)
	})
}

// cutPath splits "FROM:<path> parameters". It accepts what many devices send: blanks around the colon and inside the
// brackets, and no brackets at all if the path is unambiguous without them.
func cutPath(arg, keyword string) (path, params string, ok bool) {
	word, s, found := strings.Cut(arg, ":")
	if !found || !strings.EqualFold(strings.TrimRight(word, " ")+":", keyword) {
		return "", "", false
	}
	s = strings.TrimLeft(s, " ")
	if !strings.HasPrefix(s, "<") {
		return cutBarePath(s)
	}
	end := pathEnd(s)
	if end < 0 {
		return "", "", false
	}
	path, params = strings.Trim(s[1:end], " "), s[end+1:]
	return path, params, params == "" || params[0] == ' '
}

// cutBarePath splits a path without brackets from its parameters. The path may have no character that makes it
// ambiguous.
func cutBarePath(s string) (path, params string, ok bool) {
	path, params, _ = strings.Cut(s, " ")
	if path == "" || strings.ContainsAny(path, `<>"\,;()`) || strings.HasPrefix(path, "@") {
		return "", "", false
	}
	if params != "" && !strings.Contains(path, "@") { // perhaps a display name before an address
		return "", "", false
	}
	return path, params, true
}

// cutNamed splits what only a tolerant listener reads: a path without the colon before it, or with a name in front of
// it. There must be one pair of brackets, or a path that is unambiguous without.
func cutNamed(arg, keyword string) (path, params string, ok bool) {
	if len(arg) <= len(keyword) || !strings.EqualFold(arg[:len(keyword)], keyword) ||
		!strings.ContainsAny(arg[len(keyword):len(keyword)+1], " :<") {
		return "", "", false
	}
	s := strings.TrimLeft(arg[len(keyword):], " :")
	open, end := strings.IndexByte(s, '<'), strings.IndexByte(s, '>')
	if open < 0 && end < 0 {
		return cutBarePath(s)
	}
	if open < 0 || end < open || strings.Contains(s[:open], "@") ||
		strings.ContainsAny(s[open+1:end]+strings.ReplaceAll(s[end+1:], "=<>", ""), "<>") {
		return "", "", false
	}
	return strings.Trim(s[open+1:end], " "), strings.TrimLeft(s[end+1:], ";, "), true
}

// ignoreUnknown lets unknown parameters pass at a tolerant listener: old programs make up their own.
func ignoreUnknown(r mail.Reply, tolerant bool) mail.Reply {
	if tolerant && r.Code == 555 {
		return mail.Reply{}
	}
	return r
}

// cutUnreadable splits a path that cannot be parsed from the known parameters after it.
func cutUnreadable(arg, keyword string) (path, params string, ok bool) {
	if len(arg) < len(keyword) || !strings.EqualFold(arg[:len(keyword)], keyword) {
		return "", "", false
	}
	path = strings.TrimLeft(arg[len(keyword):], " :")
	for path = strings.TrimRight(path, " "); path != ""; path = strings.TrimRight(path, " ") {
		word := path[strings.LastIndexByte(path, ' ')+1:]
		name, _, _ := strings.Cut(word, "=")
		if mailParameter(new(mail.Envelope), strings.ToUpper(name), "", false).Code == 555 {
			break
		}
		path, params = path[:len(path)-len(word)], " "+word+params
	}
	return path, params, true
}

// pathEnd finds the ">" that ends a path, skipping quoted local parts.
func pathEnd(s string) int {
	quoted := false
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case quoted && s[i] == '\\':
			i++
		case !quoted && s[i] == '>':
			return i
		}
	}
	return -1
}
