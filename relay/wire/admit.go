package wire

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"postern/mail"
)

// recordHandshake is the first octet of a TLS ClientHello (RFC 8446 §5.1).
const recordHandshake = 0x16

// recordAlert is the type of a record with an alert, where it is not encrypted.
const recordAlert = 0x15

// admit checks where the connection comes from. A proxy speaks for its clients: they must be in Networks, not it.
func (c *Conn) admit() error {
	if contains(c.opt.Proxies, c.client.Addr()) {
		if err := c.readProxy(); err != nil {
			return err
		}
	}
	if err := c.checkNetwork(); err != nil {
		return err
	}
	origin := originOf(c.client.Addr())
	c.srv.half.rename(c.stranger, origin)
	if !c.enterFrom(origin) {
		return refuse(ReasonLimit, mail.R(421, "4.7.0", "too many connections from your address at once; close some or try again later"),
			"%s has %d connections to listener %s already; see max_connections_per_ip", origin, c.opt.MaxConnectionsPerIP, c.opt.Name)
	}
	c.origin = origin
	return nil
}

// enterFrom takes a place for the client's address. Where none is left, one makes room that had time enough to log in.
func (c *Conn) enterFrom(origin netip.Prefix) bool {
	if c.srv.counts.enterFrom(origin, c.opt.MaxConnectionsPerIP) {
		return true
	}
	goes := c.srv.half.stale(origin, time.Now())
	if goes == nil {
		return false
	}
	goes.makeRoom()
	return c.srv.counts.enterFrom(origin, math.MaxInt)
}

func (c *Conn) checkNetwork() error {
	if len(c.opt.Networks) == 0 || c.unplaced() || contains(c.opt.Networks, c.client.Addr()) {
		return nil
	}
	return refuse(ReasonNetwork, mail.R(554, "5.7.1", "your address %s may not connect here; the administrator can allow its network", c.client.Addr()),
		"%s is not in the networks of listener %s", c.client.Addr(), c.opt.Name)
}

// unplaced reports a client that a proxy did not name. The health checks of a load balancer are such: they are
// greeted, and can neither log in nor send, since the networks of listeners, logins and policies would be asked about
// the proxy's own address.
func (c *Conn) unplaced() bool { return c.unnamed }

// Placed reports whether the client's address is known. It is not for the connections that a proxy makes for itself, or
// without naming a client.
func (c *Conn) Placed() bool { return !c.unplaced() }

// startTLSFirst does the handshake on connections that begin with one.
func (c *Conn) startTLSFirst() error {
	switch c.opt.TLSMode {
	case Implicit:
		return c.expectClientHello()
	case Auto:
		return c.awaitClientHello()
	}
	return nil
}

// expectClientHello takes a client that says nothing, or something else, for one that waits for a greeting in clear.
// It gets one that says what to change: a mail program shows it, and would otherwise wait until it gives up without a
// word.
func (c *Conn) expectClientHello() error {
	first, err := c.firstOctet(c.opt.HelloWait)
	switch {
	case err == nil && first == recordHandshake:
		return c.handshake()
	case err == nil:
		return refuse(ReasonTLS, tlsFirst, "no TLS handshake: the client sent something else, probably SMTP in clear; set its connection security to SSL/TLS, or use the STARTTLS port")
	case c.ousted.Load():
		return c.oustedRefusal()
	case isTimeout(err) && !c.srv.closing.Load():
		return refuse(ReasonTLS, tlsFirst, "no TLS handshake within %s: the client probably waits for a greeting in clear; set its connection security to SSL/TLS, or use the STARTTLS port", span(c.opt.HelloWait)).because(err)
	}
	return errGone
}

// waitUntil sets the read deadline below TLS. After it: makeRoom stores ousted, then moves the deadline.
func (c *Conn) waitUntil(t time.Time) {
	if c.sock.SetReadDeadline(t); c.ousted.Load() {
		c.sock.SetReadDeadline(time.Unix(1, 0))
	}
}

// firstOctet waits for the client's first octet, which stays to be read.
func (c *Conn) firstOctet(wait time.Duration) (byte, error) {
	var first [1]byte
	c.waitUntil(time.Now().Add(wait))
	n, err := c.sock.Read(first[:])
	c.deadline = time.Time{}
	if n == 0 {
		return 0, err
	}
	c.sock.unread(first[:])
	return first[0], nil
}

// awaitClientHello waits a moment for a client that begins with TLS, as many office printers do on any
// port.
func (c *Conn) awaitClientHello() error {
	first, err := c.firstOctet(c.srv.beginnings.wait(c.origin, c.opt.TLSWait))
	switch {
	case err == nil && first == recordHandshake:
		c.srv.beginnings.sawTLS(c.origin)
		return c.handshake()
	case err != nil && !isTimeout(err):
		return errGone
	}
	return nil
}

// rejectEarlyInput ends a connection on which there is input before the greeting: RFC 5321 §4.3.1
// lets the server speak first, so this is no mail client (ALPACA, a PROXY header nobody asked for).
func (c *Conn) rejectEarlyInput() error {
	var early [16]byte
	c.sock.SetReadDeadline(time.Time{}) // one that has passed would hide what is there
	c.sock.nowait = true
	n, err := c.stream.Read(early[:])
	c.sock.nowait, c.deadline = false, time.Time{}
	switch {
	case n > 0 && early[0] == recordHandshake && c.tls == nil && c.opt.TLSMode == Auto: // it came at the end of the wait
		c.srv.beginnings.sawTLS(c.origin)
		c.sock.unread(early[:n])
		if err := c.handshake(); err != nil {
			return err
		}
		return c.rejectEarlyInput()
	case n > 0:
		return c.earlyRefusal(early[:n])
	case !isTimeout(err):
		return errGone
	}
	return nil
}

func (c *Conn) earlyRefusal(b []byte) error {
	reply := mail.R(554, "5.5.1", "wait for the greeting")
	if used, err := proxyLength(b); err == nil || used > 0 {
		return refuse(ReasonProxy, reply, "%s sent a PROXY header but is not in proxy_protocol of listener %s", c.client.Addr(), c.opt.Name)
	}
	if b[0] == recordHandshake && c.tls == nil {
		return c.unexpectedTLS()
	}
	return refuse(ReasonProtocol, reply, "the client talked before the greeting")
}

// alertUnexpected is a TLS record with the fatal alert unexpected_message (RFC 8446 §6): mail programs show then that
// the settings are wrong, where they would otherwise speak of a lost connection.
var alertUnexpected = []byte{0x15, 0x03, 0x01, 0, 2, 2, 10}

// unexpectedTLS is for a ClientHello where a command is due. A reply in clear would only confuse.
func (c *Conn) unexpectedTLS() error {
	if c.opt.TLSMode == Auto {
		c.srv.beginnings.sawTLS(c.origin)
		return refuse(ReasonTLS, mail.Reply{}, "the client began TLS after it was greeted in clear: it was too slow, or shares its address with clients that use STARTTLS; its next connection is waited for longer")
	}
	r := refuse(ReasonTLS, mail.Reply{}, `the client began TLS without STARTTLS; set its connection security to STARTTLS, or tls = "auto" on listener %s`, c.opt.Name)
	if c.opt.TLSMode == None {
		r.detail = fmt.Sprintf(`the client began TLS, and listener %s has tls = "none"; set its connection security to none, or let it use another port`, c.opt.Name)
	}
	r.alert = !c.greeted // a greeting in clear has spoilt it for the client already
	return r
}
