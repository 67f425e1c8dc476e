package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipeListener hands out the server's ends of pipes, so that a test runs in the time of its bubble.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	close sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.close.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// addressedPipe is a pipe with an address.
type addressedPipe struct {
	net.Conn
	addr net.Addr
}

func (p addressedPipe) RemoteAddr() net.Addr { return p.addr }

// inBubble runs a test with a server and one client in a bubble of its own time.
func inBubble(t *testing.T, change func(*Options, *backend), run func(*testing.T, *testServer, *testClient)) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{}
		o := testOptions(b)
		if change != nil {
			change(o, b)
		}
		ln := newPipeListener()
		s := serveOn(t, o, b, ln)
		near, far := net.Pipe()
		ln.conns <- addressedPipe{far, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4000}}
		c := newClient(t, near)
		near.SetDeadline(time.Time{})
		run(t, s, c)
		near.Close()
		time.Sleep(time.Minute) // of the bubble: what still sends sees the end
	})
}

func openClear(o *Options, b *backend) { o.TLSMode, b.open = None, true }

// elapsed checks how long something took.
func elapsed(t *testing.T, start time.Time, low, high time.Duration) {
	t.Helper()
	if d := time.Since(start); d < low || d > high {
		t.Errorf("took %s, want %s to %s", d, low, high)
	}
}

// drip sends s an octet a second until the connection ends.
func drip(c *testClient, s string) {
	for i := range s {
		if _, err := io.WriteString(c.conn, s[i:i+1]); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

func TestLoginDeadlineIsAbsolute(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *testServer, c *testClient) {
		start := time.Now()
		c.expect("220 ")
		for time.Since(start) < 290*time.Second { // a person may take that long to type
			c.cmd("NOOP", "250 ") // moves nothing
			time.Sleep(10 * time.Second)
		}
		c.expect("421 4.4.2 no login within 5 minutes")
		c.expectClosed()
		elapsed(t, start, 5*time.Minute, 5*time.Minute+time.Second)
		if r := s.lastRefusal(); r.Reason != ReasonTimeout || r.Reply.Code != 421 {
			t.Errorf("refusal %+v", r)
		}
	})
}

func TestSlowCommand(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, _ *testServer, c *testClient) {
		start := time.Now()
		c.expect("220 ")
		go drip(c, "NOOP "+strings.Repeat("x", 3000))
		c.expect("421 4.4.2 ")
		elapsed(t, start, 5*time.Minute, 5*time.Minute+2*time.Second)
	})
	inBubble(t, openClear, func(t *testing.T, _ *testServer, c *testClient) { // no login to wait for
		start := time.Now()
		c.expect("220 ")
		go drip(c, "NOOP "+strings.Repeat("x", 3000))
		c.expect("421 4.4.2 idle for 5 minutes, closing; connect again to send more")
		c.expectClosed()
		elapsed(t, start, 5*time.Minute, 5*time.Minute+2*time.Second)
	})
}

// TestPartialCommandNeverRuns: what has arrived of a line at the deadline is no command.
func TestPartialCommandNeverRuns(t *testing.T) {
	inBubble(t, openClear, func(t *testing.T, s *testServer, c *testClient) {
		c.expect("220 ")
		c.cmd("HELO client", "250 ")
		c.send("MAIL FROM:<ann@example.co>")
		c.expect("421 4.4.2 ")
		c.expectClosed()
		if s.resets != 0 {
			t.Error("a transaction was opened")
		}
	})
}

func startData(c *testClient) {
	c.t.Helper()
	c.expect("220 ")
	c.cmd("HELO client", "250 ")
	c.cmd("MAIL FROM:<ann@example.com>", "250 ")
	c.cmd("RCPT TO:<bob@example.net>", "250 ")
	c.cmd("DATA", "354 ")
}

func onlyCut(t *testing.T, s *testServer) {
	t.Helper()
	synctest.Wait()
	m := s.taken()
	if len(m) != 1 || !errors.Is(m[0].err, ErrCut) {
		t.Errorf("messages %v", m)
	}
}

