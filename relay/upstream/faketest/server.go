// Package faketest is an SMTP upstream for tests. It behaves like a good one until a hook says otherwise: it can answer
// anything at any stage, fall silent, drop the connection, speak out of turn, and it counts what a client did to it.
package faketest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// The verbs that are no commands. A hook sees them beside EHLO, MAIL and so on.
const (
	Connect = "CONNECT" // before the greeting
	Content = "CONTENT" // the final dot has been read; line is empty
	Chunk   = "CHUNK"   // a chunk has been read; line is its BDAT command
)

// Config says what the upstream is like.
type Config struct {
	TLS        *tls.Config // nil: no STARTTLS
	Implicit   bool        // TLS from the first octet
	Extensions []string    // besides STARTTLS and AUTH
	Mechanisms []string    // offered once TLS is on, or at once without TLS
	AuthEquals bool        // says AUTH=… as servers of old did
	NoInitial  bool        // asks for the initial response that came with AUTH
	Users      map[string]string
	NoBDAT     bool // takes a chunk for commands
	// Hook is asked before each command takes effect. The zero Action lets it.
	Hook func(s *Session, verb, line string) Action
}

// Action replaces what the upstream would do. Reply, if any, is sent first, with "\n" for line ends; after 421 the connection
// is closed.
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

// Full is what a modern provider offers.
var Full = []string{"PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE 50000000", "ENHANCEDSTATUSCODES"}

// Without returns Full without the named extensions.
func Without(names ...string) []string {
	var left []string
	for _, e := range Full {
		keep := true
		for _, n := range names {
			keep = keep && !strings.HasPrefix(e, n)
		}
		if keep {
			left = append(left, e)
		}
	}
	return left
}

// Message is one that was taken.
type Message struct {
	Conn int // number of the connection, from 1
	From string
	To   []string
	Data []byte
}

// Counts is what clients did. Flights counts how often a client began to send after it had been answered.
type Counts struct {
	Connections, Open, MostOpen int
	Flights, Quits, Resets      int
	Logins, Refused             int
	Resumed                     int
}

// Server is a fake upstream.
type Server struct {
	cfg Config

	mu       sync.Mutex
	counts   Counts
	messages []Message
	log      []string
	conns    map[net.Conn]struct{}
	listener net.Listener
	closed   bool
	wg       sync.WaitGroup
}

// New makes a server that is served connections by Serve or Listen.
func New(cfg Config) *Server {
	return &Server{cfg: cfg, conns: make(map[net.Conn]struct{})}
}

// Listen serves on a free port of 127.0.0.1 and returns it.
func (s *Server) Listen() (port int, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
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
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Addr is the address that Listen serves.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close cuts everything off and waits.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	if s.listener != nil {
		s.listener.Close()
	}
	s.mu.Unlock()
	s.DropAll()
	s.wg.Wait()
}

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
	return append([]Message(nil), s.messages...)
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
	return append([]string(nil), s.log...)
}

// Session is one connection.
type Session struct {
	Number int // of the connection, from 1
	Taken  int // messages taken on it
	TLS    bool
	User   string

	srv *Server
	nc  net.Conn // the socket
	rw  net.Conn
	br  *bufio.Reader
	bw  *bufio.Writer

	answered bool // since the client last sent
	mail     bool // a transaction is open
	from     string
	to       []string
	data     bytes.Buffer
}

var errEnd = errors.New("end of session")

// Serve serves one connection to its end.
func (s *Server) Serve(nc net.Conn) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		nc.Close()
		return
	}
	s.conns[nc] = struct{}{}
	s.counts.Connections++
	s.counts.Open++
	s.counts.MostOpen = max(s.counts.MostOpen, s.counts.Open)
	c := &Session{Number: s.counts.Connections, srv: s, nc: nc}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.conns, nc)
		s.counts.Open-- // before the client can know
		s.mu.Unlock()
		nc.Close()
	}()
	c.use(nc)
	if s.cfg.Implicit && c.startTLS() != nil {
		return
	}
	if c.act(Connect, "", "220 fake.example.com ESMTP", nil) != nil {
		return
	}
	for c.command() == nil {
	}
	c.bw.Flush()
}

