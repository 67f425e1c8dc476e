package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/testkit/pki"
	"postern/mail"
)

var (
	testCA = sync.OnceValue(func() *pki.CA {
		ca, err := pki.NewCA()
		if err != nil {
			panic(err)
		}
		return ca
	})
	testCertificate = sync.OnceValue(func() tls.Certificate {
		ca := testCA().Cert // good today and in a bubble, whose time begins with the year 2000
		made, err := testCA().Leaf(pki.Options{Names: []string{"relay.example.com"}, NotBefore: ca.NotBefore,
			NotAfter: ca.NotAfter})
		if err != nil {
			panic(err)
		}
		return made.TLS
	})
	testServerTLS = sync.OnceValue(func() *tls.Config {
		return ServerTLS(func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			c := testCertificate()
			return &c,
				nil
		}, tls.VersionTLS12)
	})
)

func clientTLS() *tls.Config {
	return &tls.Config{RootCAs: testCA().Pool, ServerName: "relay.example.com", DynamicRecordSizingDisabled: true}
}

// message is what a fakeSession took.
type message struct {
	env      mail.Envelope
	content  string
	protocol string
	eightBit bool
	chunked  bool
	err      error // how the transfer ended, nil for a clean end
}

// backend is what the fake sessions of one test share.
type backend struct {
	mu       sync.Mutex
	messages []message
	refusals []Refusal
	resets   int
	closes   int
	conns    []*Conn

	greet  mail.Reply                                         // of NewSession
	open   bool                                               // sessions need no login
	onMail func(mail.Envelope) mail.Reply                     // nil: accepts
	onRcpt func(mail.Recipient) mail.Reply                    // nil: accepts
	onData func(context.Context, *Transfer, *mail.Reply) bool // true: it did it all
}

func (b *backend) newSession(c *Conn) (Session, mail.Reply) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conns = append(b.conns, c)
	return &fakeSession{b: b, c: c, authed: b.open}, b.greet
}

func (b *backend) refused(r Refusal) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refusals = append(b.refusals, r)
}

func (b *backend) lastRefusal() Refusal {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.refusals) == 0 {
		return Refusal{}
	}
	return b.refusals[len(b.refusals)-1]
}

func (b *backend) taken() []message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]message(nil), b.messages...)
}

// fakeSession takes user "ann" with password "pw" and keeps messages.
type fakeSession struct {
	b      *backend
	c      *Conn
	authed bool
	open   bool
	env    mail.Envelope
}

func (s *fakeSession) Authenticated() bool { return s.authed }

func (s *fakeSession) Auth(_ context.Context, mechanism string) (Exchange, mail.Reply) {
	return &fakeExchange{s: s, login: mechanism == "LOGIN"}, mail.Reply{}
}

type fakeExchange struct {
	s     *fakeSession
	login bool
	user  string
	step  int
}

func (x *fakeExchange) Next(_ context.Context, response []byte) ([]byte, mail.Reply) {
	if !x.login {
		if response == nil {
			return []byte{}, mail.Reply{}
		}
		return nil, x.verdict(string(response) == "\x00ann\x00pw")
	}
	switch x.step++; {
	case x.step == 1 && response == nil:
		x.step = 0
		return []byte("Username:"), mail.Reply{}
	case x.step == 1:
		x.user = string(response)
		return []byte("Password:"), mail.Reply{}
	}
	return nil, x.verdict(x.user == "ann" && string(response) == "pw")
}

func (x *fakeExchange) verdict(ok bool) mail.Reply {
	if !ok {
		return mail.R(535, "5.7.8", "wrong login or password")
	}
	x.s.authed = true
	return mail.R(235, "2.7.0", "welcome")
}

func (s *fakeSession) Mail(_ context.Context, env mail.Envelope) mail.Reply {
	if s.open {
		panic("Mail inside a transaction")
	}
	if s.b.onMail != nil {
		if r := s.b.onMail(env); !r.OK() {
			return r
		}
	}
	s.open, s.env = true, env
	return mail.R(250, "2.1.0", "OK")
}

func (s *fakeSession) Rcpt(_ context.Context, r mail.Recipient) mail.Reply {
	if s.b.onRcpt != nil {
		if r := s.b.onRcpt(r); !r.OK() {
			return r
		}
	}
	s.env.Recipients = append(s.env.Recipients, r)
	return mail.R(250, "2.1.5", "OK")
}

func (s *fakeSession) Data(ctx context.Context, t *Transfer) mail.Reply {
	if s.b.onData != nil {
		var reply mail.Reply
		if s.b.onData(ctx, t, &reply) {
			return reply
		}
	}
	var content strings.Builder
	_, err := io.Copy(&content, t)
	s.b.mu.Lock()
	s.b.messages = append(s.b.messages,
		message{s.env, content.String(), s.c.Protocol(), t.EightBit(), t.Chunked(), err})
	s.b.mu.Unlock()
	if reply, ok := mail.ReplyFor(err); ok {
		return reply
	}
	if err != nil {
		return mail.R(451, "4.3.0", "cut")
	}
	return mail.R(250, "2.0.0", "taken, %d octets", t.Size())
}

