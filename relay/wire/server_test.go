package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"postern/internal/testkit"
	"postern/mail"
)

// dataThat makes a Data of fakeSession that does f and then answers 250.
func dataThat(f func(context.Context, *Transfer)) func(context.Context, *Transfer, *mail.Reply) bool {
	return func(ctx context.Context, t *Transfer, r *mail.Reply) bool {
		f(ctx, t)
		*r = mail.R(250, "2.0.0", "OK")
		return true
	}
}

func (c *testClient) startData() { startData(c) }

// TestPipelinedRepliesLeaveInOneWrite counts the writes of the server.
func TestPipelinedRepliesLeaveInOneWrite(t *testing.T) {
	b := &backend{}
	o := testOptions(b)
	o.TLSMode, b.open, o.MaxRecipients = None, true, 100
	batch := "HELO c\r\nMAIL FROM:<a@example.com>\r\n" + strings.Repeat("RCPT TO:<b@example.net>\r\n", 50) + "DATA\r\n"
	nc := &countingConn{scriptConn: scriptConn{pieces: [][]byte{[]byte(batch), []byte("x\r\n.\r\n")}, quiet: true}}
	acceptedConn(NewServer(o), nc).serve()
	if nc.writes != 3 { // greeting, batch, 250
		t.Errorf("%d writes", nc.writes)
	}
}

type countingConn struct {
	scriptConn
	writes int
}

func (c *countingConn) Write(p []byte) (int, error) { c.writes++; return c.scriptConn.Write(p) }

// TestBatchIsOneTLSRecord: replies of a batch are not cut into small records.
func TestBatchIsOneTLSRecord(t *testing.T) {
	s := startServer(t, func(o *Options, b *backend) { b.open, o.MaxRecipients = true, 400 })
	c := s.dial(t)
	c.expect("220 ")
	c.cmd("EHLO c", "250-")
	c.cmd("STARTTLS", "220 ")
	c.handshake()
	c.cmd("EHLO c", "250-")
	c.send("MAIL FROM:<a@example.com>\r\n" + strings.Repeat("RCPT TO:<b@example.net>\r\n", 399))
	buf := make([]byte, 16384)
	n, err := c.conn.Read(buf) // one Read of a tls.Conn is one record
	if err != nil || bytes.Count(buf[:n], []byte("\r\n")) != 400 {
		t.Errorf("first record has %d octets, %v", n, err)
	}
}

func TestConnectionLimits(t *testing.T) {
	s := startServer(t, func(o *Options, b *backend) { o.MaxConnectionsPerIP = 2 })
	var open []*testClient
	for range 2 {
		c := s.dial(t)
		c.expect("220 ")
		open = append(open, c)
	}
	c := s.dial(t)
	c.expect("421 4.7.0 too many connections from your address")
	c.expectClosed()
	if r := s.lastRefusal(); r.Reason != ReasonLimit || !strings.Contains(r.Detail, "max_connections_per_ip") {
		t.Errorf("refusal %+v", r)
	}
	open[0].cmd("QUIT", "221 ")
	eventually(t, "a place got free", func() bool { return s.Stats().Connections == 1 })
	s.dial(t).expect("220 ")

	s = startServer(t, func(o *Options, b *backend) { o.MaxConnections = 1 })
	waiting := s.dial(t)
	waiting.expect("220 ")
	s.dial(t).login() // who waits takes no place from it
	c = s.dial(t)
	c.expect("421 4.7.0 too many connections")
	c.expectClosed()
	if n := s.Stats(); n.Connections != 2 || n.Accepted != 3 || n.Refused != 1 {
		t.Errorf("stats %+v", n)
	}
	waiting.cmd("EHLO c", "250-")
	waiting.cmd("STARTTLS", "220 ")
	waiting.handshake()
	waiting.cmd("EHLO c", "250-")
	waiting.cmd("AUTH PLAIN AGFubgBwdw==", "421 4.7.0 too many connections")
	waiting.expectClosed()
}

func TestOrigin(t *testing.T) {
	for _, c := range []struct{ a, b string }{
		{"192.0.2.1", "::ffff:192.0.2.1"}, {"2001:db8::1", "2001:db8::ffff:1:2:3"}, {"fe80::1%eth0", "fe80::2%eth1"},
	} {
		if originOf(netip.MustParseAddr(c.a)) != originOf(netip.MustParseAddr(c.b)) {
			t.Errorf("%s and %s count apart", c.a, c.b)
		}
	}
	for _, c := range []struct{ a, b string }{{"192.0.2.1", "192.0.2.2"}, {"2001:db8::1", "2001:db8:0:1::1"}} {
		if originOf(netip.MustParseAddr(c.a)) == originOf(netip.MustParseAddr(c.b)) {
			t.Errorf("%s and %s count as one", c.a, c.b)
		}
	}
}

