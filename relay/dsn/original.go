package dsn

import (
	"bytes"
	"fmt"
	"io"
	"unicode/utf8"

	"postern/mail"
)

// maxHeader is how much of a header a report returns, in octets; whole fields are left out beyond it.
const maxHeader = 64 << 10

// prefixSize is how much of the original is read to find its header: what mail.ReadHeader lets in and
// what was completed on top.
const prefixSize = mail.HeaderPrefix + 64<<10

// original is what a report returns of the message.
type original struct {
	body    []byte // nil: nothing
	full    bool
	subject string // decoded, for people
}

// readOriginal reads the part of the message that is returned: everything for a failure when RET=FULL
// asks for it and it is small and seven-bit (RFC 3461 §6.2 allows less than was asked), else the header.
func readOriginal(r Report) (original, error) {
	if r.Original == nil {
		return original{}, nil
	}
	full := r.Ret == mail.RetFull && r.Kind == Failure && r.Original.Size() <= MaxFull
	size := min(r.Original.Size(), prefixSize)
	prefix, err := readPrefix(r.Original, size)
	if err != nil {
		return original{}, err
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

func readPrefix(c mail.Content, n int64) ([]byte, error) {
	if b := c.Bytes(); b != nil {
		return b[:n], nil
	}
	r, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	prefix := make([]byte, n)
	if _, err := io.ReadFull(r, prefix); err != nil {
		return nil, fmt.Errorf("read %d octets: %w", n, err)
	}
	return prefix, nil
}

// cutHeader cuts a message behind its header.
func cutHeader(b []byte) []byte {
	if bytes.HasPrefix(b, []byte("\r\n")) {
		return b[:2]
	}
	if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 {
		return b[:i+4]
	}
	return b
}

// sendable reports whether a message can stand in a report as it is: message/rfc822 must not be encoded
// (RFC 2046 §5.2.1).
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

// says tells the reader what follows.
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
	// RFC 6522 §4 allows quoted-printable for headers that are not seven-bit.
	p.eightBit = "text/rfc822-headers; charset=utf-8"
	switch valid := utf8.Valid(o.body); {
	case global && valid:
		p.eightBit = "message/global-headers" // RFC 6533 §6.3
	case !valid:
		p.eightBit = "text/rfc822-headers; charset=unknown-8bit" // RFC 1428 §3
	}
	return p
}
