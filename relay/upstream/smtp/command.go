package smtp

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"postern/mail"
	"postern/relay/upstream"
)

func (x *transaction) appendCommands(b []byte) []byte {
	if x.c.dirty {
		b = append(b, "RSET\r\n"...)
	}
	b = x.appendMail(b)
	for _, i := range x.batch {
		b = x.appendRcpt(b, &x.t.Recipients[i])
	}
	return b
}

func (x *transaction) appendMail(b []byte) []byte {
	t, ext := x.t, &x.c.ext
	b = append(b, "MAIL FROM:<"...)
	b = append(b, wireForm(t.From).String()...)
	b = append(b, '>')
	if ext.sizeOffered { // RFC 1870 §6.1
		b = append(b, " SIZE="...)
		b = strconv.AppendInt(b, x.content.size(), 10)
	}
	if ext.eightBit && x.content.eightBit { // RFC 6152 §3
		b = append(b, " BODY=8BITMIME"...)
	}
	if ext.utf8 && x.needsUTF8() { // RFC 6531 §3.4
		b = append(b, " SMTPUTF8"...)
	}
	if ext.dsn {
		b = appendMailDSN(b, t)
	}
	return append(b, "\r\n"...)
}

// needsUTF8 reports whether the transaction has anything that only SMTPUTF8 carries. A domain has another form.
func (x *transaction) needsUTF8() bool {
	if _, ok := x.t.From.ASCII(); !ok || x.content.utf8Header {
		return true
	}
	for _, i := range x.batch {
		if _, ok := x.t.Recipients[i].To.ASCII(); !ok {
			return true
		}
	}
	return false
}

// wireForm is an address as it goes out: in ASCII where it can, which every server and the next one takes.
func wireForm(a mail.Address) mail.Address {
	a, _ = a.ASCII()
	return a
}

func (x *transaction) appendRcpt(b []byte, r *mail.Recipient) []byte {
	b = append(b, "RCPT TO:<"...)
	b = append(b, wireForm(r.To).String()...)
	b = append(b, '>')
	if x.c.ext.dsn {
		b = appendRcptDSN(b, r)
	}
	return append(b, "\r\n"...)
}

// appendMailDSN adds RET and ENVID (RFC 3461 §4.3, §4.4).
func appendMailDSN(b []byte, t *upstream.Transaction) []byte {
	if t.Ret == mail.RetFull || t.Ret == mail.RetHeaders {
		b = append(b, " RET="...)
		b = append(b, t.Ret...)
	}
	if t.EnvID != "" {
		b = append(b, " ENVID="...)
		b = appendXtext(b, t.EnvID)
	}
	return b
}

// appendRcptDSN adds NOTIFY and ORCPT (RFC 3461 §4.1, §4.2).
func appendRcptDSN(b []byte, r *mail.Recipient) []byte {
	b = appendNotify(b, r.Notify)
	kind, address, ok := strings.Cut(r.ORcpt, ";")
	if !ok || kind == "" || address == "" || !isAtom(kind) {
		return b
	}
	b = append(b, " ORCPT="...)
	b = append(b, kind...)
	b = append(b, ';')
	if strings.EqualFold(kind, "utf-8") {
		return appendUnitext(b, address)
	}
	return appendXtext(b, address)
}

func appendNotify(b []byte, n mail.Notify) []byte {
	if n == 0 {
		return b
	}
	b = append(b, " NOTIFY="...)
	if n&mail.NotifyNever != 0 {
		return append(b, "NEVER"...)
	}
	for _, v := range []struct {
		bit  mail.Notify
		name string
	}{{mail.NotifySuccess, "SUCCESS,"}, {mail.NotifyFailure, "FAILURE,"}, {mail.NotifyDelay, "DELAY,"}} {
		if n&v.bit != 0 {
			b = append(b, v.name...)
		}
	}
	return b[:len(b)-1]
}

func isAtom(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' {
			return false
		}
	}
	return true
}

const hexDigits = "0123456789ABCDEF"

// appendXtext encodes by octet (RFC 3461 §4).
func appendXtext(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c > ' ' && c <= '~' && c != '+' && c != '=' {
			b = append(b, c)
		} else {
			b = append(b, '+', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return b
}

// appendUnitext encodes an internationalised address so that it passes with and without SMTPUTF8 (RFC 6533 §3,
// utf-8-addr-xtext).
func appendUnitext(b []byte, s string) []byte {
	for _, r := range s {
		if r > ' ' && r <= '~' && r != '+' && r != '=' && r != '\\' {
			b = append(b, byte(r))
			continue
		}
		if r == utf8.RuneError {
			r = '?'
		}
		b = append(b, `\x{`...)
		if r < 0x10 {
			b = append(b, '0')
		}
		b = append(b, strings.ToUpper(strconv.FormatInt(int64(r), 16))...)
		b = append(b, '}')
	}
	return b
}
