package wire

import (
	"crypto/tls"
	"errors"
	"net"
	"time"
)

// stream is the octets of a connection, over the socket or TLS, with its buffers and deadlines.
type stream struct {
	sock     *socket
	conn     net.Conn  // sock, or TLS on it
	tls      *tls.Conn // nil before TLS
	deadline time.Time // read deadline as last set

	in    *[bufferSize]byte // nil while nothing is buffered
	r, w  int
	first [1]byte
	out   *[]byte
	lost  error // the connection cannot be written to

	interrupted  func() error         // why not to wait for the client, or nil
	writeTimeout func() time.Duration // bounds one write
}

// errClientHello is a ClientHello where a line is due.
var errClientHello = errors.New("ClientHello instead of a line")

// useTLS puts TLS on the connection after its handshake.
func (s *stream) useTLS(c *tls.Conn) { s.conn, s.tls, s.deadline = c, c, time.Time{} }

// closeTLS sends the end of TLS.
func (s *stream) closeTLS() {
	if s.tls != nil {
		s.conn.SetWriteDeadline(time.Now().Add(lingerTimeout))
		s.tls.CloseWrite()
	}
}

// end sends the end of our stream.
func (s *stream) end() {
	s.closeTLS()
	s.sock.closeWrite()
}

// drop clears and releases the input.
func (s *stream) drop() {
	if s.in != nil {
		clear(s.in[:])
		s.r, s.w = 0, 0
		s.release()
	}
}
