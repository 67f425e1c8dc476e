package smtp

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"postern/mail"
	"postern/relay/upstream"
)

const (
	// inlineLimit is the largest message that travels in one buffer with its commands, in octets. A larger one is
	// written by a goroutine while the replies are read, so that neither side waits for the other to read.
	inlineLimit = 48 << 10
	// blockSize is how much is written under one deadline.
	blockSize = 64 << 10
	// lastChunk is what BDAT LAST announces of a stream: few enough octets to be in memory before they are announced.
	// It is sent when the chunk before it has been taken.
	lastChunk = 32 << 10
	// abandonAbove is the size from which it is cheaper to drop the connection than to send a message that is refused.
	abandonAbove = 1 << 20
	// lingerTime is how long the upstream may still say why it does not take what we write.
	lingerTime = 2 * time.Second
)

// errBareLine: CR or LF alone. In DATA the upstream might take such a line for another one than we do (SMTP smuggling).
var errBareLine = errors.New("bare CR or LF in the content")

var buffers = sync.Pool{New: func() any {
	b := make([]byte, 0, 64<<10)
	return &b
}}

func getBuffer() *[]byte { return buffers.Get().(*[]byte) }

// putBuffer gives back what getBuffer gave, in the form to which it has grown.
func putBuffer(p *[]byte, grown []byte) {
	if cap(grown) > 256<<10 {
		return
	}
	*p = grown[:0]
	buffers.Put(p)
}

// appendChunk adds the whole message as one chunk.
func (x *transaction) appendChunk(b []byte) []byte {
	b = append(b, "BDAT "...)
	b = strconv.AppendInt(b, x.content.size(), 10)
	b = append(b, " LAST\r\n"...)
	b = append(b, x.content.prefix...)
	return append(b, x.content.mem...)
}

// stream sends a large message by BDAT behind the commands in head, and reads the replies meanwhile.
func (x *transaction) stream(head []byte) {
	two := x.content.mem == nil
	u := x.upload(func(u *upload) error {
		if two {
			return u.chunks(head, x.content)
		}
		return u.chunk(head, x.content)
	})
	if x.readReplies() {
		switch refused := x.fault != nil || x.accepted == 0; {
		case refused && x.content.size() > abandonAbove:
			x.c.broken = true
		case !two:
			x.awaitFinal()
		case x.chunkReply() && !refused && x.fault == nil:
			u.proceed <- true
			x.awaitFinal()
		}
	}
	close(u.proceed)
	x.endUpload()
}

// chunkReply reads the reply to a chunk that is not the last.
func (x *transaction) chunkReply() bool {
	r, ok := x.read(mail.StageData, x.c.u.cfg.Timeouts.DataDone)
	if !ok || x.closing(mail.StageData, r) {
		return false
	}
	if r.Code/100 != 2 && x.chunkRefused(mail.StageData, r) {
		return false
	}
	if r.Code/100 != 2 && x.fault == nil && x.accepted > 0 {
		x.refuse(mail.StageData, r)
	}
	if x.c.said() {
		x.fail(x.c.trouble(mail.StageData, errEarlyReply, "answered before the message was sent"))
		return false
	}
	x.inStep = true
	return !x.ended
}

// data sends the message behind the 354, with dots doubled (RFC 5321 §4.5.2). b is scratch.
func (x *transaction) data(b []byte) {
	if x.content.size() <= inlineLimit {
		var s stuffer
		b, err := s.append(b, x.content.prefix)
		if err == nil {
			b, err = s.append(b, x.content.mem)
		}
		if b, err = s.end(b, err); err != nil {
			x.unsendable(err)
			return
		}
		if x.writeMessage(b) {
			x.final()
		}
		return
	}
	x.upload(func(u *upload) error { return u.stuffed(x.content) })
	x.awaitFinal()
	x.endUpload()
}

// writeMessage writes a flight that ends with the last octet of the message, while the lease has time for it. false:
// nothing was written, and the transaction is over.
func (x *transaction) writeMessage(b []byte) bool {
	spare := x.t.Spare()
	if spare <= 0 {
		x.unsendable(upstream.ErrLease)
		return false
	}
	if x.gone = x.writeWithin(min(x.c.u.cfg.Timeouts.DataBlock, spare), b); x.gone {
		x.c.due.commit()
	}
	return true
}

