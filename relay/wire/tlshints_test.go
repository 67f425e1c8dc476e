package wire

import (
	"crypto/tls"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipeLook is how long a socket looks into a pipe, which cannot tell at once whether there is something.
const pipeLook = time.Millisecond

// autoListener is a listener with Auto in a bubble, and clients of it.
type autoListener struct {
	*testServer
	t  *testing.T
	ln *pipeListener
}

func (l *autoListener) dial(ip string) *testClient {
	near, far := net.Pipe()
	l.ln.conns <- addressedPipe{far, &net.TCPAddr{IP: net.ParseIP(ip), Port: 4000}}
	c := newClient(l.t, near)
	near.SetDeadline(time.Time{})
	l.t.Cleanup(func() { near.Close() })
	return c
}

// startTLS connects, goes over to TLS when it is greeted, and tells how long it waited for the greeting.
func (l *autoListener) startTLS(ip string) time.Duration {
	c, began := l.dial(ip), time.Now()
	c.expect("220 ")
	waited := time.Since(began) - pipeLook
	c.cmd("EHLO client", "250-")
	c.cmd("STARTTLS", "220 ")
	c.handshake()
	c.cmd("QUIT", "221 ")
	c.conn.Close()
	return waited
}

func inAuto(t *testing.T, run func(l *autoListener)) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{}
		o := testOptions(b)
		o.TLSMode = Auto
		ln := newPipeListener()
		run(&autoListener{serveOn(t, o, b, ln), t, ln})
	})
}

// Who asks for STARTTLS waits the whole time once, then no longer than is needed to see a device that shares the
// address.
func TestStartTLSWaitsOnce(t *testing.T) {
	inAuto(t, func(l *autoListener) {
		for _, c := range []struct {
			ip   string
			want time.Duration
		}{
			{"192.0.2.1", firstWait}, {"192.0.2.1", knownWait}, {"192.0.2.2", firstWait}, {"192.0.2.1", knownWait},
			{"2001:db8::1", firstWait}, {"2001:db8::2", knownWait}, {"2001:db8:0:1::1", firstWait},
		} {
			if got := l.startTLS(c.ip); got != c.want {
				t.Errorf("%s waited %v, want %v", c.ip, got, c.want)
			}
		}
	})
}

// A client that only connects and leaves has shown nothing.
func TestWaitIsShortenedByStartTLSOnly(t *testing.T) {
	inAuto(t, func(l *autoListener) {
		c := l.dial("192.0.2.1")
		c.expect("220 ")
		c.cmd("EHLO client", "250-")
		c.cmd("QUIT", "221 ")
		if got := l.startTLS("192.0.2.1"); got != firstWait {
			t.Errorf("waited %v", got)
		}
	})
}

// A slow device behind the address of STARTTLS clients fails once, and is waited for from then on.
func TestSlowDeviceIsLearned(t *testing.T) {
	inAuto(t, func(l *autoListener) {
		l.startTLS("192.0.2.1")
		c := l.dial("192.0.2.1")
		c.expect("220 ")                                  // it was too slow
		c.conn.Write([]byte("\x16\x03\x01\x00\x05hello")) // of which the server may read as much as tells it enough
		c.expectClosed()
		if r := l.lastRefusal(); r.Reason != ReasonTLS || !strings.Contains(r.Detail, "waits longer") {
			t.Errorf("%+v", r)
		}
		c = l.dial("192.0.2.1")
		time.Sleep(firstWait - time.Millisecond)
		tc := tls.Client(c.conn, clientTLS())
		if err := tc.Handshake(); err != nil {
			t.Fatalf("the device is not waited for: %v", err)
		}
		tc.Close()
		if got := l.startTLS("192.0.2.1"); got != firstWait {
			t.Errorf("a client beside it waited %v", got)
		}
	})
}

// A ClientHello that comes when the wait is over and the greeting not yet sent is taken.
func TestClientHelloAtTheLastMoment(t *testing.T) {
	inAuto(t, func(l *autoListener) {
		c := l.dial("192.0.2.1")
		time.Sleep(firstWait + pipeLook/2)
		c.handshake()
		c.expect("220 ")
		c.cmd("EHLO device", "250-")
	})
}

// Addresses are remembered up to a bound.
func TestBeginningsAreBounded(t *testing.T) {
	b := newTLSHints()
	first := originOf(netip.MustParseAddr("192.0.2.1"))
	b.sawStartTLS(first)
	for i := range maxTLSHints {
		b.sawTLS(originOf(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})))
	}
	if n := b.withTLS.Len(); n != maxTLSHints {
		t.Errorf("%d are remembered", n)
	}
	if got := b.wait(first, firstWait); got != firstWait {
		t.Errorf("a forgotten address is waited for %v", got)
	}
}
