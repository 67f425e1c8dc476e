package graph

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"postern/mail"
	"postern/relay/upstream"
)

// message is what is to be sent: the header, in memory, and the body wherever it is.
type message struct {
	content mail.Content
	header  mail.Header
	body    int64 // where the body begins in content
}

// readMessage reads the header of a message that was completed by us.
func readMessage(c mail.Content) (*message, error) {
	head, err := mail.FirstOctets(c, 2*mail.HeaderPrefix)
	if err != nil {
		return nil, err
	}
	h, body, err := mail.SplitHeader(head)
	if err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	return &message{content: c, header: h, body: int64(body)}, nil
}

// payload is the octets of one request before base64.
type payload struct {
	head    []byte // prefix, fields, blank line
	content mail.Content
	body    int64
	spare   func() time.Duration // see upstream.Transaction.Spare; nil: for good
}

// compose puts prefix and header together, with a Bcc field of ours in the place of any other.
func (m *message) compose(prefix []byte, bcc mail.Field) *payload {
	h := mail.Header{Fields: m.header.Fields}
	h.Remove("Bcc")
	if bcc.Raw != nil {
		h.Append(bcc)
	}
	head := h.Bytes()
	if len(prefix) > 0 {
		head = append(prefix[:len(prefix):len(prefix)], head...)
	}
	return &payload{head: head, content: m.content, body: m.body}
}

func (p *payload) size() int64 { return int64(len(p.head)) + p.content.Size() - p.body }

// encoded is the length of the request.
func (p *payload) encoded() int64 { return (p.size() + 2) / 3 * 4 }

// block is how many octets are encoded at a time; a multiple of three.
const block = 24 << 10

// encoder is a payload as the body of a request: base64 without line ends, read once. A transport may go on reading
// when the answer is there already; release ends that, since the content lives only as long as the attempt.
type encoder struct {
	mu   sync.Mutex // guards what follows, up to released
	head []byte     // what is left of it
	body io.ReadCloser
	left int64 // octets that are still to be read of head and body
	raw  []byte
	enc  []byte
	out  []byte // part of enc that is not handed out yet

	spare    func() time.Duration // of the payload
	released bool

	gone atomic.Bool // every octet was handed out
	err  atomic.Pointer[error]
}

func (p *payload) open() (*encoder, error) {
	e := &encoder{head: p.head, left: p.size(), spare: p.spare}
	n := int(min(int64(block), e.left))
	e.raw, e.enc = make([]byte, n), make([]byte, base64.StdEncoding.EncodedLen(n))
	body, err := p.openBody()
	if err != nil {
		return nil, err
	}
	e.body = body
	return e, nil
}

// openBody opens the content where its body begins.
func (p *payload) openBody() (io.ReadCloser, error) {
	if b := p.content.Bytes(); b != nil {
		if p.body > int64(len(b)) {
			return nil, errShort
		}
		return io.NopCloser(bytes.NewReader(b[p.body:])), nil
	}
	r, err := p.content.Open()
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, r, p.body); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

var (
	errShort    = errors.New("the message is shorter than it was")
	errReleased = errors.New("the request is over")
)

// Read implements io.Reader. An error of the content, or the end of the lease, stops the request before its end, so
// that Graph gets no cut message.
func (e *encoder) Read(dst []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.released {
		return 0, errReleased
	}
	if len(e.out) == 0 {
		if e.left == 0 {
			e.gone.Store(true)
			return 0, io.EOF
		}
		if err := e.fill(); err != nil {
			e.err.Store(&err)
			return 0, err
		}
	}
	n := copy(dst, e.out)
	e.out = e.out[n:]
	if len(e.out) == 0 && e.left == 0 { // the transport stops at Content-Length and may not ask for EOF
		e.gone.Store(true)
	}
	return n, nil
}

func (e *encoder) fill() error {
	raw := e.raw[:min(int64(len(e.raw)), e.left)]
	n := copy(raw, e.head)
	e.head = e.head[n:]
	if _, err := io.ReadFull(e.body, raw[n:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = errShort
		}
		return err
	}
	if e.left == int64(len(raw)) && e.spare != nil && e.spare() <= 0 {
		return upstream.ErrLease // its end would complete the message
	}
	e.left -= int64(len(raw))
	e.out = e.enc[:base64.StdEncoding.EncodedLen(len(raw))]
	base64.StdEncoding.Encode(e.out, raw)
	return nil
}

// Close implements io.Closer.
func (e *encoder) Close() error {
	e.release()
	return nil
}

// release lets go of the content. It waits for a Read that runs.
func (e *encoder) release() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.released {
		e.released = true
		e.body.Close()
	}
}

// failed is why the content could not be read, if that was so.
func (e *encoder) failed() error {
	if p := e.err.Load(); p != nil {
		return *p
	}
	return nil
}
