package wire

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"postern/mail"
)

// parseMail parses the argument of MAIL. A non-zero reply refuses it. SIZE is not checked here. mend, unless nil, may
// replace a malformed reverse-path.
func parseMail(arg string, mend func(path string) (mail.Address, bool)) (mail.Envelope, mail.Reply) {
	path, params, readable := cutPath(arg, "FROM:")
	var unreadable mail.Reply
	if !readable {
		unreadable = mail.R(501, "5.1.7",
			"the sender cannot be read: expected MAIL FROM:<user@example.com>, not MAIL %s", quoted(arg))
		ok := false
		if path, params, ok = cutUnreadable(arg, "FROM"); !ok || mend == nil {
			return mail.Envelope{}, unreadable
		}
	}
	var env mail.Envelope
	if reply := eachParameter(params, func(name, value string, given bool) mail.Reply {
		return mailParameter(&env, name, value, given)
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
	if !reply.IsZero() && mend != nil {
		if mended, ok := mend(path); ok {
			a, reply = mended, mail.Reply{}
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
// domain (RFC 5321 §4.5.1), is completed with hostname.
func parseRcpt(arg string, utf8 bool, hostname string) (mail.Recipient, mail.Reply) {
	path, params, ok := cutPath(arg, "TO:")
	if !ok {
		return mail.Recipient{}, mail.R(501, "5.1.3",
			"the recipient cannot be read: expected RCPT TO:<user@example.com>, not RCPT %s", quoted(arg))
	}
	var r mail.Recipient
	if reply := eachParameter(params, func(name, value string, given bool) mail.Reply {
		return rcptParameter(&r, name, value, given, utf8)
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
	return mail.R(501, enhanced, "the %s is no complete address: expected user@example.com, not %q", what, quoted(path))
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

// eachParameter calls set for each esmtp-param (RFC 5321 §4.1.2); given says whether it has a value.
func eachParameter(params string, set func(name, value string, given bool) mail.Reply) mail.Reply {
	var seen []string
	for p := range strings.FieldsFuncSeq(params, func(r rune) bool { return r == ' ' }) {
		name, value, given := strings.Cut(p, "=")
		name = strings.ToUpper(name)
		switch {
		case !isKeyword(name):
			return mail.R(501, "5.5.4", "malformed parameter %s", quoted(p))
		case given && value == "":
			return mail.R(501, "5.5.4", "parameter %s has no value", name)
		}
		for _, s := range seen {
			if s == name {
				return mail.R(501, "5.5.4", "parameter %s given twice", name)
			}
		}
		if reply := set(name, value, given); !reply.IsZero() {
			return reply
		}
		seen = append(seen, name)
	}
	return mail.Reply{}
}

func isKeyword(s string) bool {
	for i := 0; i < len(s); i++ {
		alnum := s[i] >= 'A' && s[i] <= 'Z' || s[i] >= '0' && s[i] <= '9'
		if !alnum && (s[i] != '-' || i == 0) {
			return false
		}
	}
	return s != "" && len(s) <= 32
}

func badParameter(name, expected string) mail.Reply {
	return mail.R(501, "5.5.4", "parameter %s: expected %s", name, expected)
}

// unknownParameter answers an unknown parameter (RFC 5321 §4.1.1.11). It echoes the name: a keyword of at most 32
// letters.
func unknownParameter(name string) mail.Reply {
	return mail.R(555, "5.5.4", "unknown parameter %s", name)
}

func mailParameter(env *mail.Envelope, name, value string, given bool) mail.Reply {
	switch name {
	case "SIZE": // RFC 1870 §5
		n, ok := parseCount(value)
		if !ok {
			return badParameter(name, "a number of octets")
		}
		env.Size = n
	case "BODY": // RFC 6152 §3
		env.Body = mail.Body(strings.ToUpper(value))
		if env.Body != mail.Body7Bit && env.Body != mail.Body8Bit {
			return badParameter(name, "7BIT or 8BITMIME")
		}
	case "SMTPUTF8": // RFC 6531 §3.4
		if given {
			return badParameter(name, "no value")
		}
		env.UTF8 = true
	case "RET": // RFC 3461 §4.3
		env.Ret = mail.Ret(strings.ToUpper(value))
		if env.Ret != mail.RetFull && env.Ret != mail.RetHeaders {
			return badParameter(name, "FULL or HDRS")
		}
	case "ENVID": // RFC 3461 §4.4
		id, ok := decodeXtext(value)
		if !ok || len(value) > 100 {
			return badParameter(name, "at most 100 characters of xtext")
		}
		env.EnvID = id
	case "AUTH": // RFC 4954 §5; ignored: the AUTH command says who submits
		if !given {
			return badParameter(name, "a mailbox or <>")
		}
	default:
		return unknownParameter(name)
	}
	return mail.Reply{}
}

func rcptParameter(r *mail.Recipient, name, value string, given, utf8 bool) mail.Reply {
	switch name {
	case "NOTIFY":
		n, ok := parseNotify(value)
		if !ok {
			return badParameter(name, "NEVER, or a list of SUCCESS, FAILURE, DELAY")
		}
		r.Notify = n
	case "ORCPT":
		o, ok := parseORcpt(value, utf8)
		if !ok {
			return badParameter(name, "type;address in xtext")
		}
		r.ORcpt = o
	default:
		return unknownParameter(name)
	}
	return mail.Reply{}
}

// parseCount parses a decimal number of at most 18 digits, which fits an int64.
func parseCount(s string) (int64, bool) {
	if s == "" || len(s) > 18 || strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' }) >= 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// parseNotify parses the value of NOTIFY (RFC 3461 §4.1).
func parseNotify(value string) (mail.Notify, bool) {
	if strings.EqualFold(value, "NEVER") {
		return mail.NotifyNever, true
	}
	var n mail.Notify
	for word := range strings.SplitSeq(value, ",") {
		switch strings.ToUpper(word) {
		case "SUCCESS":
			n |= mail.NotifySuccess
		case "FAILURE":
			n |= mail.NotifyFailure
		case "DELAY":
			n |= mail.NotifyDelay
		default:
			return 0, false
		}
	}
	return n, true
}

// parseORcpt parses the value of ORCPT (RFC 3461 §4.2) and returns "type;address" decoded. An address of type utf-8 is
// written as in RFC 6533 §3; raw says whether it may be unencoded.
func parseORcpt(value string, raw bool) (string, bool) {
	kind, address, ok := strings.Cut(value, ";")
	if !ok || len(value) > 500 || !isKeyword(strings.ToUpper(kind)) {
		return "", false
	}
	kind = strings.ToLower(kind)
	if kind == "utf-8" {
		address, ok = decodeUnitext(address, raw)
	} else {
		address, ok = decodeXtext(address)
	}
	return kind + ";" + address, ok && address != ""
}

// decodeXtext decodes xtext (RFC 3461 §4) into printable ASCII.
func decodeXtext(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '+' {
			if i+2 >= len(s) {
				return "", false
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return "", false
			}
			if c = byte(n); c == ' ' { // allowed only if encoded
				b.WriteByte(c)
				i += 2
				continue
			}
			i += 2
		} else if c == '=' {
			return "", false
		}
		if c <= ' ' || c > '~' {
			return "", false
		}
		b.WriteByte(c)
	}
	return b.String(), s != ""
}

// decodeUnitext decodes utf-8-addr-xtext, which has \x{...} for special characters, and if raw is true
// utf-8-addr-unitext (RFC 6533 §3), into printable text.
func decodeUnitext(s string, raw bool) (string, bool) {
	if !utf8.ValidString(s) {
		return "", false
	}
	var b strings.Builder
	for s != "" {
		r, size := utf8.DecodeRuneInString(s)
		rest := s[size:]
		switch {
		case strings.HasPrefix(s, `\x{`):
			hex, tail, ok := strings.Cut(s[3:], "}")
			n, err := strconv.ParseUint(hex, 16, 21)
			if !ok || err != nil || !utf8.ValidRune(rune(n)) {
				return "", false
			}
			r, rest = rune(n), tail
		case r >= utf8.RuneSelf && !raw, r == '\\', r == '+', r == '=':
			return "", false
		}
		b.WriteRune(r)
		s = rest
	}
	text := b.String()
	return text, mail.Printable(text) == text
}
