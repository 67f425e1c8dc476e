package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"slices"
	"time"

	"postern/internal/errno"
	"postern/mail"
)

// ServerTLS returns a listener's configuration: certificates from getCertificate, no session tickets (those of TLS 1.3
// have broken Microsoft clients, and resumption gains a submission client little), Go's cipher suites. LegacyTLS is for
// old devices.
func ServerTLS(getCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error), minVersion uint16) *tls.Config {
	return &tls.Config{
		GetCertificate:         getCertificate,
		MinVersion:             minVersion,
		SessionTicketsDisabled: true,
	}
}

// listenerTLS adapts a configuration to our connections.
func listenerTLS(c *tls.Config) *tls.Config {
	if c == nil {
		return nil
	}
	c = c.Clone()
	// Full records from the start, so that the replies of a batch leave in one write.
	c.DynamicRecordSizingDisabled = true
	next := c.GetConfigForClient
	c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if s, ok := h.Conn.(*socket); ok {
			s.note(h)
		}
		if speaksHTTP(h.SupportedProtos) {
			return nil, errALPN
		}
		if next != nil {
			return next(h)
		}
		return nil, nil
	}
	return c
}

var errALPN = errors.New("the client asks for HTTP by ALPN")

// speaksHTTP reports whether a client wants only HTTP: a browser that was lured here (ALPACA).
func speaksHTTP(protocols []string) bool {
	return len(protocols) > 0 && !slices.ContainsFunc(protocols, func(p string) bool {
		return p != "h2" && p != "http/1.1" && p != "http/1.0"
	})
}

// handshake begins TLS. Any failure ends the connection: there is no way back to plaintext.
func (c *Conn) handshake() error {
	deadline := time.Now().Add(30 * time.Second)
	if c.loginBy.Before(deadline) {
		deadline = c.loginBy
	}
	tc := tls.Server(c.io.sock, c.opt.TLS)
	if tc.SetDeadline(deadline); c.evicted.Load() {
		return c.evictedRefusal().silent()
	}
	// Without c.ctx, which would cost a goroutine: a hard stop closes the socket.
	if err := tc.HandshakeContext(context.Background()); err != nil {
		return c.handshakeRefusal(err)
	}
	c.io.sock.hello, c.io.sock.alert = nil, alert{}
	tc.SetDeadline(time.Time{})
	c.srv.half.secured(c.slot)
	c.io.useTLS(tc)
	return nil
}

// maxDetail bounds the explanation of a failed handshake, in octets: six cipher suites and what to do.
const maxDetail = 700

// handshakeRefusal explains a failed handshake in plain words.
func (c *Conn) handshakeRefusal(err error) error {
	if c.srv.closing.Load() {
		return errGone // woken by Shutdown
	}
	if c.evicted.Load() {
		return c.evictedRefusal().silent()
	}
	detail := handshakeFault{c.opt.TLS, c.io.sock.hello}.detail(err, c.io.sock.alert)
	r := refuse(ReasonTLS, mail.Reply{}, "%s", mail.Cut(mail.Printable(detail), maxDetail)).because(err)
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok && e.Conn != nil && !c.greeted {
		// We have sent nothing, and the client sent no TLS: it can read a reply.
		r.reply = tlsFirst
	}
	if c.closedEarly(err) {
		return errGone
	}
	return r
}

// closedEarly reports whether a client left without a ClientHello, as port checks do: nothing to report.
func (c *Conn) closedEarly(err error) bool {
	gone := errors.Is(err, io.EOF) || errors.Is(err, errno.Reset)
	return gone && c.io.sock.hello == nil && !c.greeted
}
