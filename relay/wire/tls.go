package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"postern/mail"
)

// ServerTLS returns what a listener presents: certificates from getCertificate, no session tickets
// (those of TLS 1.3 have broken Microsoft clients, and a resumed session saves a submission client
// nothing that matters), Go's cipher suites, and below TLS 1.2 the suites that old devices need.
func ServerTLS(getCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error), minVersion uint16) *tls.Config {
	c := &tls.Config{
		GetCertificate:         getCertificate,
		MinVersion:             minVersion,
		SessionTicketsDisabled: true,
	}
	if minVersion < tls.VersionTLS12 { // explicit: Go leaves RSA key exchange and 3DES out by default
		for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
			if !strings.Contains(s.Name, "RC4") {
				c.CipherSuites = append(c.CipherSuites, s.ID)
			}
		}
	}
	return c
}

// listenerTLS prepares a configuration for connections of ours.
func listenerTLS(c *tls.Config) *tls.Config {
	if c == nil {
		return nil
	}
	c = c.Clone()
	// Full records from the start: the replies of a batch are to leave in one write.
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

// speaksHTTP reports a client that wants HTTP and nothing else: a browser that was lured here (ALPACA).
func speaksHTTP(protocols []string) bool {
	return len(protocols) > 0 && !slices.ContainsFunc(protocols, func(p string) bool {
		return p != "h2" && p != "http/1.1" && p != "http/1.0"
	})
}

// handshake puts TLS on the connection. Any failure ends the connection: there is no way back to clear
// text.
func (c *Conn) handshake() error {
	deadline := time.Now().Add(30 * time.Second)
	if c.loginBy.Before(deadline) {
		deadline = c.loginBy
	}
	tc := tls.Server(c.sock, c.opt.TLS)
	if tc.SetDeadline(deadline); c.ousted.Load() {
		return c.oustedRefusal().silent()
	}
	// No context: it would cost a goroutine, and a hard stop closes the socket.
	if err := tc.HandshakeContext(context.Background()); err != nil {
		return c.handshakeRefusal(err)
	}
	c.sock.hello, c.sock.alert = nil, alert{}
	tc.SetDeadline(time.Time{})
	c.srv.half.secured(c.stranger)
	c.stream, c.tls, c.deadline = tc, tc, time.Time{}
	return nil
}

// handshakeRefusal says in plain words why a handshake failed.
func (c *Conn) handshakeRefusal(err error) error {
	if c.srv.closing.Load() {
		return errGone // woken by Shutdown
	}
	if c.ousted.Load() {
		return c.oustedRefusal().silent()
	}
	r := refuse(ReasonTLS, mail.Reply{}, "%s", mail.Cut(mail.Printable(c.handshakeDetail(err)), 480)).because(err)
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok && e.Conn != nil && !c.greeted {
		// Nothing was sent yet, and what came was not TLS: a person may be reading.
		r.reply = tlsFirst
	}
	if c.closedEarly(err) {
		return errGone
	}
	return r
}

// closedEarly reports a client that left without a ClientHello: a port check, nothing to tell of.
func (c *Conn) closedEarly(err error) bool {
	gone := errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
	return gone && c.sock.hello == nil && !c.greeted
}