func TestSilentData(t *testing.T) {
	inBubble(t, openClear, func(t *testing.T, s *testServer, c *testClient) {
		startData(c)
		start := time.Now()
		c.send("Subject: x\r\n\r\nhello\r\n")
		c.expect("421 4.4.2 silent for 3 minutes inside a message, closing; send it again")
		elapsed(t, start, 3*time.Minute, 3*time.Minute+time.Second)
		// What comes now must not be run as commands.
		go io.WriteString(c.conn, "NOOP\r\nNOOP\r\n")
		c.expectClosed()
		onlyCut(t, s)
	})
}

func TestSlowData(t *testing.T) {
	slow := func(o *Options, b *backend) { openClear(o, b); o.MinDataRate, o.MaxMessageSize = 1000, 100<<20 }
	// lines sends 100 octets each time, until the connection ends or for so long.
	lines := func(c *testClient, every, d time.Duration) {
		for start := time.Now(); time.Since(start) < d; time.Sleep(every) {
			if _, err := io.WriteString(c.conn, strings.Repeat("x", 98)+"\r\n"); err != nil {
				return
			}
		}
	}
	inBubble(t, slow, func(t *testing.T, s *testServer, c *testClient) {
		startData(c)
		start := time.Now()
		go drip(c, strings.Repeat("x", 5000))
		c.expect("421 4.4.2 too slow, closing")
		c.expectClosed()
		elapsed(t, start, 3*time.Minute, 3*time.Minute+3*time.Second)
		onlyCut(t, s)
		if r := s.lastRefusal(); r.Reason != ReasonTimeout || !strings.Contains(r.Detail, "min_data_rate") {
			t.Errorf("refusal %+v", r)
		}
	})
	inBubble(t, slow, func(t *testing.T, s *testServer, c *testClient) { // fast enough, for ten minutes
		startData(c)
		lines(c, 99*time.Millisecond, 10*time.Minute)
		c.send(".\r\n")
		c.expect("250 ")
	})
	// too slow by a tenth: it takes ten times as long to be sure
	inBubble(t, slow, func(t *testing.T, s *testServer, c *testClient) {
		startData(c)
		start := time.Now()
		go lines(c, 110*time.Millisecond, time.Hour)
		c.expect("421 4.4.2 too slow, closing")
		c.expectClosed()
		elapsed(t, start, 30*time.Minute, 35*time.Minute)
		onlyCut(t, s)
	})
}

// TestSlowChunks: a chunk now and then does not keep a transfer alive.
func TestSlowChunks(t *testing.T) {
	inBubble(t, func(o *Options, b *backend) { openClear(o, b); o.MinDataRate = 1000 },
		func(t *testing.T, s *testServer, c *testClient) {
			c.expect("220 ")
			c.cmd("HELO client", "250 ")
			c.cmd("MAIL FROM:<ann@example.com>", "250 ")
			c.cmd("RCPT TO:<bob@example.net>", "250 ")
			c.send("BDAT 1\r\nx")
			c.expect("250 ")
			time.Sleep(4 * time.Minute)
			c.send("BDAT 1\r\nx")
			c.expect("421 4.4.2 too slow")
			c.expectClosed()
			onlyCut(t, s)
		})
}

func TestHandshakeDeadline(t *testing.T) {
	inBubble(t, func(o *Options, b *backend) { o.TLSMode = Implicit },
		func(t *testing.T, s *testServer, c *testClient) {
			start := time.Now()
			c.send("\x16\x03\x01\x02\x00\x01\x00")
			c.expectClosed()
			elapsed(t, start, 30*time.Second, 31*time.Second)
			if r := s.lastRefusal(); r.Reason != ReasonTLS {
				t.Errorf("refusal %+v", r)
			}
		})
}