func (c *Session) use(rw net.Conn) {
	c.rw = rw
	c.br = bufio.NewReaderSize(&turns{c}, 64<<10)
	c.bw = bufio.NewWriter(rw)
}

// turns flushes the replies before it waits for the client, and counts the client's flights.
type turns struct{ c *Session }

func (t *turns) Read(b []byte) (int, error) {
	c := t.c
	if c.bw.Buffered() > 0 {
		c.answered = true
		if err := c.bw.Flush(); err != nil {
			return 0, err
		}
	}
	n, err := c.rw.Read(b)
	if n > 0 && c.answered {
		c.answered = false
		c.count(func(n *Counts) { n.Flights++ })
	}
	return n, err
}

func (c *Session) count(f func(*Counts)) {
	c.srv.mu.Lock()
	f(&c.srv.counts)
	c.srv.mu.Unlock()
}

func (c *Session) note(line string) {
	c.srv.mu.Lock()
	c.srv.log = append(c.srv.log, line)
	c.srv.mu.Unlock()
}

func (c *Session) startTLS() error {
	t := tls.Server(c.nc, c.srv.cfg.TLS)
	if err := t.Handshake(); err != nil {
		return err
	}
	if t.ConnectionState().DidResume {
		c.count(func(n *Counts) { n.Resumed++ })
	}
	c.TLS = true
	c.use(t)
	return nil
}

// Take takes the message that was read, for a hook that answers its end itself.
func (c *Session) Take() { c.take() }

// Reply sends lines; "\n" becomes CRLF.
func (c *Session) Reply(text string) {
	c.bw.WriteString(strings.ReplaceAll(text, "\n", "\r\n"))
	c.bw.WriteString("\r\n")
}

// act asks the hook, then does the usual thing: usual and its reply.
func (c *Session) act(verb, line, reply string, usual func() error) error {
	var a Action
	if c.srv.cfg.Hook != nil {
		a = c.srv.cfg.Hook(c, verb, line)
	}
	if a.Reply != "" {
		c.Reply(a.Reply)
	}
	if a.Flush || a.Drop || a.Stall || a.Reset || a.Deaf != nil || strings.HasPrefix(a.Reply, "421") {
		c.bw.Flush()
		c.answered = true
	}
	switch {
	case a.Stall:
		io.Copy(io.Discard, c.nc)
		return errEnd
	case a.Deaf != nil:
		<-a.Deaf
		return errEnd
	case a.Reset:
		if t, ok := c.nc.(interface{ SetLinger(int) error }); ok {
			t.SetLinger(0)
		}
		return errEnd
	case a.Drop, strings.HasPrefix(a.Reply, "421"):
		return errEnd
	case a.Reply != "" && !a.Also:
		return nil
	}
	if usual != nil {
		if err := usual(); err != nil {
			return err
		}
	}
	if reply != "" {
		c.Reply(reply)
	}
	return nil
}

func (c *Session) command() error {
	line, err := c.br.ReadString('\n')
	if err != nil {
		return err
	}
	if len(line) > 512 { // RFC 5321 §4.5.3.1.4, as strict as it may be
		return c.act("", line, "500 5.5.6 line too long", nil)
	}
	line = strings.TrimRight(line, "\r\n")
	verb, args, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	if verb == "AUTH" {
		c.note("AUTH " + strings.Fields(args + " ?")[0])
	} else {
		c.note(line)
	}
	switch verb {
	case "EHLO":
		return c.act(verb, line, c.ehlo(), nil)
	case "HELO":
		return c.act(verb, line, "250 fake.example.com", nil)
	case "STARTTLS":
		return c.startTLSCommand(line)
	case "AUTH":
		return c.act(verb, line, "", func() error { return c.auth(args) })
	case "MAIL":
		return c.act(verb, line, "250 2.1.0 sender ok", func() error { c.begin(args); return nil })
	case "RCPT":
		if !c.mail {
			return c.act(verb, line, "503 5.5.1 MAIL first", nil)
		}
		return c.act(verb, line, "250 2.1.5 recipient ok", func() error { c.to = append(c.to, args); return nil })
	case "DATA":
		return c.dataCommand(line)
	case "BDAT":
		if c.srv.cfg.NoBDAT {
			return c.act(verb, line, "500 5.5.1 unknown command", nil)
		}
		return c.bdat(line, args)
	case "RSET":
		c.count(func(n *Counts) { n.Resets++ })
		return c.act(verb, line, "250 2.0.0 flushed", func() error { c.reset(); return nil })
	case "NOOP":
		return c.act(verb, line, "250 2.0.0 ok", nil)
	case "QUIT":
		c.count(func(n *Counts) { n.Quits++ })
		c.act(verb, line, "221 2.0.0 bye", nil)
		return errEnd
	}
	return c.act(verb, line, "500 5.5.1 unknown command", nil)
}

