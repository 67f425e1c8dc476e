package wire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"postern/mail"
)

// Line lengths, in octets with CRLF. Parameters may make commands longer than the 512 of RFC 5321 §4.5.3.1.4; SASL
// needs 12 288 (RFC 4954 §4).
const (
	maxCommandLine = 4096
	maxSASLLine    = 12288 + 2
	maxAuthLine    = 12288 + 64 // with the initial response
	maxSkipped     = 1 << 20    // of an overlong line, in search of its end
)

// bufferSize holds the longest line and one whole TLS record.
const bufferSize = 16 << 10

// buffers are shared by all connections. A connection that waits for its client has none, so an idle one costs no more
// than crypto/tls and a goroutine.
var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

var (
	errGone        = errors.New("connection lost")
	errShutdown    = errors.New("shutting down")
	errLineTooLong = errors.New("line too long")
	errLineEnd     = errors.New("line not ended by CRLF")
)

// buffered returns what was read but not used. It is valid until the next fill.
func (s *stream) buffered() []byte {
	if s.in == nil {
		return nil
	}
	return s.in[s.r:s.w]
}

// release returns the buffer to the pool if it is empty.
func (s *stream) release() {
	if s.in != nil && s.r == s.w {
		buffers.Put(s.in)
		s.in, s.r, s.w = nil, 0, 0
	}
}

// fill reads at least one more octet. It sends replies before it waits, since the client may be waiting for them.
func (s *stream) fill(by time.Time) error {
	if err := s.flush(); err != nil {
		return err
	}
	if s.in == nil { // wait without a buffer
		if _, err := s.read(s.first[:], by); err != nil {
			return err
		}
		s.in = buffers.Get().(*[bufferSize]byte)
		s.in[0], s.r, s.w = s.first[0], 0, 1
		return nil
	}
	if s.r > 0 {
		s.w = copy(s.in[:], s.in[s.r:s.w])
		s.r = 0
	}
	n, err := s.read(s.in[s.w:], by)
	s.w += n
	return err
}

// read reads at least one octet into p. It fails if interrupted does, with errGone when the connection ends, and with a
// time-out at the deadline.
func (s *stream) read(p []byte, by time.Time) (int, error) {
	for {
		if s.deadline != by {
			s.conn.SetReadDeadline(by)
			s.deadline = by
		}
		// Checked after the deadline is set: Shutdown and evict set their flag first, then move the deadline.
		if err := s.interrupted(); err != nil {
			return 0, err
		}
		n, err := s.conn.Read(p)
		switch {
		case n > 0:
			return n, nil // the next read returns the error again
		case err == nil:
		case !isTimeout(err):
			s.lost = errGone
			return 0, errGone
		case !time.Now().Before(by):
			return 0, err
		default: // woken by Shutdown
			s.deadline = time.Time{}
		}
	}
}

// readLine returns the next line without its CRLF, valid until the next fill. errLineTooLong and
// errLineEnd leave the connection at the beginning of the next line; all other errors are final.
func (s *stream) readLine(by time.Time, sasl bool) ([]byte, error) {
	for seen := 0; ; {
		b := s.buffered()
		if len(b) > 0 && b[0] == recordHandshake && s.tls == nil {
			return nil, errClientHello
		}
		limit := lineLimit(b, sasl)
		if i := bytes.IndexByte(b[seen:], '\n'); i >= 0 {
			line := b[:seen+i+1]
			s.r += len(line)
			return trimLine(line, limit)
		}
		if seen = len(b); seen >= limit {
			return nil, s.skipLine(by)
		}
		if seen == 0 {
			s.release()
		}
		if err := s.fill(by); err != nil {
			return nil, err
		}
	}
}

func lineLimit(b []byte, sasl bool) int {
	switch {
	case sasl:
		return maxSASLLine
	case len(b) >= 5 && strings.EqualFold(string(b[:5]), "AUTH "):
		return maxAuthLine
	}
	return maxCommandLine
}

func trimLine(line []byte, limit int) ([]byte, error) {
	if len(line) > limit {
		return nil, errLineTooLong
	}
	// RFC 5321 §2.3.8: only CRLF ends a line.
	line, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok {
		return nil, errLineEnd
	}
	return line, nil
}

// skipLine discards an overlong line.
func (s *stream) skipLine(by time.Time) error {
	for skipped := 0; skipped < maxSkipped; {
		b := s.buffered()
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			s.r += i + 1
			return errLineTooLong
		}
		skipped += len(b)
		s.r = s.w
		if err := s.fill(by); err != nil {
			return err
		}
	}
	return refuse(ReasonProtocol, mail.R(500, "5.5.2", "line without end"),
		"sent %d octets without a line end", maxSkipped)
}

// discard reads a little of what the client still sends, so that our last reply reaches it.
func (s *stream) discard() {
	var waste [512]byte
	s.conn.SetReadDeadline(time.Now().Add(lingerTimeout))
	for range maxLinger / len(waste) {
		if _, err := io.ReadFull(s.sock, waste[:]); err != nil {
			return
		}
	}
}

const (
	lingerTimeout = time.Second
	maxLinger     = 64 << 10
)
