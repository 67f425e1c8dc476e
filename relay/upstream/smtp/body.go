package smtp

import (
	"bytes"
	"context"
	"io"
	"unicode/utf8"

	"postern/mail"
	"postern/relay/upstream"
)

// body is the content with its prefix, from memory or as a stream.
type body struct {
	prefix  []byte
	mem     []byte // all octets, or nil
	r       io.ReadCloser
	fresh   bool // r stands at its first octet
	content mail.Content

	utf8Header bool // the header has UTF-8 that is not ASCII, which SMTPUTF8 is for
	eightBit   bool // there is an octet above 0x7f
}

// prepare calls Prefix and makes sure that the content can be had before anything is said to the upstream.
func (b *body) prepare(ctx context.Context, t *upstream.Transaction) *fault {
	b.content = t.Content
	if t.Prefix != nil {
		prefix, err := t.Prefix(ctx)
		if err != nil {
			return signFault(err)
		}
		b.prefix = prefix
	}
	if b.mem = t.Content.Bytes(); b.mem != nil {
		return nil
	}
	if f := b.rewind(); f != nil || t.Content.Size() > inlineLimit {
		b.fresh = f == nil
		return f
	}
	mem := make([]byte, t.Content.Size())
	_, err := io.ReadFull(b.r, mem)
	b.r.Close()
	b.r = nil
	if err != nil {
		return contentFault(err)
	}
	b.mem = mem
	return nil
}

// rewind makes a stream stand at its first octet.
func (b *body) rewind() *fault {
	if b.mem != nil || b.fresh {
		b.fresh = false
		return nil
	}
	if b.r != nil {
		b.r.Close()
		b.r = nil
	}
	r, err := b.content.Open()
	if err != nil {
		return contentFault(err)
	}
	b.r = r
	return nil
}

// size is what goes out, in octets, dots not doubled.
func (b *body) size() int64 { return int64(len(b.prefix)) + b.content.Size() }

// maxHeader is how much of a message is looked at for the end of its header, in octets.
const maxHeader = 256 << 10

// survey finds what the content needs. maybe: there was an octet above 0x7f when the message came in, and may still
// be one; without it there is nothing to look for. The prefix is ours and ASCII.
func (b *body) survey(maybe bool) *fault {
	if !maybe {
		return nil
	}
	if b.mem != nil {
		b.look(b.mem)
		return nil
	}
	r, err := b.content.Open()
	if err != nil {
		return contentFault(err)
	}
	defer r.Close()
	block := make([]byte, min(b.content.Size(), maxHeader))
	for first := true; !b.eightBit; first = false {
		n, err := io.ReadFull(r, block)
		if first {
			b.look(block[:n])
		} else {
			b.eightBit = highAt(block[:n]) >= 0
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF: // sending finds out whether it is the end
			return nil
		default:
			return contentFault(err)
		}
	}
	return nil
}

// look finds out from the beginning of the content whether it needs 8BITMIME or SMTPUTF8. An eight-bit header that is
// not UTF-8 passes as eight-bit content does.
func (b *body) look(start []byte) {
	high := highAt(start)
	if b.eightBit = high >= 0; !b.eightBit {
		return
	}
	header := start
	if end := bytes.Index(start, []byte("\r\n\r\n")); end >= 0 {
		header = start[:end]
	}
	b.utf8Header = high < len(header) && utf8.Valid(header)
}

// highAt is the place of the first octet above 0x7f, or -1.
func highAt(b []byte) int {
	for i, c := range b {
		if c >= utf8.RuneSelf {
			return i
		}
	}
	return -1
}