// TestCountsAreForgotten: the table of addresses does not grow.
func TestCountsAreForgotten(t *testing.T) {
	var c counts
	for i := range 1000 {
		p := originOf(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}))
		if !c.enterFrom(p, 1) || c.enterFrom(p, 1) {
			t.Fatal("limit of one")
		}
		c.leaveFrom(p)
	}
	if len(c.origin) != 0 {
		t.Errorf("%d origins left", len(c.origin))
	}
}

// TestPanicHurtsNobodyElse: 421 for the one, business as usual for the others.
func TestPanicHurtsNobodyElse(t *testing.T) {
	var log testkit.Log
	s := startServer(t, func(o *Options, b *backend) {
		openClear(o, b)
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		b.onMail = func(e mail.Envelope) mail.Reply {
			if e.From.Local == "panic" {
				panic("deliberate")
			}
			return mail.R(250, "2.1.0", "OK")
		}
	})
	other := s.dial(t)
	other.expect("220 ")
	other.cmd("HELO c", "250 ")
	c := s.dial(t)
	c.expect("220 ")
	c.cmd("HELO c", "250 ")
	c.cmd("MAIL FROM:<panic@example.com>", "421 4.3.0 internal error")
	c.expectClosed()
	other.cmd("MAIL FROM:<ann@example.com>", "250 ")
	eventually(t, "the session closed",
		func() bool { s.Server.mu.Lock(); defer s.Server.mu.Unlock(); return len(s.Server.conns) == 1 })
	if !strings.Contains(log.String(), "deliberate") || !strings.Contains(log.String(), "server_test.go") {
		t.Errorf("log %q", log.String())
	}
}

// TestWordOfTheSession: its 2yz counts only for a message that came to its clean end.
func TestWordOfTheSession(t *testing.T) {
	careless := func(o *Options, b *backend) {
		openClear(o, b)
		b.onData = dataThat(func(_ context.Context, tr *Transfer) { tr.Read(make([]byte, 1)) })
	}
	s := startServer(t, careless)
	c := s.dial(t)
	c.startData()
	c.send("unread\r\nrest\r\n.\r\n")
	c.expect("250 2.0.0 OK") // read to its end by the server
	transaction := "MAIL FROM:<ann@example.com>\r\nRCPT TO:<bob@example.net>\r\n"
	c.send(transaction + "DATA\r\n")
	c.expect("250 ")
	c.expect("250 ")
	c.expect("354 ")
	c.send("a\nb\r\n.\r\n")
	c.expect(`550 5.6.0 line 1 ("a") ends with a bare LF`)
	c.send(transaction + "BDAT 4\r\nab\r\nBDAT 4 LAST\r\ncd\r\nNOOP\r\n")
	c.expect("250 ")
	c.expect("250 ")
	c.expect("451 4.3.0 ")
	c.expect("503 5.5.1 ")
	c.expect("250 2.0.0 OK")
}

// TestReply421Closes: a session that says 421 ends the connection (RFC 5321 §3.8).
func TestReply421Closes(t *testing.T) {
	s := startServer(t, func(o *Options, b *backend) {
		openClear(o, b)
		b.onMail = func(mail.Envelope) mail.Reply { return mail.R(421, "4.3.2", "store is going away") }
	})
	c := s.dial(t)
	c.expect("220 ")
	c.cmd("HELO c", "250 ")
	c.cmd("MAIL FROM:<ann@example.com>", "421 4.3.2 store is going away")
	c.expectClosed()
}

// TestManyRecipients: a hundred thousand cost nothing but their replies.
func TestManyRecipients(t *testing.T) {
	s := startServer(t, openClear)
	c := s.dial(t)
	c.expect("220 ")
	c.cmd("HELO c", "250 ")
	c.cmd("MAIL FROM:<ann@example.com>", "250 ")
	const n = 100_000
	go func() {
		for range n / 100 {
			io.WriteString(c.conn, strings.Repeat("RCPT TO:<b@example.net>\r\n", 100))
		}
		io.WriteString(c.conn, "DATA\r\n")
	}()
	accepted := 0
	for range n {
		if s, err := c.reply(); err != nil {
			t.Fatal(err)
		} else if strings.HasPrefix(s, "250 ") {
			accepted++
		} else if !strings.HasPrefix(s, "452 4.5.3 ") {
			t.Fatal(s)
		}
	}
	c.expect("354 ")
	if accepted != 5 {
		t.Errorf("%d accepted", accepted)
	}
}

