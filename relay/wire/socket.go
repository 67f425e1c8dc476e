package wire

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// socket is the accepted connection, below TLS. It can unread octets and read without waiting. Only the connection's
// goroutine reads and writes; Close and the deadlines may be used from elsewhere.
type socket struct {
	net.Conn
	raw    syscall.RawConn      // nil if the connection has none
	ahead  []byte               // unread octets
	nowait bool                 // Read returns errNothing instead of waiting
	hello  *tls.ClientHelloInfo // until the handshake succeeds
	alert  alert                // received unencrypted during the handshake
}

// alert is the number of a fatal TLS alert, if there was one.
type alert struct {
	number uint8
	seen   bool
}

// errNothing is the error of a Read that would have to wait. It is a time-out, which crypto/tls survives.
var errNothing error = os.ErrDeadlineExceeded

func newSocket(nc net.Conn) *socket {
	s := &socket{Conn: nc}
	if sc, ok := nc.(syscall.Conn); ok {
		s.raw, _ = sc.SyscallConn()
	}
	return s
}

// unread pushes octets back, in front of those already unread.
func (s *socket) unread(b []byte) { s.ahead = append(append([]byte(nil), b...), s.ahead...) }

func (s *socket) Read(p []byte) (int, error) {
	if len(s.ahead) > 0 {
		n := copy(p, s.ahead)
		if s.ahead = s.ahead[n:]; len(s.ahead) == 0 {
			s.ahead = nil
		}
		return n, nil
	}
	if s.nowait {
		return s.readNow(p)
	}
	n, err := s.Conn.Read(p)
	if s.hello != nil {
		s.lookForAlert(p[:n])
	}
	return n, err
}

// lookForAlert looks for an unencrypted alert among the received records. With TLS 1.3 OpenSSL rejects a certificate
// before it encrypts anything, and crypto/tls, which expects an encrypted record, hides the alert.
func (s *socket) lookForAlert(b []byte) {
	for len(b) >= 5 && b[1] == 3 {
		size := int(binary.BigEndian.Uint16(b[3:]))
		if b[0] == recordAlert && size == 2 && len(b) >= 7 {
			s.alert = alert{number: b[6], seen: true}
		}
		b = b[min(len(b), 5+size):]
	}
}

// readNow reads what has arrived, or returns errNothing.
func (s *socket) readNow(p []byte) (int, error) {
	if s.raw == nil { // not a socket: wait as briefly as possible
		s.Conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		return s.Conn.Read(p)
	}
	var n int
	var err error
	if e := s.raw.Read(func(fd uintptr) bool {
		n, err = readFD(fd, p)
		return true
	}); e != nil {
		return 0, e
	}
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		return 0, errNothing
	case err != nil:
		return 0, err
	case n <= 0:
		return 0, net.ErrClosed
	}
	return n, nil
}

// note records a ClientHello, to explain a failed handshake.
func (s *socket) note(h *tls.ClientHelloInfo) { s.hello = h }

// closeWrite ends our stream, so that the peer reads our last reply even if we have unread input: closing at once would
// reset the connection.
func (s *socket) closeWrite() {
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}