// TestGreetingAwaited: who waits for a greeting where TLS comes first is told in clear what to change, with time for a
// slow ClientHello before.
func TestGreetingAwaited(t *testing.T) {
	implicit := func(o *Options, b *backend) { o.TLSMode = Implicit }
	inBubble(t, implicit, func(t *testing.T, s *testServer, c *testClient) {
		start := time.Now()
		c.expect("554 5.7.0 this port speaks TLS from the first byte; set the connection security to SSL/TLS")
		elapsed(t, start, 3*time.Second, 3*time.Second)
		c.expectClosed()
		if r := s.lastRefusal(); r.Reason != ReasonTLS ||
			!strings.Contains(r.Detail, "waits for a plaintext greeting") {
			t.Errorf("refusal %+v", r)
		}
	})
	inBubble(t, implicit, func(t *testing.T, s *testServer, c *testClient) {
		time.Sleep(2900 * time.Millisecond)
		c.handshake()
		c.expect("220 ")
	})
	inBubble(t, implicit, func(t *testing.T, s *testServer, c *testClient) { // some octets are not a handshake in time
		start := time.Now()
		c.send("\x16")
		c.expectClosed()
		elapsed(t, start, 30*time.Second, 31*time.Second)
	})
}

// TestClientThatNeverReads: a client that sends and does not read is cut by the write deadline.
func TestClientThatNeverReads(t *testing.T) {
	inBubble(t, openClear, func(t *testing.T, s *testServer, c *testClient) {
		start := time.Now()
		c.expect("220 ")
		for {
			if _, err := io.WriteString(c.conn, "NOOP\r\n"); err != nil {
				break
			}
		}
		elapsed(t, start, time.Minute, 2*time.Minute)
		synctest.Wait()
		if n := s.Stats().Connections; n != 0 {
			t.Errorf("%d connections left", n)
		}
	})
}

func TestProxyDeadline(t *testing.T) {
	proxies := func(o *Options, b *backend) { o.Proxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} }
	inBubble(t, proxies, func(t *testing.T, s *testServer, c *testClient) {
		start := time.Now()
		c.send("PROXY TCP4 ")
		c.expectClosed()
		elapsed(t, start, 5*time.Second, 6*time.Second)
		if r := s.lastRefusal(); r.Reason != ReasonProxy {
			t.Errorf("refusal %+v", r)
		}
	})
}

