// Package capture is the upstream of `postern demo`: a real SMTP server on loopback that asks for
// STARTTLS and AUTH and keeps what it takes in memory, so that a message can be fetched back and looked
// at. It stands on emersion/go-smtp's Server, not on our own listener code, so that the two check each
// other.
//
// Failure semantics: a message is kept only when its whole transfer arrived and 250 was answered, or
// was about to be. A transfer that is cut (connection closed, timed out, RSET, over the size) leaves no
// trace. go-smtp alone cannot promise that: it takes the end of the connection inside the last BDAT
// chunk for the end of the message, and runs the rest of a DATA that timed out as commands. The gate
// (gate.go) therefore owns the connection underneath it. Memory is bounded by a number of messages and
// of octets: the oldest go first.
package capture

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// Bounds that hold unless Options say otherwise.
const (
	defaultMessages = 100
	defaultSize     = 35 << 20
	maxTotal        = 64 << 20 // octets kept; the newest message stays even if it is larger
	maxRecipients   = 1000
	maxConnections  = 64
	// readTimeout bounds one command line, and with go-smtp also one whole DATA.
	readTimeout  = 2 * time.Minute
	writeTimeout = 30 * time.Second
	// maxLine bounds a command line. It is far above RFC 5321's because go-smtp applies it also to a
	// BDAT chunk that came in the same read as its command.
	maxLine = 64 << 10
)

// ErrClosed is what WaitMessage returns once the server is closed.
var ErrClosed = errors.New("capture upstream is closed")

// Options say what Start serves.
type Options struct {
	TLS                *tls.Config // required: certificate for STARTTLS
	Username, Password string      // the one login
	Addr               string      // "" is 127.0.0.1:0
	Hostname           string      // "" is capture.localhost
	MaxMessages        int         // kept; 0 is 100
	MaxMessageSize     int64       // octets; 0 is 35 MiB
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
	listener *gateListener
	smtp     *smtp.Server
	served   chan struct{} // closed when Serve has returned
	stop     func() bool   // detaches from the context of Start

	mu       sync.Mutex
	messages []Message // oldest first
	first    int       // number of messages[0], counting from 0 since the start
	waited   int       // number of the next message for WaitMessage
	octets   int64
	changed  chan struct{} // closed and replaced when a message arrives
	closed   bool
}

// Start listens and serves until ctx is done or Close is called.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.TLS == nil {
		return nil, errors.New("capture upstream: a TLS configuration is required")
	}
	if o.Username == "" || o.Password == "" {
		return nil, errors.New("capture upstream: a user name and a password are required")
	}
	o = o.withDefaults()
	l, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("capture upstream: %w", err)
	}
	s := &Server{opts: o, listener: newGateListener(l, o), served: make(chan struct{}), changed: make(chan struct{})}
	s.smtp = s.engine()
	go func() {
		defer close(s.served)
		s.smtp.Serve(s.listener) // its error is always that of the closed listener
	}()
	s.stop = context.AfterFunc(ctx, func() { s.shut() })
	return s, nil
}

func (o Options) withDefaults() Options {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.Hostname == "" {
		o.Hostname = "capture.localhost"
	}
	if o.MaxMessages <= 0 {
		o.MaxMessages = defaultMessages
	}
	if o.MaxMessageSize <= 0 {
		o.MaxMessageSize = defaultSize
	}
	return o
}

func (s *Server) engine() *smtp.Server {
	e := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &session{server: s, gate: c.Conn().(*gate)}, nil
	}))
	e.Domain = s.opts.Hostname
	e.MaxRecipients = maxRecipients
	e.MaxMessageBytes = s.opts.MaxMessageSize + 1 // go-smtp refuses exactly SIZE octets
	e.MaxLineLength = maxLine
	e.ReadTimeout, e.WriteTimeout = readTimeout, writeTimeout
	e.EnableSMTPUTF8, e.EnableDSN = true, true
	// The gate has done TLS before go-smtp sees the first octet, so to go-smtp every connection is
	// plain. AUTH before TLS is the gate's to refuse.
	e.AllowInsecureAuth = true
	e.ErrorLog = log.New(io.Discard, "", 0)
	return e
}

// Addr is the address clients connect to.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Messages returns what is kept, oldest first.
func (s *Server) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

// WaitMessage returns the next message that no earlier call returned, in order of arrival, and waits
// for it. Messages that were dropped by the bounds meanwhile are skipped.
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
	s.waited = max(s.waited, s.first)
	if i := s.waited - s.first; i < len(s.messages) {
		s.waited++
		return s.messages[i], nil, nil
	}
	if s.closed {
		return Message{}, nil, ErrClosed
	}
	return Message{}, s.changed, nil
}

func (s *Server) keep(m Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.messages = append(s.messages, m)
	s.octets += int64(len(m.Data))
	for len(s.messages) > s.opts.MaxMessages || s.octets > maxTotal && len(s.messages) > 1 {
		s.octets -= int64(len(s.messages[0].Data))
		s.messages[0] = Message{} // so that the array does not hold its octets
		s.messages = s.messages[1:]
		s.first++
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// Close ends all connections and returns when none is served any more. What was captured stays readable.
func (s *Server) Close() error {
	s.stop()
	s.shut()
	<-s.served
	s.listener.closeConnections() // also those accepted while we were closing
	s.smtp.Shutdown(context.Background())
	return nil
}

func (s *Server) shut() {
	s.listener.Close()
	s.listener.closeConnections()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.changed)
		s.changed = make(chan struct{})
	}
}
