// Package fakesmtp is an SMTP server for tests, demonstrations and measurements. It behaves like a good one until a
// hook says otherwise: it can answer anything at any stage, fall silent, drop the connection or speak out of turn. It
// counts what its clients do.
//
// Failure semantics: a message is taken once all of it has arrived (CRLF.CRLF, or the last octet of the last chunk) and
// before its reply leaves. A cut transfer is only counted.
package fakesmtp

import (
	"cmp"
	"context"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The verbs that are no commands. A hook sees them beside EHLO, MAIL and so on.
const (
	Connect = "CONNECT" // before the greeting
	Content = "CONTENT" // the final dot has been read; line is empty
	Chunk   = "CHUNK"   // a chunk has been read; line is its BDAT command
)

// Config says what the server is like.
type Config struct {
	Hostname   string      // "": fake.example.com
	TLS        *tls.Config // nil: no STARTTLS
	Implicit   bool        // TLS from the first octet
	Require    bool        // no MAIL without TLS, where there is TLS, and a login, where there are Users or a Login
	Extensions []string    // besides STARTTLS and AUTH
	Mechanisms []string    // offered once TLS is on, or at once without TLS
	AuthEquals bool        // says AUTH=… as servers of old did
	NoInitial  bool        // asks for the initial response that came with AUTH
	NoBDAT     bool        // takes a chunk for commands
	Users      map[string]string
	// Login decides instead of Users, though not about CRAM-MD5 and SCRAM. The secret is a password or an access
	// token. It returns the refusal, "" to let the user in.
	Login func(s *Session, mechanism, user, secret string) string

	Size          int64         // of the largest message in octets; 0: any. To be announced in Extensions
	MaxRecipients int           // of a message; 0: any
	Idle          time.Duration // of silence, after which a connection is closed; 0: never
	// Delay says how long a flight of replies is held back, as if it came from far away. nil: not at all.
	Delay func() time.Duration
	// Gather holds replies back while a message is read, which saves writes but tells of a refusal late.
	Gather bool

	// Hook is asked before each command takes effect. The zero Action lets it.
	Hook Hook
	// Take is given each message and answers it; the zero Action is 250. With it the server keeps neither messages
	// nor a log.
	Take func(s *Session, m Message) Action
	// Body says where the octets of a message go; its error closes the connection. nil: into Message.Data.
	Body func(s *Session) io.Writer
	// Closed is told of a connection that has ended.
	Closed func(s *Session)
}

// Hook is asked before a command takes effect.
type Hook = func(s *Session, verb, line string) Action

// Action replaces what the server would do. Reply, if any, is sent first, with "\n" for line ends; after 421 the
// connection is closed.
type Action struct {
	Reply string
	Also  bool // do the usual thing too, behind Reply
	Flush bool // send what is waiting now
	Drop  bool // close the connection
	Reset bool // drop it with a RST
	Stall bool // answer no more, whatever the client sends, until it goes
	// Deaf reads no more and answers no more until it is closed, and then drops the connection.
	Deaf <-chan struct{}
}

func (a *Action) closes() bool { return a.Drop || a.Reset || strings.HasPrefix(a.Reply, "421") }

// Full is what a modern provider offers.
var Full = []string{"PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE 50000000", "ENHANCEDSTATUSCODES"}

// Without returns Full without the named extensions.
func Without(names ...string) []string {
	return slices.DeleteFunc(slices.Clone(Full), func(e string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(e, n) })
	})
}

// Message is one that was taken. From and To are what stood behind MAIL and RCPT; Path takes them apart.
type Message struct {
	Conn    int // number of the connection, from 1
	From    string
	To      []string
	Data    []byte // as it came, dots unstuffed
	Chunked bool   // came by BDAT
}