// unsendable ends the transaction because of the content, or because the message may be somebody else's by now. The
// connection goes with it: a message is never ended early.
func (x *transaction) unsendable(err error) {
	x.c.broken = true
	if x.fault != nil && x.fault.err == nil {
		return // the upstream refused before, which stands
	}
	switch x.fault = contentFault(err); {
	case errors.Is(err, upstream.ErrLease):
		x.fault = leaseFault(mail.StageData)
	case errors.Is(err, errBareLine):
		x.fault = &fault{stage: mail.StageData, class: mail.MessageFault, ours: true, err: err,
			reply: mail.R(550, "5.6.0", "the message has lines that do not end in CRLF, which DATA cannot carry")}
	}
}

// awaitFinal reads the reply to a message that is being uploaded.
func (x *transaction) awaitFinal() {
	r, ok := x.read(mail.StageDot, x.c.u.cfg.Timeouts.DataDone)
	if !ok {
		return
	}
	// An honest reply cannot come before the last write has begun, though it may come before that has returned.
	switch {
	case !x.up.last.Load():
		x.c.broken = true
	case r.Code/100 == 2:
		<-x.up.done
		x.gone = x.up.err == nil
	}
	x.finish(r)
}

// allWritten reports whether every octet of the message is out, when nothing more will be written.
func (x *transaction) allWritten() bool {
	if x.up == nil || !x.up.last.Load() {
		return x.gone
	}
	x.c.due.stopWriting()
	<-x.up.done
	return x.up.err == nil
}

// endUpload stops the writer if it still writes and nobody listens, and waits for it.
func (x *transaction) endUpload() {
	u, stopped := x.up, false
	select {
	case <-u.done:
	default:
		if x.ended || x.c.broken {
			x.c.broken, stopped = true, true
			x.c.due.stopWriting()
		}
		<-u.done
	}
	switch {
	case u.err == nil || x.stale:
	case u.ours: // whatever the end of the connection looked like, it was us
		x.unsendable(u.err)
	case !stopped:
		x.fail(x.c.lost(mail.StageData, u.err))
	}
}

// upload is the writing of a large message by a goroutine of its own.
type upload struct {
	c       *conn
	t       *upstream.Transaction
	proceed chan bool   // whether the last of two chunks may go; closed: no
	last    atomic.Bool // the last write has begun
	done    chan struct{}
	err     error // valid when done
	ours    bool  // err is the content's, or the lease's
}

// upload starts to write. While it lasts, reading has no deadline: that is set when the last octet is out.
func (x *transaction) upload(produce func(*upload) error) *upload {
	u := &upload{c: x.c, t: x.t, done: make(chan struct{}), proceed: make(chan bool, 1)}
	x.up = u
	u.c.due.startUpload()
	go func() { // endUpload waits for it
		defer close(u.done)
		u.err = produce(u)
		u.c.due.uploaded(u.err == nil && u.last.Load(), u.err, u.ours)
	}()
	return u
}

func (u *upload) write(b []byte) error { return u.writeWithin(u.c.u.cfg.Timeouts.DataBlock, b) }