// TestBigHeader: ten megabytes of header are refused for their size, in bounded memory.
func TestBigHeader(t *testing.T) {
	s := startServer(t, openClear)
	c := s.dial(t)
	c.startData()
	go func() {
		field := "X-Header: " + strings.Repeat("x", 900) + "\r\n"
		for range 10_000_000 / len(field) {
			io.WriteString(c.conn, field)
		}
		io.WriteString(c.conn, "\r\n.\r\n")
	}()
	c.expect("552 5.3.4 ")
	c.cmd("NOOP", "250 ")
	if m := s.taken(); len(m) != 1 || len(m[0].content) > 100_000 {
		t.Error("more than the size was handed on")
	}
}

// TestOptionsAreForNewConnections: a reload changes nothing for those that are open.
func TestOptionsAreForNewConnections(t *testing.T) {
	s := startServer(t, openClear)
	c := s.dial(t)
	c.expect("220 relay.example.com")
	o := testOptions(s.backend)
	o.Hostname, o.TLSMode = "other.example.com", None
	s.SetOptions(o)
	c.cmd("HELO c", "250 relay.example.com")
	s.dial(t).expect("220 other.example.com")
}

func TestServeAfterShutdown(t *testing.T) {
	s := startServer(t, nil)
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context(), ln); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("listener still open")
	}
}

// TestServeReportsItsListener: a listener that breaks is an error, not silence.
func TestServeReportsItsListener(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{}
	s := serveOn(t, testOptions(b), b, ln)
	s.dial(t).expect("220 ")
	ln.Close()
	if err := <-s.done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// TestCancelCutsConnections: the context of Serve ends everything.
func TestCancelCutsConnections(t *testing.T) {
	b := &backend{}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := &testServer{Server: NewServer(testOptions(b)), backend: b, addr: ln.Addr().String()}
	done := make(chan error)
	go func() { done <- s.Serve(ctx, ln) }()
	c := s.dial(t)
	c.expect("220 ")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	c.expectClosed()
	if b.closes != 1 {
		t.Errorf("%d sessions closed", b.closes)
	}
}

// TestManyAtOnce sends messages over many connections at once, for the race detector.
func TestManyAtOnce(t *testing.T) {
	s := startServer(t, func(o *Options, b *backend) { o.MaxConnections = 100 })
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			for j := range 3 {
				c := s.dial(t)
				c.login()
				body := fmt.Sprintf("Subject: %d.%d\r\n\r\nhello\r\n", i, j)
				c.send("MAIL FROM:<ann@example.com>\r\nRCPT TO:<bob@example.net>\r\n")
				if j == 1 {
					c.send(fmt.Sprintf("BDAT %d LAST\r\n%sQUIT\r\n", len(body), body))
				} else {
					c.send("DATA\r\n")
				}
				c.expect("250 ")
				c.expect("250 ")
				if j != 1 {
					c.expect("354 ")
					c.send(body + ".\r\nQUIT\r\n")
				}
				c.expect("250 2.0.0 taken")
				c.expect("221 ")
			}
		})
	}
	wg.Wait()
	seen := make(map[string]bool)
	for _, m := range s.taken() {
		if m.err != nil || seen[m.content] || m.protocol != "ESMTPSA" {
			t.Errorf("message %v", m)
		}
		seen[m.content] = true
	}
	if len(seen) != 30 {
		t.Errorf("%d messages", len(seen))
	}
	eventually(t, "all connections ended", func() bool { return s.Stats().Connections == 0 })
	if s.closes != 30 || s.resets != 30 {
		t.Errorf("%d closes, %d resets", s.closes, s.resets)
	}
}

// TestConnTellsAboutItself checks what a session sees of its connection.
func TestConnTellsAboutItself(t *testing.T) {
	s := startServer(t, func(o *Options, b *backend) {
		o.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	c := s.dial(t)
	c.send("PROXY TCP6 2001:db8::7 2001:db8::1 40000 587\r\n")
	c.expect("220 ")
	c.cmd("EHLO we\u202eird", "250-")
	conn := s.backend.conns[0]
	if conn.TLS() != nil || conn.Helo() != "we?ird" || conn.Protocol() != "ESMTP" || len(conn.ID()) != 16 ||
		conn.Listener() != "test" ||
		conn.Client() != netip.MustParseAddrPort("[2001:db8::7]:40000") {
		t.Errorf("helo %q, protocol %s, client %s", conn.Helo(), conn.Protocol(), conn.Client())
	}
	c.cmd("STARTTLS", "220 ")
	c.handshake()
	c.cmd("HELO c", "250 ")
	if conn.TLS() == nil || conn.TLS().Version != tls.VersionTLS13 || conn.Protocol() != "ESMTPS" {
		t.Errorf("protocol %s", conn.Protocol())
	}
}