// Path cuts "FROM:<a@example.com> SIZE=1" into the address and its parameters.
func Path(argument string) (address, parameters string, ok bool) {
	_, path, _ := strings.Cut(argument, ":")
	path = strings.TrimLeft(path, " ")
	quoted := false
	for i := 0; i < len(path); i++ {
		switch {
		case i == 0 && path[0] != '<':
			return "", "", false
		case quoted && path[i] == '\\':
			i++
		case path[i] == '"':
			quoted = !quoted
		case path[i] == '>' && !quoted:
			return path[1:i], strings.TrimSpace(path[i+1:]), true
		}
	}
	return "", "", false
}

// Counts is what clients did. Flights counts how often a client began to send after it had been answered.
type Counts struct {
	Connections, Open, MostOpen int
	Handshakes, Resumed         int
	Logins, Refused             int
	Flights, Quits, Resets      int
	Cut                         int // transfers that ended early
}

// Server is a fake upstream.
type Server struct {
	cfg  Config
	hook atomic.Pointer[Hook]
	done chan struct{} // closed by Close

	mu       sync.Mutex // guards what follows
	counts   Counts
	messages []Message
	log      []string
	conns    map[net.Conn]struct{}
	closed   bool
	listener net.Listener
	wg       sync.WaitGroup
}

// New makes a server that is served connections by Serve, Listen or Dial.
func New(cfg Config) *Server {
	cfg.Hostname = cmp.Or(cfg.Hostname, "fake.example.com")
	s := &Server{cfg: cfg, conns: make(map[net.Conn]struct{}), done: make(chan struct{})}
	s.SetHook(cfg.Hook)
	return s
}

// SetHook changes Config.Hook.
func (s *Server) SetHook(h Hook) {
	if h == nil {
		s.hook.Store(nil)
		return
	}
	s.hook.Store(&h)
}

// Listen serves on a free port of 127.0.0.1 and returns it.
func (s *Server) Listen() (port int, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	s.ServeListener(l)
	return l.Addr().(*net.TCPAddr).Port, nil
}

// ServeListener serves a listener, which is the server's from now on.
func (s *Server) ServeListener(l net.Listener) {
	s.listener = l
	s.wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { s.Serve(nc) })
		}
	})
}

// Dial makes a connection without a socket, also inside a testing/synctest bubble. Its arguments do not matter.
func (s *Server) Dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	s.wg.Go(func() { s.Serve(server) })
	return client, nil
}

// Addr is the address that is listened at.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close cuts everything off and waits.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	if s.listener != nil {
		s.listener.Close()
	}
	s.mu.Unlock()
	s.DropAll()
	s.wg.Wait()
}

// Done is closed when Close begins.
func (s *Server) Done() <-chan struct{} { return s.done }

// DropAll closes all connections, as a server does that restarts.
func (s *Server) DropAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for nc := range s.conns {
		nc.Close()
	}
}

// Messages returns what was taken so far.
func (s *Server) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

// Counts returns what was counted so far.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

// Log returns the commands of all connections in order of arrival, AUTH without its secrets.
func (s *Server) Log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

func (s *Server) count(f func(*Counts)) {
	s.mu.Lock()
	f(&s.counts)
	s.mu.Unlock()
}

func (s *Server) note(line string) {
	if s.cfg.Take != nil {
		return
	}
	if verb, args, _ := strings.Cut(line, " "); strings.EqualFold(verb, "AUTH") {
		line = "AUTH " + strings.Fields(args + " ?")[0]
	}
	s.mu.Lock()
	s.log = append(s.log, line)
	s.mu.Unlock()
}

// enter notes a connection; nil: the server is closed.
func (s *Server) enter(nc net.Conn) *Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.conns[nc] = struct{}{}
	s.counts.Connections++
	s.counts.Open++
	s.counts.MostOpen = max(s.counts.MostOpen, s.counts.Open)
	return &Session{Number: s.counts.Connections, Client: nc.RemoteAddr(), srv: s, link: link{srv: s, nc: nc}}
}

// leave is before the client can know.
func (s *Server) leave(c *Session) {
	if s.cfg.Closed != nil {
		s.cfg.Closed(c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c.link.nc)
	s.counts.Open--
}