func (u *upload) writeWithin(d time.Duration, b []byte) error {
	for len(b) > 0 {
		n := min(len(b), blockSize)
		u.c.due.write(d)
		if _, err := u.c.rw.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// end writes what completes the message, while the lease has time for it.
func (u *upload) end(b []byte) error {
	n := max(0, len(b)-blockSize)
	if err := u.write(b[:n]); err != nil {
		return err
	}
	spare := u.t.Spare()
	if spare <= 0 {
		u.ours = true
		return upstream.ErrLease
	}
	u.last.Store(true)
	return u.writeWithin(min(u.c.u.cfg.Timeouts.DataBlock, spare), b[n:])
}

// content marks an error as the content's.
func (u *upload) content(err error) error {
	u.ours = true
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// chunk sends content from memory as one chunk.
func (u *upload) chunk(head []byte, c *body) error {
	head = append(head, "BDAT "...)
	head = strconv.AppendInt(head, c.size(), 10)
	head = append(head, " LAST\r\n"...)
	head = append(head, c.prefix...)
	if err := u.write(head); err != nil {
		return err
	}
	return u.end(c.mem)
}

// chunks sends a stream as two chunks. The second, with LAST, is announced only when all of it is in memory: a stream
// that breaks off leaves a message that no server can take for complete. Nor can a server that refused the first chunk
// take the second for a message of its own: it does not get it.
func (u *upload) chunks(head []byte, c *body) error {
	first := c.size() - lastChunk
	head = append(head, "BDAT "...)
	head = strconv.AppendInt(head, first, 10)
	head = append(head, "\r\n"...)
	head = append(head, c.prefix...)
	if err := u.write(head); err != nil {
		return err
	}
	p := getBuffer()
	b := *p
	defer func() { putBuffer(p, b) }()
	for left := first - int64(len(c.prefix)); left > 0; {
		b = b[:min(left, int64(cap(b)))]
		if _, err := io.ReadFull(c.r, b); err != nil {
			return u.content(err)
		}
		if err := u.write(b); err != nil {
			return err
		}
		left -= int64(len(b))
	}
	b = append(b[:0], "BDAT "...)
	b = strconv.AppendInt(b, lastChunk, 10)
	b = append(b, " LAST\r\n"...)
	n := len(b)
	b = append(b, make([]byte, lastChunk)...)
	if _, err := io.ReadFull(c.r, b[n:]); err != nil {
		return u.content(err)
	}
	u.c.due.uploaded(false, nil, false) // the reader waits for the reply to the first
	if !<-u.proceed {
		return nil
	}
	return u.end(b)
}

// stuffed sends the content for DATA.
func (u *upload) stuffed(c *body) error {
	p := getBuffer()
	b := *p
	defer func() { putBuffer(p, b) }()
	var s stuffer
	b, err := s.append(b[:0], c.prefix)
	if err != nil {
		return u.content(err)
	}
	source := io.Reader(c.r)
	if c.mem != nil {
		source = bytes.NewReader(c.mem)
	}
	q := getBuffer()
	defer putBuffer(q, *q)
	block := (*q)[:blockSize/2]
	for left := c.content.Size(); left > 0; {
		block = block[:min(left, int64(len(block)))]
		if _, err := io.ReadFull(source, block); err != nil {
			return u.content(err)
		}
		left -= int64(len(block))
		if b, err = s.append(b, block); err != nil {
			return u.content(err)
		}
		if left > 0 {
			if err := u.write(b); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	if b, err = s.end(b, nil); err != nil {
		return u.content(err)
	}
	return u.end(b)
}

// stuffer doubles dots at the start of lines and refuses lines that do not end in CRLF.
type stuffer struct {
	inLine bool // octets of the present line have been seen
	cr     bool // the last octet was CR
}

func (s *stuffer) append(dst, src []byte) ([]byte, error) {
	from := 0 // what lies before is in dst
	for i := 0; i < len(src); {
		if s.cr && src[i] != '\n' {
			return dst, errBareLine
		}
		if !s.inLine && src[i] == '.' {
			dst = append(append(dst, src[from:i]...), '.')
			from = i
		}
		end := bytes.IndexByte(src[i:], '\n')
		if end < 0 {
			end = len(src) - i
			if cr := bytes.IndexByte(src[i:], '\r'); cr >= 0 && cr != end-1 {
				return dst, errBareLine
			}
			s.inLine, s.cr = true, src[len(src)-1] == '\r'
			break
		}
		if end == 0 && !s.cr || end > 0 && bytes.IndexByte(src[i:i+end], '\r') != end-1 {
			return dst, errBareLine
		}
		s.inLine, s.cr = false, false
		i += end + 1
	}
	return append(dst, src[from:]...), nil
}

// end adds what ends the message, and the end of its last line where that is missing.
func (s *stuffer) end(dst []byte, err error) ([]byte, error) {
	switch {
	case err != nil:
		return dst, err
	case s.cr:
		return dst, errBareLine
	case s.inLine:
		dst = append(dst, "\r\n"...)
	}
	return append(dst, ".\r\n"...), nil
}
