package capture

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

const (
	plainLine     = 1024 // octets of a command line before TLS
	plainCommands = 20   // before TLS
	plainTime     = 30 * time.Second
)

// gateListener wraps what it accepts in gates and knows those that are open.
type gateListener struct {
	net.Listener
	opts Options

	mu     sync.Mutex
	open   map[*gate]struct{}
	closed bool
}

func newGateListener(l net.Listener, o Options) *gateListener {
	return &gateListener{Listener: l, opts: o, open: make(map[*gate]struct{})}
}

// Accept implements net.Listener. Connections over the bound are closed unanswered.
func (l *gateListener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		g := &gate{Conn: raw, raw: raw, opts: l.opts, forget: l.forget}
		if l.admit(g) {
			return g, nil
		}
		raw.Close()
	}
}

func (l *gateListener) admit(g *gate) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.open) >= maxConnections {
		return false
	}
	l.open[g] = struct{}{}
	return true
}

func (l *gateListener) forget(g *gate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, g)
}

func (l *gateListener) closeConnections() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for g := range l.open {
		g.raw.Close()
	}
}

// gate is the connection that go-smtp gets. Its first Write is go-smtp's greeting; the gate sends it in
// clear, holds the dialogue up to STARTTLS itself, does the handshake, and from then on carries octets
// through TLS. It remembers the first read error for good: after a time-out nothing of the rest of a
// transfer can be taken for commands, and ended tells that a transfer was cut.
type gate struct {
	net.Conn // raw until STARTTLS is done, then TLS
	raw      net.Conn
	opts     Options
	forget   func(*gate)
	started  bool // the plaintext phase is over; connection's goroutine only

	mu      sync.Mutex
	readErr error
}

// Write implements net.Conn.
func (g *gate) Write(p []byte) (int, error) {
	if g.started {
		return g.Conn.Write(p)
	}
	g.started = true
	if err := g.plaintext(p); err != nil {
		g.fail(err)
		g.raw.Close()
		return 0, err
	}
	return len(p), nil
}

// Read implements net.Conn.
func (g *gate) Read(p []byte) (int, error) {
	if err := g.ended(); err != nil {
		return 0, err
	}
	n, err := g.Conn.Read(p)
	if err != nil {
		g.fail(err)
	}
	return n, err
}

// Close implements net.Conn.
func (g *gate) Close() error {
	g.forget(g)
	g.fail(net.ErrClosed)
	return g.Conn.Close()
}

func (g *gate) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.readErr == nil {
		g.readErr = err
	}
}

// ended returns the error that ended reading, nil while the connection lives.
func (g *gate) ended() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.readErr
}

func (g *gate) tlsState() tls.ConnectionState {
	if c, ok := g.Conn.(*tls.Conn); ok {
		return c.ConnectionState()
	}
	return tls.ConnectionState{}
}

// plaintext speaks the phase before TLS: greeting, EHLO, STARTTLS. Everything else is 530 5.7.0.
func (g *gate) plaintext(greeting []byte) error {
	g.raw.SetDeadline(time.Now().Add(plainTime))
	defer g.raw.SetDeadline(time.Time{})
	if _, err := g.raw.Write(greeting); err != nil {
		return err
	}
	r := bufio.NewReaderSize(g.raw, plainLine)
	for range plainCommands {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		verb, _, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), " ")
		verb = strings.ToUpper(verb)
		if verb == "STARTTLS" {
			return g.startTLS(r)
		}
		if _, err := io.WriteString(g.raw, g.plainReply(verb)); err != nil {
			return err
		}
		if verb == "QUIT" {
			return io.EOF
		}
	}
	io.WriteString(g.raw, "421 4.7.0 Too many commands before STARTTLS\r\n")
	return errors.New("too many commands before STARTTLS")
}

func (g *gate) plainReply(verb string) string {
	switch verb {
	case "EHLO":
		return fmt.Sprintf("250-%s\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250 STARTTLS\r\n", g.opts.Hostname)
	case "HELO":
		return fmt.Sprintf("250 %s\r\n", g.opts.Hostname)
	case "NOOP", "RSET":
		return "250 2.0.0 Ok\r\n"
	case "QUIT":
		return "221 2.0.0 Bye\r\n"
	}
	return "530 5.7.0 Must issue a STARTTLS command first\r\n"
}

// startTLS answers 220 and does the handshake. Octets that were sent behind STARTTLS in clear would
// become commands inside TLS: such a client is cut off (RFC 3207 §4.2; CVE-2011-0411).
func (g *gate) startTLS(r *bufio.Reader) error {
	if r.Buffered() > 0 {
		io.WriteString(g.raw, "503 5.5.1 Nothing may be pipelined behind STARTTLS\r\n")
		return errors.New("octets in clear behind STARTTLS")
	}
	if _, err := io.WriteString(g.raw, "220 2.0.0 Ready to start TLS\r\n"); err != nil {
		return err
	}
	c := tls.Server(g.raw, g.opts.TLS)
	ctx, cancel := context.WithTimeout(context.Background(), plainTime)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		return err
	}
	g.Conn = c
	return nil
}
