package wire

import (
	"math"
	"net/netip"
	"time"

	"postern/mail"
)

// recordHandshake is the first octet of a TLS ClientHello (RFC 8446 §5.1).
const recordHandshake = 0x16

// recordAlert is the record type of an unencrypted alert.
const recordAlert = 0x15

// admit checks the client's address. Behind a proxy that is the address in the PROXY header, not the proxy's.
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
	c.srv.half.rename(c.slot, origin)
	if !c.enterFrom(origin) {
		return refuse(ReasonLimit, tooManyFromAddress,
			"%s has %d connections to listener %s already; see max_connections_per_ip",
			origin, c.opt.MaxConnectionsPerIP, c.opt.Name)
	}
	c.origin = origin
	return nil
}

// enterFrom takes a slot for the client's address. If none is left, it evicts a connection that had time to log in.
func (c *Conn) enterFrom(origin netip.Prefix) bool {
	if c.srv.counts.enterFrom(origin, c.opt.MaxConnectionsPerIP) {
		return true
	}
	goes := c.srv.half.stale(origin, time.Now())
	if goes == nil {
		return false
	}
	goes.evict()
	return c.srv.counts.enterFrom(origin, math.MaxInt)
}

func (c *Conn) checkNetwork() error {
	if len(c.opt.Networks) == 0 || c.unplaced() || contains(c.opt.Networks, c.client.Addr()) {
		return nil
	}
	return refuse(ReasonNetwork,
		mail.R(554, "5.7.1", "your address %s may not connect here; the administrator can allow its network",
			c.client.Addr()),
		"%s is not in the networks of listener %s", c.client.Addr(), c.opt.Name)
}

// unplaced reports a client whose address the proxy did not give, such as a load balancer's health check. It is
// greeted, but can neither log in nor send: the networks of listeners, logins and policies cannot be checked.
func (c *Conn) unplaced() bool { return c.unnamed }

// Placed reports whether the client's address is known. A proxy gives none for connections of its own.
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

// expectClientHello waits for a ClientHello. A client that sends nothing, or something else, probably expects a
// plaintext greeting. It gets one that says what to change, which mail programs show; otherwise they would time out in
// silence.
func (c *Conn) expectClientHello() error {
	first, err := c.firstOctet(helloWait)
	switch {
	case err == nil && first == recordHandshake:
		return c.handshake()
	case err == nil && first&0x80 != 0: // no character of SMTP
		return refuse(ReasonTLS, mail.Reply{}, "%s", ssl2Hello)
	case err == nil:
		return refuse(ReasonTLS, tlsFirst, "%s", notTLS)
	case c.evicted.Load():
		return c.evictedRefusal()
	case isTimeout(err) && !c.srv.closing.Load():
		return refuse(ReasonTLS, tlsFirst, "no TLS handshake within %s: %s", span(helloWait),
			waitsInClear).because(err)
	}
	return errGone
}

// waitUntil sets the read deadline below TLS, then checks evicted: evict sets evicted before it moves the deadline.
func (c *Conn) waitUntil(t time.Time) {
	if c.io.sock.SetReadDeadline(t); c.evicted.Load() {
		c.io.sock.SetReadDeadline(time.Unix(1, 0))
	}
}

// firstOctet waits for the client's first octet and leaves it unread.
func (c *Conn) firstOctet(wait time.Duration) (byte, error) {
	var first [1]byte
	c.waitUntil(time.Now().Add(wait))
	n, err := c.io.sock.Read(first[:])
	c.io.deadline = time.Time{}
	if n == 0 {
		return 0, err
	}
	c.io.sock.unread(first[:])
	return first[0], nil
}

// awaitClientHello waits a moment for a client that begins with TLS, as many office printers do on any port.
func (c *Conn) awaitClientHello() error {
	first, err := c.firstOctet(c.srv.tlsHints.wait(c.origin, firstWait))
	switch {
	case err == nil && first == recordHandshake:
		c.srv.tlsHints.sawTLS(c.origin)
		return c.handshake()
	case err == nil && first&0x80 != 0:
		return refuse(ReasonTLS, mail.Reply{}, "%s", ssl2Hello)
	case err != nil && !isTimeout(err):
		return errGone
	}
	return nil
}

// rejectEarlyInput ends a connection with input before the greeting. The server speaks first (RFC 5321 §4.3.1), so this
// is no mail client, but ALPACA or an unexpected PROXY header.
func (c *Conn) rejectEarlyInput() error {
	var early [16]byte
	c.io.sock.SetReadDeadline(time.Time{}) // an expired one would hide what has arrived
	c.io.sock.nowait = true
	n, err := c.io.conn.Read(early[:])
	c.io.sock.nowait, c.io.deadline = false, time.Time{}
	switch {
	// it came just after the wait
	case n > 0 && early[0] == recordHandshake && c.io.tls == nil && c.opt.TLSMode == Auto:
		c.srv.tlsHints.sawTLS(c.origin)
		c.io.sock.unread(early[:n])
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
		return refuse(ReasonProxy, reply, "%s sent a PROXY header but is not in proxy_protocol of listener %s",
			c.client.Addr(), c.opt.Name)
	}
	if b[0] == recordHandshake && c.io.tls == nil {
		return c.unexpectedTLS()
	}
	if len(b) >= 5 && isSSL2([5]byte(b)) && c.io.tls == nil {
		return refuse(ReasonTLS, mail.Reply{}, "%s", ssl2Hello)
	}
	return refuse(ReasonProtocol, reply, "the client talked before the greeting")
}

// alertUnexpected is a TLS record with the fatal alert unexpected_message (RFC 8446 §6). It makes mail programs blame
// the settings rather than a lost connection.
var alertUnexpected = []byte{0x15, 0x03, 0x01, 0, 2, 2, 10}

// unexpectedTLS refuses a ClientHello where a command is due. A plaintext reply would only confuse.
func (c *Conn) unexpectedTLS() error {
	if c.opt.TLSMode == Auto {
		c.srv.tlsHints.sawTLS(c.origin)
		return refuse(ReasonTLS, mail.Reply{}, "the client began TLS after the plaintext greeting: it was too slow, "+
			"or shares its address with clients that use STARTTLS; next time the greeting waits longer")
	}
	detail := `the client began TLS without STARTTLS; set its connection security to STARTTLS, ` +
		`or tls = "auto" on listener %s`
	if c.opt.TLSMode == None {
		detail = `the client began TLS, but listener %s has tls = "none"; ` +
			`set its connection security to none, or let it use another port`
	}
	r := refuse(ReasonTLS, mail.Reply{}, detail, c.opt.Name)
	r.alert = !c.greeted // after a plaintext greeting the client would not read it as an alert
	return r
}
