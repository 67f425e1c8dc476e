package dsn

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"postern/mail"
)

// maxHeader bounds the returned header, in octets; fields beyond it are left out whole.
const maxHeader = 64 << 10

// prefixSize bounds the search for the original's header: what mail.ReadHeader accepts, and the fields that we added.
const prefixSize = mail.HeaderPrefix + 64<<10

// original is what a report returns of the message.
type original struct {
	body    []byte // nil: nothing
	full    bool
	subject string // decoded, for people
}

// readOriginal reads what is returned of the message: everything if RET=FULL asks for it after a failure and the
// message is small and 7-bit (RFC 3461 §6.2 allows returning less than asked), else the header.
func readOriginal(r Report) (original, error) {
	if r.Original == nil {
		return original{}, nil
	}
	full := r.Ret == mail.RetFull && r.Kind == Failure && r.Original.Size() <= MaxFull
	prefix, err := mail.FirstOctets(r.Original, prefixSize)
	if err != nil {
		return original{}, fmt.Errorf("read %d octets: %w", prefixSize, err)
	}
	h, _, err := mail.SplitHeader(cutHeader(prefix))
	if err != nil {
		return original{}, err
	}
	o := original{subject: subjectText(h.Get("Subject"))}
	if full && sendable(prefix) {
		o.body, o.full = prefix, true
		return o, nil
	}
	o.body = []byte{}
	for _, f := range h.Fields {
		if len(o.body)+len(f.Raw) > maxHeader {
			break
		}
		o.body = append(o.body, f.Raw...)
	}
	return o, nil
}

// cutHeader returns the header of a message with its blank line.
func cutHeader(b []byte) []byte {
	if bytes.HasPrefix(b, []byte("\r\n")) {
		return b[:2]
	}
	if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 {
		return b[:i+4]
	}
	return b
}

// sendable reports whether a report can include a message unencoded, as message/rfc822 requires (RFC 2046 §5.2.1).
func sendable(b []byte) bool {
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 1 || i > 999 || b[i-1] != '\r' {
			return false
		}
		for _, c := range b[:i-1] {
			if c > 0x7f || c == 0 || c == '\r' {
				return false
			}
		}
		b = b[i+1:]
	}
	return true
}

// says tells the reader what is attached.
func (o original) says() string {
	switch {
	case o.body == nil:
		return ""
	case o.full:
		return "Your message is attached."
	}
	return "The header of your message is attached."
}

func (o original) part(global bool) part {
	if o.full {
		return part{description: "Your message", contentType: "message/rfc822", body: o.body}
	}
	p := part{description: "Header of your message", contentType: "text/rfc822-headers", body: o.body}
	// RFC 6522 §4 allows quoted-printable for headers that are not 7-bit.
	p.eightBit = "text/rfc822-headers; charset=utf-8"
	switch valid := utf8.Valid(o.body); {
	case global && valid:
		p.eightBit = "message/global-headers" // RFC 6533 §6.3
	case !valid:
		p.eightBit = "text/rfc822-headers; charset=unknown-8bit" // RFC 1428 §3
	}
	return p
}