func (s *fakeSession) Reset() {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.resets++
	s.open, s.env = false, mail.Envelope{}
}

func (s *fakeSession) Close() {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.closes++
}

// testServer is a server on loopback.
type testServer struct {
	*Server
	*backend
	addr string
	done chan error
}

func testOptions(b *backend) *Options {
	return &Options{Name: "test", Hostname: "relay.example.com", TLSMode: STARTTLS, TLS: testServerTLS(),
		Mechanisms: []string{"PLAIN", "LOGIN"}, MaxMessageSize: 100_000, MaxRecipients: 5, MaxConnections: 2000,
		MaxUnauthenticated: 1000, MaxConnectionsPerIP: 50, IdleTimeout: 5 * time.Minute, AuthTimeout: 5 * time.Minute,
		DataTimeout: 3 * time.Minute, MaxSession: 24 * time.Hour,
		NewSession: b.newSession, Refused: b.refused, Logger: slog.New(slog.DiscardHandler)}
}

// startServer runs a server until the test ends; change may alter its options and backend.
func startServer(t testing.TB, change func(*Options, *backend)) *testServer {
	t.Helper()
	b := &backend{}
	o := testOptions(b)
	if change != nil {
		change(o, b)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, o, b, ln)
}

func serveOn(t testing.TB, o *Options, b *backend, ln net.Listener) *testServer {
	s := &testServer{Server: NewServer(o), backend: b, addr: ln.Addr().String(), done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { s.done <- s.Serve(ctx, ln); close(s.done) }()
	t.Cleanup(func() {
		cancel()
		for range s.done {
		}
	})
	return s
}

// acceptedConn is a connection that Serve would have accepted.
func acceptedConn(s *Server, nc net.Conn) *Conn {
	c := newConn(s, t0, nil, nc)
	s.half.enter(c, time.Now(), c.opt.MaxUnauthenticated)
	return c
}

// testClient speaks to a server, line by line.
type testClient struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func (s *testServer) dial(t testing.TB) *testClient {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return newClient(t, conn)
}

// patience is how long a test waits for what must come. Nothing waits for its end but what fails.
const patience = time.Minute

func newClient(t testing.TB, conn net.Conn) *testClient {
	conn.SetDeadline(time.Now().Add(patience))
	return &testClient{t, conn, bufio.NewReader(conn)}
}

func (c *testClient) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

func (c *testClient) line() (string, error) {
	s, err := c.r.ReadString('\n')
	return strings.TrimSuffix(s, "\r\n"), err
}

// reply reads one reply, its lines joined by \n.
func (c *testClient) reply() (string, error) {
	var lines []string
	for {
		s, err := c.line()
		if err != nil {
			return strings.Join(append(lines, s), "\n"), err
		}
		lines = append(lines, s)
		if len(s) < 4 || s[3] != '-' {
			return strings.Join(lines, "\n"), nil
		}
	}
}

// expect reads one reply that begins with prefix.
func (c *testClient) expect(prefix string) string {
	c.t.Helper()
	s, err := c.reply()
	if err != nil {
		c.t.Fatalf("want %q, got %q, %v", prefix, s, err)
	}
	if !strings.HasPrefix(s, prefix) {
		c.t.Fatalf("want %q, got %q", prefix, s)
	}
	return s
}

// cmd sends a command and expects a reply.
func (c *testClient) cmd(command, prefix string) string {
	c.t.Helper()
	c.send(command + "\r\n")
	return c.expect(prefix)
}

// expectClosed expects the end of the connection without another octet.
func (c *testClient) expectClosed() {
	c.t.Helper()
	s, err := c.line()
	if err == nil || errors.Is(err, errNothing) || s != "" {
		c.t.Fatalf("want the connection closed, got %q, %v", s, err)
	}
}

func (c *testClient) handshake() {
	c.t.Helper()
	tc := tls.Client(c.conn, clientTLS())
	if err := tc.Handshake(); err != nil {
		c.t.Fatalf("handshake: %v", err)
	}
	c.conn, c.r = tc, bufio.NewReader(tc)
}

// login goes from the greeting to a logged-in session over STARTTLS.
func (c *testClient) login() {
	c.t.Helper()
	c.expect("220 ")
	c.cmd("EHLO client.example.net", "250-")
	c.cmd("STARTTLS", "220 ")
	c.handshake()
	c.cmd("EHLO client.example.net", "250-")
	c.cmd("AUTH PLAIN AGFubgBwdw==", "235 ")
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		runtimeGosched()
	}
}

func (m message) String() string {
	var to []string
	for _, r := range m.env.Recipients {
		to = append(to, r.To.Path())
	}
	s := fmt.Sprintf("from %s to %s with %s %q", m.env.From.Path(), strings.Join(to, ","), m.protocol, m.content)
	if m.err != nil {
		s += " error " + m.err.Error()
	}
	return s
}
