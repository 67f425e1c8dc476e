package submission

import (
	"bytes"
	"context"
	"fmt"

	"postern/mail"
	"postern/relay/encode"
	"postern/relay/spool"
)

// mendBody re-encodes the parts of a message that have lines over 998 octets, and declares the charset of an
// eight-bit body that declares none. Ordinary mail is not looked at.
func (u *submission) mendBody(context.Context) error {
	if u.longLines {
		if err := u.encodeLongLines(); err != nil {
			return err
		}
	}
	if u.eightBit && !u.header.Has("Content-Type") {
		return u.declareCharset()
	}
	return nil
}

func (u *submission) encodeLongLines() error {
	plan, err := encode.NewPlan(encode.Message{Header: u.header, Content: u.raw, Body: int64(u.body), Line: u.bodyLine})
	if err != nil {
		return err
	}
	if plan.Empty() {
		return nil // they were in the header
	}
	buffer := u.service.Spool.Buffer(0)
	made := newHolder(buffer)
	defer func() { made.release() }() // of whichever octets are not needed, whatever happens
	content, err := encoded(buffer, plan)
	if err != nil {
		return err
	}
	u.octets, made = made, u.octets
	u.raw, u.body, u.header = content, 0, plan.Header()
	u.eightBit = plan.EightBit() || eightBitHeader(u.header)
	note := plan.Note()
	if u.header.Has("DKIM-Signature") {
		note += "; the DKIM-Signature that it came with does not hold any more"
	}
	u.notes = append(u.notes, note)
	return nil
}

// encoded is the body that a plan makes.
func encoded(buffer *spool.Buffer, plan *encode.Plan) (mail.Content, error) {
	if err := plan.Write(buffer); err != nil {
		return nil, err
	}
	return buffer.Content()
}

// declareCharset says what an eight-bit body without a Content-Type is. With MIME-Version alone it would be
// declared to be US-ASCII (RFC 2045 §5.2).
func (u *submission) declareCharset() error {
	charset, err := encode.Charset(u.raw, int64(u.body))
	if err != nil {
		return fmt.Errorf("read back the body: %w", err)
	}
	if charset == "us-ascii" {
		return nil // the eight-bit octets were in the header
	}
	u.header.Append(mail.NewField("Content-Type", "text/plain; charset="+charset))
	if !u.header.Has("Content-Transfer-Encoding") {
		u.header.Append(mail.NewField("Content-Transfer-Encoding", "8bit"))
	}
	return nil
}

func eightBitHeader(h mail.Header) bool {
	for _, f := range h.Fields {
		if bytes.ContainsFunc(f.Raw, func(r rune) bool { return r >= 0x80 }) {
			return true
		}
	}
	return false
}
