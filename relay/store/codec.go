package store

import (
	"cmp"
	"encoding/binary"
	"errors"

	"postern/mail"
	"postern/relay/queue"
)

// What SQL need not see of a message is kept in two blobs: what never changes (fixed) and the
// recipients. Each begins with a version; strings and lists carry their length. Fields are only ever
// added at the end of a new version.
const codecVersion = 1

// recipientsVersion is that of the recipients: 2 added the host that said the reply, and the stage, 3 the doubts.
const recipientsVersion = 3

var errCodec = errors.New("a stored message cannot be read: its row is damaged or of a newer version")

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendAddress(b []byte, a mail.Address) []byte {
	return appendString(appendString(b, a.Local), a.Domain)
}

func appendReply(b []byte, r mail.Reply) []byte {
	b = binary.AppendUvarint(b, uint64(r.Code))
	return appendString(appendString(b, r.Enhanced), r.Text)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// encodeFixed encodes what of a message never changes and has no column.
func encodeFixed(b []byte, m *queue.Message) []byte {
	b = append(b, codecVersion)
	b = appendString(b, m.Listener)
	b = appendString(b, m.Session)
	b = appendString(b, m.MessageID)
	b = appendAddress(b, m.Author)
	b = appendBool(b, m.EightBit)
	b = appendAddress(b, m.Envelope.From)
	b = appendString(b, string(m.Envelope.Body))
	b = appendBool(b, m.Envelope.UTF8)
	b = binary.AppendVarint(b, m.Envelope.Size)
	b = appendString(b, string(m.Envelope.Ret))
	b = appendString(b, m.Envelope.EnvID)
	b = binary.AppendUvarint(b, uint64(len(m.Groups)))
	for _, g := range m.Groups {
		b = appendString(b, g)
	}
	return b
}

func decodeFixed(b []byte, m *queue.Message) error {
	d := newDecoder(b)
	m.Listener = d.text()
	m.Session = d.text()
	m.MessageID = d.text()
	m.Author = d.address()
	m.EightBit = d.flag()
	m.Envelope.From = d.address()
	m.Envelope.Body = mail.Body(d.text())
	m.Envelope.UTF8 = d.flag()
	m.Envelope.Size = d.varint()
	m.Envelope.Ret = mail.Ret(d.text())
	m.Envelope.EnvID = d.text()
	for n := d.length(1); n > 0; n-- {
		m.Groups = append(m.Groups, d.text())
	}
	return d.end()
}

func encodeRecipients(b []byte, rs []queue.Recipient) []byte {
	b = append(b, recipientsVersion)
	b = binary.AppendUvarint(b, uint64(len(rs)))
	for i := range rs {
		r := &rs[i]
		b = appendAddress(b, r.To)
		b = append(b, byte(r.Notify))
		b = appendString(b, r.ORcpt)
		status := r.Status
		status = cmp.Or(status, queue.Pending)
		b = appendString(b, string(status))
		b = appendReply(b, r.Reply)
		b = appendString(b, r.Upstream)
		b = appendBool(b, r.Relayed)
		b = appendString(appendString(b, r.Host), string(r.Stage))
		b = binary.AppendUvarint(b, uint64(max(r.Doubts, 0)))
	}
	return b
}

// maxDoubts bounds what is believed of a number that the queue counts to three.
const maxDoubts = 1000

// minRecipient is how many octets an encoded recipient has at least.
const minRecipient = 10

func decodeRecipients(b []byte) ([]queue.Recipient, error) {
	d := &decoder{b: b}
	version := d.octet()
	d.bad = d.bad || version < codecVersion || version > recipientsVersion
	n := d.length(minRecipient)
	rs := make([]queue.Recipient, 0, n)
	for range n {
		var r queue.Recipient
		r.To = d.address()
		r.Notify = mail.Notify(d.octet())
		r.ORcpt = d.text()
		r.Status = queue.Status(d.text())
		r.Reply = d.reply()
		r.Upstream = d.text()
		r.Relayed = d.flag()
		if version > 1 {
			r.Host, r.Stage = d.text(), mail.Stage(d.text())
		}
		if version > 2 {
			r.Doubts = int(min(d.uvarint(), maxDoubts))
		}
		rs = append(rs, r)
	}
	return rs, d.end()
}

func encodeReply(r mail.Reply) []byte {
	if r.IsZero() {
		return nil
	}
	return appendReply([]byte{codecVersion}, r)
}

func decodeReply(b []byte) (mail.Reply, error) {
	if len(b) == 0 {
		return mail.Reply{}, nil
	}
	d := newDecoder(b)
	r := d.reply()
	return r, d.end()
}

// decoder reads a blob. After the first thing that is not as it should be, everything is zero and end
// says so.
type decoder struct {
	b   []byte
	bad bool
}

func newDecoder(b []byte) *decoder {
	d := &decoder{b: b}
	d.bad = d.octet() != codecVersion
	return d
}

func (d *decoder) octet() byte {
	if d.bad || len(d.b) == 0 {
		d.bad = true
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) flag() bool { return d.octet() != 0 }

func (d *decoder) uvarint() uint64 {
	n, size := binary.Uvarint(d.b)
	if d.bad || size <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *decoder) varint() int64 {
	n, size := binary.Varint(d.b)
	if d.bad || size <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[size:]
	return n
}

// length reads the number of things that follow, each of at least unit octets.
func (d *decoder) length(unit int) int {
	n := d.uvarint()
	if n > uint64(len(d.b)/unit) {
		d.bad = true
		return 0
	}
	return int(n)
}

func (d *decoder) text() string {
	n := d.length(1)
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *decoder) address() mail.Address {
	local := d.text()
	return mail.Address{Local: local, Domain: d.text()}
}

func (d *decoder) reply() mail.Reply {
	r := mail.Reply{Code: int(d.uvarint())}
	r.Enhanced = d.text()
	r.Text = d.text()
	return r
}

func (d *decoder) end() error {
	if d.bad || len(d.b) > 0 {
		return errCodec
	}
	return nil
}
