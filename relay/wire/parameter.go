package wire

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"postern/mail"
)

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
		if slices.Contains(seen, name) {
			return mail.R(501, "5.5.4", "parameter %s given twice", name)
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