func (c *Session) begin(from string) {
	c.reset()
	c.mail, c.from = true, from
}

func (c *Session) reset() {
	c.mail, c.from, c.to = false, "", nil
	c.data.Reset()
}

func (c *Session) ehlo() string {
	lines := []string{"fake.example.com"}
	lines = append(lines, c.srv.cfg.Extensions...)
	if c.srv.cfg.TLS != nil && !c.TLS {
		lines = append(lines, "STARTTLS")
	}
	if m := c.srv.cfg.Mechanisms; len(m) > 0 && (c.TLS || c.srv.cfg.TLS == nil) {
		sep := " "
		if c.srv.cfg.AuthEquals {
			sep = "="
		}
		lines = append(lines, "AUTH"+sep+strings.Join(m, " "))
	}
	return Multi(250, lines...)
}

// Multi makes a reply of many lines.
func Multi(code int, lines ...string) string {
	var b strings.Builder
	for i, l := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		fmt.Fprintf(&b, "%d%s%s", code, sep, l)
		if i < len(lines)-1 {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func (c *Session) startTLSCommand(line string) error {
	if c.srv.cfg.TLS == nil || c.TLS {
		return c.act("STARTTLS", line, "502 5.5.1 not offered", nil)
	}
	return c.act("STARTTLS", line, "", func() error {
		c.Reply("220 2.0.0 go ahead")
		c.bw.Flush()
		return c.startTLS()
	})
}

func (c *Session) dataCommand(line string) error {
	if len(c.to) == 0 {
		return c.act("DATA", line, "554 5.5.1 no valid recipients", nil)
	}
	started := false
	err := c.act("DATA", line, "354 go ahead", func() error { started = true; return nil })
	if err != nil || !started {
		return err
	}
	for {
		l, err := c.br.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			return err
		}
		if string(l) == ".\r\n" {
			break
		}
		c.data.Write(bytes.TrimPrefix(l, []byte(".")))
	}
	return c.act(Content, "", "250 2.0.0 taken", c.take)
}

func (c *Session) bdat(line, args string) error {
	f := strings.Fields(args)
	if len(f) == 0 {
		return c.act("BDAT", line, "501 5.5.4 how many?", nil)
	}
	n, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		return c.act("BDAT", line, "501 5.5.4 how many?", nil)
	}
	refused := true
	if err := c.act("BDAT", line, "", func() error { refused = false; return nil }); err != nil {
		return err
	}
	if refused { // RFC 3030 §2: the octets come all the same
		_, err := io.CopyN(io.Discard, c.br, n)
		c.to = nil
		return err
	}
	if _, err := io.CopyN(&c.data, c.br, n); err != nil {
		return err
	}
	if len(c.to) == 0 {
		return c.act(Chunk, line, "503 5.5.1 no valid recipients", nil)
	}
	if len(f) == 1 {
		return c.act(Chunk, line, "250 2.0.0 "+f[0]+" octets", nil)
	}
	return c.act(Chunk, line, "250 2.0.0 taken", c.take)
}

func (c *Session) take() error {
	m := Message{Conn: c.Number, From: c.from, To: c.to, Data: bytes.Clone(c.data.Bytes())}
	c.reset()
	c.Taken++
	c.srv.mu.Lock()
	c.srv.messages = append(c.srv.messages, m)
	c.srv.mu.Unlock()
	return nil
}

// Say sends a reply that nobody asked for, at once. The session must be waiting for the client.
func (c *Session) Say(text string) {
	io.WriteString(c.rw, strings.ReplaceAll(text, "\n", "\r\n")+"\r\n")
}
