// Package capture is the upstream of `postern demo`: a real SMTP server on loopback that requires STARTTLS and AUTH and
// holds messages in memory, so that they can be fetched and looked at. It is built on emersion/go-smtp's Server rather
// than our own code, so that the two check each other.
//
// Failure semantics: those of go-smtp, which mistakes the end of the connection inside the last BDAT chunk for the end
// of the message. Memory is bounded by a number of messages and of octets: the oldest go first.
package capture

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

const (
	maxMessages = 100
	maxTotal    = 64 << 20 // octets kept; the newest message stays even if it is larger
	maxSize     = 35 << 20 // octets of a message
	// maxLine bounds a command line. It is far above RFC 5321's because go-smtp applies it also to a
	// BDAT chunk that came in the same read as its command.
	maxLine = 64 << 10
)

// ErrClosed is what WaitMessage returns once the server is closed.
var ErrClosed = errors.New("capture upstream is closed")

// Options say what Start serves.
type Options struct {
	TLS                *tls.Config // certificate for STARTTLS
	Username, Password string      // the one login
	Greylist           int         // so many first recipients are told to come again later
}

// Message is one captured message.
type Message struct {
	From       string   // reverse-path, "" for the null one
	Recipients []string // forward-paths, in order
	Data       []byte   // exactly as transferred, dots unstuffed; do not change
	Login      string
	Received   time.Time
	TLS        tls.ConnectionState
}

// Server is a running capture upstream.
type Server struct {
	opts     Options
	listener net.Listener
	smtp     *smtp.Server
	served   chan struct{} // closed when Serve has returned
	stop     func() bool   // detaches from the context of Start

	mu       sync.Mutex
	messages []Message     // that WaitMessage has not returned, oldest first
	octets   int           // of messages
	changed  chan struct{} // closed and replaced when a message arrives
	greyed   int           // recipients that were told to come again
	closed   bool
}

// Start listens on loopback and serves until ctx is done or Close is called.
func Start(ctx context.Context, o Options) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("capture upstream: %w", err)
	}
	s := &Server{opts: o, listener: l, served: make(chan struct{}), changed: make(chan struct{})}
	s.smtp = smtp.NewServer(smtp.BackendFunc(s.newSession))
	s.smtp.Domain, s.smtp.TLSConfig = "capture.localhost", o.TLS
	s.smtp.MaxMessageBytes, s.smtp.MaxLineLength = maxSize, maxLine
	s.smtp.ReadTimeout, s.smtp.WriteTimeout = 2*time.Minute, 30*time.Second
	s.smtp.EnableSMTPUTF8, s.smtp.EnableDSN = true, true
	s.smtp.ErrorLog = log.New(io.Discard, "", 0)
	go func() {
		defer close(s.served)
		s.smtp.Serve(l) // its error is always that of the closed listener
	}()
	s.stop = context.AfterFunc(ctx, s.shut)
	return s, nil
}

// Addr is the address clients connect to.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// WaitMessage returns the next message that no earlier call returned, in order of arrival, and waits
// for it.
func (s *Server) WaitMessage(ctx context.Context) (Message, error) {
	for {
		m, changed, err := s.next()
		if err != nil || changed == nil {
			return m, err
		}
		select {
		case <-ctx.Done():
			return Message{}, ctx.Err()
		case <-changed:
		}
	}
}

// next returns the next message, or the channel that tells of a change.
func (s *Server) next() (Message, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.messages) > 0 {
		return s.dropLocked(), nil, nil
	}
	if s.closed {
		return Message{}, nil, ErrClosed
	}
	return Message{}, s.changed, nil
}

func (s *Server) dropLocked() Message {
	m := s.messages[0]
	s.messages[0] = Message{} // so that the array does not hold its octets
	s.messages = s.messages[1:]
	s.octets -= len(m.Data)
	return m
}

func (s *Server) keep(m Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, m)
	s.octets += len(m.Data)
	for len(s.messages) > maxMessages || s.octets > maxTotal && len(s.messages) > 1 {
		s.dropLocked()
	}
	s.tellLocked()
}

// Greylisted is what recipients are told that are to come again.
var Greylisted = &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1},
	Message: "Greylisted, come again later"}

func (s *Server) greylists() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.greyed >= s.opts.Greylist {
		return false
	}
	s.greyed++
	return true
}

func (s *Server) tellLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Close closes all connections; go-smtp tells nobody when the last has been left.
func (s *Server) Close() {
	s.stop()
	s.shut()
	<-s.served
}

func (s *Server) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.tellLocked()
		s.listener.Close() // go-smtp closes it only once it serves it
		s.smtp.Close()
	}
}

func (s *Server) newSession(c *smtp.Conn) (smtp.Session, error) {
	return &session{server: s, conn: c}, nil
}

// session is one go-smtp session.
type session struct {
	server *Server
	conn   *smtp.Conn

	mu sync.Mutex // with BDAT go-smtp runs Data in a goroutine of its own
	m  Message    // the transaction, and who is logged in
}

// AuthMechanisms implements smtp.AuthSession.
func (s *session) AuthMechanisms() []string { return []string{sasl.Plain} }

// Auth implements smtp.AuthSession.
func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, login, password string) error {
		if o := s.server.opts; login != o.Username || password != o.Password {
			return smtp.ErrAuthFailed
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.m.Login = login
		return nil
	}), nil
}

// Mail implements smtp.Session.
func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m.Login == "" {
		return &smtp.SMTPError{Code: 530, EnhancedCode: smtp.EnhancedCode{5, 7, 0}, Message: "Authentication required"}
	}
	s.m.From, s.m.Recipients = from, nil
	return nil
}

// Rcpt implements smtp.Session.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if s.server.greylists() {
		return Greylisted
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m.Recipients = append(s.m.Recipients, to)
	return nil
}

// Data implements smtp.Session.
func (s *session) Data(r io.Reader) error {
	s.mu.Lock()
	m := s.m
	s.mu.Unlock()
	var err error
	if m.Data, err = io.ReadAll(r); err != nil {
		return err
	}
	m.Received = time.Now()
	m.TLS, _ = s.conn.TLSConnectionState()
	s.server.keep(m)
	return nil
}

// Reset implements smtp.Session. Mail begins anew.
func (s *session) Reset() {}

// Logout implements smtp.Session.
func (s *session) Logout() error { return nil }
