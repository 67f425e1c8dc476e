package wire

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/mail"
)

// floodRig is a server in a bubble of its own time, with clients from anywhere.
type floodRig struct {
	*testServer
	t  *testing.T
	ln *pipeListener
}

func inFlood(t *testing.T, change func(*Options, *backend), run func(*testing.T, *floodRig)) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{}
		o := testOptions(b)
		change(o, b)
		ln := newPipeListener()
		run(t, &floodRig{serveOn(t, o, b, ln), t, ln})
	})
}

// from connects from an address. Its client reads what it is sent all the while.
func (s *floodRig) from(address string) *testClient {
	s.t.Helper()
	near, far := net.Pipe()
	s.ln.conns <- addressedPipe{far, &net.TCPAddr{IP: net.ParseIP(address), Port: 4000}}
	c := newClient(s.t, near)
	near.SetDeadline(time.Time{})
	s.t.Cleanup(func() { near.Close() })
	return c
}

// silent connects and reads the greeting, no more.
func (s *floodRig) silent(address string) *testClient {
	s.t.Helper()
	c := s.from(address)
	c.expect("220 ")
	return c
}

func (c *testClient) open() bool {
	c.t.Helper()
	c.send("NOOP\r\n")
	reply, err := c.reply()
	return err == nil && strings.HasPrefix(reply, "250 ")
}

func limitOf(n int) func(*Options, *backend) {
	return func(o *Options, b *backend) { o.MaxUnauthenticated, o.MaxConnectionsPerIP = n, 10_000 }
}

// TestFloodOfOneAddress: it makes room for itself, and a person who types a password elsewhere stays.
func TestFloodOfOneAddress(t *testing.T) {
	inFlood(t, limitOf(10), func(t *testing.T, s *floodRig) {
		person := s.silent("192.0.2.1")
		time.Sleep(time.Second)
		var flood []*testClient
		for range 30 {
			flood = append(flood, s.silent("192.0.2.66"))
			if n := len(flood) - 10; n >= 0 { // the oldest of the flood went for it
				flood[n].expect("421 4.7.0 too many connections are waiting to log in; connect again")
				flood[n].expectClosed()
			}
		}
		if r := s.lastRefusal(); r.Reason != ReasonLimit || r.Client.Addr().String() != "192.0.2.66" ||
			!strings.Contains(r.Detail, "max_unauthenticated") {
			t.Errorf("refusal %+v", r)
		}
		if !person.open() {
			t.Error("the person went")
		}
		late := s.silent("192.0.2.2")
		if !late.open() || !person.open() {
			t.Error("who came late, or the person, went")
		}
	})
}

// TestFloodOfManyAddresses: with one connection each no address stands out. Those go first that nobody ever logged in
// from, and of them those without TLS.
func TestFloodOfManyAddresses(t *testing.T) {
	inFlood(t, limitOf(10), func(t *testing.T, s *floodRig) {
		s.from("192.0.2.1").login()
		person := s.silent("192.0.2.1")
		secured := s.silent("192.0.2.2")
		secured.cmd("EHLO c", "250-")
		secured.cmd("STARTTLS", "220 ")
		secured.handshake()
		var flood []*testClient
		for i := range 300 {
			time.Sleep(100 * time.Millisecond)
			c := s.silent(fmt.Sprintf("198.51.%d.%d", 100+i/250, 1+i%250))
			if flood = append(flood, c); i >= 8 {
				flood[i-8].expect("421 4.7.0 ")
			}
		}
		if !person.open() || !secured.open() {
			t.Error("the person, or who had gone further, went")
		}
		s.from("192.0.2.1").login()
		s.from("192.0.2.3").login()
		if n := s.half.order.Len(); n != 9 { // the last logins needed one place, and left it
			t.Errorf("%d before login", n)
		}
	})
}

// TestManyFromATrustedAddress: an address that logins came from has no right to all slots.
func TestManyFromATrustedAddress(t *testing.T) {
	inFlood(t, limitOf(20), func(t *testing.T, s *floodRig) {
		s.from("192.0.2.1").login()
		client := s.silent("192.0.2.9")
		for range 40 {
			s.silent("192.0.2.1")
		}
		s.from("192.0.2.10").login()
		if !client.open() {
			t.Error("the client went for a flood")
		}
	})
}