// TestShutdownInTime: sessions between messages end at once, one inside a message when it is over, and
// what lasts longer than the caller waits is cut.
func TestShutdownInTime(t *testing.T) {
	inBubble(t, openClear, func(t *testing.T, s *testServer, c *testClient) {
		c.expect("220 ")
		synctest.Wait()
		start := time.Now()
		ended := make(chan error)
		go func() { ended <- s.Shutdown(context.Background()) }()
		c.expect("421 4.3.2 relay.example.com is shutting down")
		c.expectClosed()
		elapsed(t, start, 0, 0)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := <-s.done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	inBubble(t, openClear, func(t *testing.T, s *testServer, c *testClient) {
		startData(c)
		c.send("one\r\n")
		ended := make(chan error)
		go func() { ended <- s.Shutdown(context.Background()) }()
		time.Sleep(time.Minute)
		c.send("two\r\n.\r\nMAIL FROM:<ann@example.com>\r\n")
		c.expect("250 2.0.0 taken, 10 octets")
		c.expect("421 4.3.2 ")
		c.expectClosed()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	inBubble(t, openClear, func(t *testing.T, s *testServer, c *testClient) {
		startData(c)
		start := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		elapsed(t, start, 20*time.Second, 21*time.Second)
		c.expectClosed()
		onlyCut(t, s)
	})
}

// TestShutdownCancelsSessions: a session that waits for something sees its context end.
func TestShutdownCancelsSessions(t *testing.T) {
	waits := func(o *Options, b *backend) {
		openClear(o, b)
		b.onData = dataThat(func(ctx context.Context, tr *Transfer) { <-ctx.Done() })
	}
	inBubble(t, waits, func(t *testing.T, s *testServer, c *testClient) {
		startData(c)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if n := s.Stats().Connections; n != 0 {
			t.Errorf("%d connections left", n)
		}
	})
}

// keepAlive sends NOOP every minute for a time.
func keepAlive(c *testClient, long time.Duration) {
	for start := time.Now(); time.Since(start) < long; time.Sleep(time.Minute) {
		c.cmd("NOOP", "250 ")
	}
}

// TestLongestSession: a client that is never silent is sent away all the same, between transactions.
func TestLongestSession(t *testing.T) {
	short := func(o *Options, b *backend) { openClear(o, b); o.MaxSession = 30 * time.Minute }
	inBubble(t, short, func(t *testing.T, _ *testServer, c *testClient) {
		start := time.Now()
		c.expect("220 ")
		c.cmd("EHLO client", "250")
		keepAlive(c, 28*time.Minute)
		c.expect("421 4.7.0 connected for 30 minutes, the longest allowed; connect and log in again")
		c.expectClosed()
		elapsed(t, start, 30*time.Minute, 30*time.Minute+time.Second)
	})
	inBubble(t, short, func(t *testing.T, _ *testServer, c *testClient) { // a transaction may end, and is the last
		c.expect("220 ")
		c.cmd("EHLO client", "250")
		keepAlive(c, 29*time.Minute)
		c.cmd("MAIL FROM:<ann@example.com>", "250 ")
		keepAlive(c, 5*time.Minute)
		c.cmd("RCPT TO:<bob@example.net>", "250 ")
		c.cmd("DATA", "354 ")
		c.cmd("Subject: x\r\n\r\nx\r\n.", "250 ")
		c.expect("421 4.7.0 connected for 30 minutes")
		c.expectClosed()
	})
	inBubble(t, short, func(t *testing.T, _ *testServer, c *testClient) { // but not for ever
		start := time.Now()
		c.expect("220 ")
		c.cmd("EHLO client", "250")
		c.cmd("MAIL FROM:<ann@example.com>", "250 ")
		keepAlive(c, 88*time.Minute)
		c.expect("421 4.7.0 connected for 30 minutes")
		c.expectClosed()
		elapsed(t, start, 90*time.Minute, 90*time.Minute+time.Second)
	})
	inBubble(t, openClear, func(t *testing.T, _ *testServer, c *testClient) { // a day, if nobody says otherwise
		start := time.Now()
		c.expect("220 ")
		keepAlive(c, 24*time.Hour-2*time.Minute)
		c.expect("421 4.7.0 connected for 24 hours")
		elapsed(t, start, 24*time.Hour, 24*time.Hour+time.Second)
	})
}

// TestOpenConnectionTakesNewLimits: the limits of new options hold for open connections, from the next transaction on.
func TestOpenConnectionTakesNewLimits(t *testing.T) {
	var options Options
	inBubble(t, func(o *Options, b *backend) { openClear(o, b); options = *o },
		func(t *testing.T, s *testServer, c *testClient) {
			c.expect("220 ")
			c.cmd("EHLO client", "250")
			c.cmd("MAIL FROM:<ann@example.com> SIZE=50000", "250 ")
			options.MaxMessageSize, options.MaxRecipients, options.MaxSession, options.Hostname = 40000, 1, time.Hour,
				"other.example.com"
			s.SetOptions(&options)
			c.cmd("RCPT TO:<bob@example.net>", "250 ")
			c.cmd("RCPT TO:<carol@example.net>", "250 ") // of the transaction under way
			c.cmd("RSET", "250 ")
			c.cmd("MAIL FROM:<ann@example.com> SIZE=50000", "552 5.3.4 ")
			c.cmd("MAIL FROM:<ann@example.com>", "250 ")
			c.cmd("RCPT TO:<bob@example.net>", "250 ")
			c.cmd("RCPT TO:<carol@example.net>", "452 4.5.3 ")
			c.cmd("RSET", "250 ")
			c.cmd("HELO client", "250 relay.example.com")
			keepAlive(c, time.Hour-2*time.Minute)
			c.expect("421 4.7.0 connected for 1 hour")
		})
}

// TestBareEndIsTold: who waits behind LF . LF is told in the log what it does wrong, at either kind of listener.
func TestBareEndIsTold(t *testing.T) {
	for _, tolerant := range []bool{false, true} {
		inBubble(t, func(o *Options, b *backend) { openClear(o, b); o.Appliance = tolerant },
			func(t *testing.T, s *testServer, c *testClient) {
				startData(c)
				c.send("Subject: x\n\nhello\n.\n")
				c.expect("421 4.4.2 silent for 3 minutes")
				synctest.Wait()
				r := s.lastRefusal()
				if !strings.Contains(r.Detail, "ends its messages with LF . LF, which ends none") {
					t.Errorf("appliance %v: %q", tolerant, r.Detail)
				}
			})
	}
}