// TestNobodyGoesWhoseLoginIsLookedAt: the place of a login under way is not taken.
func TestNobodyGoesWhoseLoginIsLookedAt(t *testing.T) {
	verify := make(chan struct{})
	inFlood(t, func(o *Options, b *backend) {
		limitOf(1)(o, b)
		inner := o.NewSession
		o.NewSession = func(c *Conn) (Session, mail.Reply) {
			s, r := inner(c)
			return slowSession{s, verify}, r
		}
	}, func(t *testing.T, s *floodRig) {
		verify = make(chan struct{})
		c := s.silent("192.0.2.1")
		c.cmd("EHLO c", "250-")
		c.cmd("STARTTLS", "220 ")
		c.handshake()
		c.cmd("EHLO c", "250-")
		c.send("AUTH PLAIN AGFubgBwdw==\r\n")
		synctest.Wait()
		s.from("192.0.2.2").expect("421 4.7.0 too many connections are waiting to log in")
		close(verify)
		c.expect("235 ")
		s.silent("192.0.2.2")
	})
}

// slowSession takes its time over a password.
type slowSession struct {
	Session
	verify chan struct{}
}

func (s slowSession) Auth(ctx context.Context, mechanism string) (Exchange, mail.Reply) {
	x, r := s.Session.Auth(ctx, mechanism)
	return slowExchange{x, s.verify}, r
}

type slowExchange struct {
	Exchange
	verify chan struct{}
}

func (x slowExchange) Next(ctx context.Context, response []byte) ([]byte, mail.Reply) {
	<-x.verify
	return x.Exchange.Next(ctx, response)
}

// TestHandshakeMakesRoom: in the middle of a handshake, and before it, there is nothing to say.
func TestHandshakeMakesRoom(t *testing.T) {
	for _, begin := range []string{"", "\x16\x03\x01\x02\x00\x01\x00"} {
		inFlood(t, func(o *Options, b *backend) { limitOf(1)(o, b); o.TLSMode = Implicit },
			func(t *testing.T, s *floodRig) {
				c := s.from("192.0.2.1")
				if begin != "" {
					c.send(begin)
				}
				synctest.Wait()
				start := time.Now()
				other := s.from("192.0.2.2")
				c.expectClosed()
				elapsed(t, start, 0, 0)
				other.handshake()
				other.expect("220 ")
				if r := s.lastRefusal(); r.Reason != ReasonLimit || r.Client.Addr().String() != "192.0.2.1" ||
					!r.Reply.IsZero() {
					t.Errorf("refusal %+v", r)
				}
			})
	}
}

// TestStaleOfAnAddress: over the limit of an address one makes room that had its time, and none that came just now or
// is past login.
func TestStaleOfAnAddress(t *testing.T) {
	inFlood(t, func(o *Options, b *backend) { o.MaxConnectionsPerIP = 2 }, func(t *testing.T, s *floodRig) {
		s.from("192.0.2.1").login()
		silent := s.silent("192.0.2.1")
		s.from("192.0.2.1").expect("421 4.7.0 too many connections from your address")
		time.Sleep(staleAge)
		s.from("192.0.2.1").login()
		silent.expect("421 4.7.0 ")
		time.Sleep(staleAge)
		s.from("192.0.2.1").expect("421 4.7.0 too many connections from your address")
	})
}

// TestManyHalfOpen: two thousand of them do not shut anybody out, and nothing of them stays.
func TestManyHalfOpen(t *testing.T) {
	s := startServer(t, func(o *Options, b *backend) {
		o.MaxUnauthenticated, o.MaxConnections, o.MaxConnectionsPerIP = 100, 2, 5000
		o.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	inside := s.dial(t)
	inside.send("PROXY TCP4 192.0.2.1 198.51.100.1 40000 587\r\n")
	inside.login()
	var conns []net.Conn
	for i := range 2000 {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			fmt.Fprintf(c, "PROXY TCP4 203.0.113.%d 198.51.100.1 40000 587\r\n", i%250)
		}
		conns = append(conns, c)
	}
	eventually(t, "all have come and the evicted are gone", func() bool {
		st := s.Stats()
		return st.Accepted == 2001 && st.Connections <= 101
	})
	late := s.dial(t)
	late.send("PROXY TCP4 192.0.2.2 198.51.100.1 40000 587\r\n")
	late.login()
	inside.cmd("NOOP", "250 ")
	for _, c := range conns {
		c.Close()
	}
	eventually(t, "all of them are gone", func() bool { return s.Stats().Connections == 2 })
	s.half.mu.Lock()
	defer s.half.mu.Unlock()
	if s.half.order.Len() != 0 || len(s.half.perOrigin) != 0 {
		t.Errorf("%d connections of %d addresses left", s.half.order.Len(), len(s.half.perOrigin))
	}
}
