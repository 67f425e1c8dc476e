package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"runtime/debug"
	"sync/atomic"
	"time"

	"postern/mail"
)

// Conn is one client connection. Its Session may call the exported methods at any time; their results change only
// between commands.
type Conn struct {
	srv      *Server
	opt      *Options
	limitsOf *Options // where the limits in opt come from
	ln       net.Listener
	ctx      context.Context // ends when the server stops hard
	io       stream
	id       string

	client  netip.AddrPort
	unnamed bool         // the proxy did not give the client's address
	origin  netip.Prefix // counted in srv.counts, if valid
	loginBy time.Time

	slot    *slot       // its slot before login
	inside  bool        // it has a slot for authenticated connections
	evicted atomic.Bool // evicted before login
	endBy   time.Time   // when the session ends, unless a transaction is open

	session    Session
	greeted    bool
	introduced bool   // EHLO or HELO came
	helo       string // its argument, may be ""
	extended   bool   // it was EHLO
	loggedIn   bool   // AUTH succeeded
	tx         transaction
	refused    bool         // the last MAIL or chunk was, so commands pipelined after it are no protocol errors
	pending    *pendingLine // read inside a transfer, still to run
	line       string       // the running command, "" between commands
	errors     int          // protocol errors since the last message
	refusals   int          // the session's 4yz and 5yz replies since the last message
	idleTurns  int          // commands since the last message
	failures   int          // failed AUTH
}

// transaction is an open mail transaction.
type transaction struct {
	open   bool
	utf8   bool
	rcpts  int // accepted
	excess int // answered 452: too many
}

// maxExcess bounds the recipients over the limit in one transaction, far above the largest list ever seen.
const maxExcess = 200_000

type pendingLine struct {
	line string
	err  error
}

func newConn(s *Server, ctx context.Context, ln net.Listener, nc net.Conn) *Conn {
	now := time.Now()
	opt := s.opt.Load()
	c := &Conn{srv: s, opt: opt, limitsOf: opt, ln: ln, ctx: ctx, id: mail.NewID(now),
		client: remote(nc), loginBy: now.Add(opt.AuthTimeout), endBy: now.Add(opt.MaxSession)}
	sock := newSocket(nc)
	c.io = stream{sock: sock, conn: sock, interrupted: c.interrupted, writeTimeout: c.writeTimeout}
	c.slot = &slot{conn: c}
	return c
}

// ID is the identifier of the session, for logs and traces.
func (c *Conn) ID() string { return c.id }

// Listener is the configured name of the listener.
func (c *Conn) Listener() string { return c.opt.Name }

// Client is the client's address, taken from the PROXY header if there is one. It proves nothing.
func (c *Conn) Client() netip.AddrPort { return c.client }

// TLS is the state of TLS, nil before TLS.
func (c *Conn) TLS() *tls.ConnectionState {
	if c.io.tls == nil {
		return nil
	}
	state := c.io.tls.ConnectionState()
	return &state
}

// Helo is the client's name from EHLO or HELO, unchecked but printable and at most 255 octets; "" before.
func (c *Conn) Helo() string { return c.helo }

// Protocol is the keyword for the with clause of Received (RFC 3848, RFC 6531 §4.3).
func (c *Conn) Protocol() string {
	if !c.extended && c.io.tls == nil && !c.loggedIn {
		return "SMTP"
	}
	p := "ESMTP"
	if c.tx.utf8 {
		p = "UTF8SMTP"
	}
	if c.io.tls != nil {
		p += "S"
	}
	if c.loggedIn {
		p += "A"
	}
	return p
}

// serve is the life of a connection.
func (c *Conn) serve() {
	defer c.close()
	defer c.recoverPanic()
	err := c.open()
	if err == nil {
		err = c.loop()
	}
	c.finish(err)
}

// open brings the connection to its greeting.
func (c *Conn) open() error {
	if err := c.admit(); err != nil {
		return err
	}
	if err := c.startTLSFirst(); err != nil {
		return err
	}
	if err := c.rejectEarlyInput(); err != nil {
		return err
	}
	if c.evicted.Load() {
		return c.evictedRefusal()
	}
	session, reply := c.opt.NewSession(c)
	c.session = session
	if !reply.IsZero() && !reply.OK() || session == nil {
		return refuse(ReasonSession, reply, "refused at connection: %s", reply)
	}
	if err := c.enterInside(); err != nil {
		return err
	}
	c.greeted = true
	c.io.send(mail.R(220, "", "%s ESMTP ready", c.opt.Hostname))
	return nil
}

// loop runs commands until the connection ends.
func (c *Conn) loop() error {
	for {
		if c.srv.closing.Load() && !c.tx.open {
			return errShutdown
		}
		if !time.Now().Before(c.sessionBy()) {
			return errAged
		}
		line, err := c.nextLine()
		switch {
		case errors.Is(err, errLineTooLong):
			err = c.wrong(500, "5.5.2", "line too long")
		case errors.Is(err, errLineEnd):
			err = c.wrong(500, "5.5.2", "a command ends with CR LF")
		case err == nil:
			c.takeLimits()
			err = c.run(line)
		}
		if err != nil {
			return err
		}
	}
}

// nextLine returns the next command.
func (c *Conn) nextLine() (string, error) {
	if p := c.pending; p != nil {
		c.pending = nil
		return p.line, p.err
	}
	line, err := c.io.readLine(c.commandBy(), false)
	return string(line), c.explain(err)
}

// interrupted says why not to wait for the client: we shut down and no transaction is open, or it was evicted.
func (c *Conn) interrupted() error {
	if c.srv.closing.Load() && !c.tx.open {
		return errShutdown
	}
	if !c.inside && c.evicted.Load() {
		return c.evictedRefusal()
	}
	return nil
}

// writeTimeout bounds one write of replies to a client that does not read.
func (c *Conn) writeTimeout() time.Duration { return min(c.opt.IdleTimeout, time.Minute) }

// commandBy is when the next command must be complete: after the idle time-out, but before login no later than the
// login deadline, which no command moves.
func (c *Conn) commandBy() time.Time {
	by := time.Now().Add(c.opt.IdleTimeout)
	if end := c.sessionBy(); end.Before(by) {
		by = end
	}
	if !c.admitted() && c.loginBy.Before(by) {
		return c.loginBy
	}
	return by
}

// transactionGrace is how much longer than MaxSession a session may last to finish a transaction.
const transactionGrace = time.Hour

// sessionBy is when the session must end: the client's rights are checked when it connects.
func (c *Conn) sessionBy() time.Time {
	if c.tx.open {
		return c.endBy.Add(transactionGrace)
	}
	return c.endBy
}

// takeLimits adopts the limits of a reload between transactions. Names, TLS and networks stay as they were.
func (c *Conn) takeLimits() {
	now := c.srv.opt.Load()
	if now == c.limitsOf || c.tx.open {
		return
	}
	o := *c.opt
	o.MaxMessageSize, o.MaxRecipients, o.LongLines = now.MaxMessageSize, now.MaxRecipients, now.LongLines
	o.IdleTimeout, o.DataTimeout, o.MinDataRate = now.IdleTimeout, now.DataTimeout, now.MinDataRate
	o.MaxErrors = now.MaxErrors
	c.endBy = c.endBy.Add(now.MaxSession - o.MaxSession)
	o.MaxSession = now.MaxSession
	c.opt, c.limitsOf = &o, now
}

// admitted reports whether the client is past TLS and login.
func (c *Conn) admitted() bool {
	return (c.io.tls != nil || c.opt.TLSMode == None) && c.session.Authenticated() && c.Placed()
}

// explain turns a deadline that passed between commands, or a ClientHello, into a refusal.
func (c *Conn) explain(err error) error {
	if err == errClientHello {
		return c.unexpectedTLS()
	}
	if err == nil || !isTimeout(err) {
		return err
	}
	if !time.Now().Before(c.sessionBy()) {
		return errAged
	}
	if c.admitted() {
		return errIdle
	}
	limit := span(c.opt.AuthTimeout)
	return refuse(ReasonTimeout, mail.R(421, "4.4.2", "no login within %s, closing; connect again to log in", limit),
		"no login within %s of connecting; see auth_timeout and idle_timeout", c.opt.AuthTimeout).because(err)
}

var (
	errIdle = errors.New("idle for too long")
	errAged = errors.New("open for too long")
	errQuit = errors.New("closing")
)

// finish sends the last reply that the end of the connection calls for.
func (c *Conn) finish(err error) {
	r, refused := errors.AsType[*refusal](err)
	switch {
	case refused:
		c.turnAway(r)
		return
	case errors.Is(err, errShutdown):
		c.io.send(mail.R(421, "4.3.2", "%s is shutting down, try again", c.opt.Hostname))
	case errors.Is(err, errIdle):
		c.io.send(mail.R(421, "4.4.2", "idle for %s, closing; connect again to send more", span(c.opt.IdleTimeout)))
	case errors.Is(err, errAged):
		c.io.send(mail.R(421, "4.7.0", "connected for %s, the longest allowed; connect and log in again",
			span(c.opt.MaxSession)))
	case errors.Is(err, errQuit):
	default:
		return
	}
	c.io.flush()
}

// turnAway sends the refusal, reports it and ends the connection.
func (c *Conn) turnAway(r *refusal) {
	defer c.io.sock.Close()
	c.srv.refused.Add(1)
	// On an implicit TLS port a plaintext reply would look like a broken handshake.
	mute := c.opt.TLSMode == Implicit && c.io.tls == nil && r.reason != ReasonTLS
	if mute {
		r.reply = mail.Reply{}
	}
	c.opt.Refused(Refusal{Time: time.Now(), Session: c.id, Listener: c.opt.Name, Client: c.client,
		Hello: c.helo, Reason: r.reason, Detail: r.detail, Reply: r.reply, Err: r.err})
	if !r.reply.IsZero() {
		c.io.send(r.reply)
	}
	if r.alert {
		c.io.sock.Conn.SetWriteDeadline(time.Now().Add(lingerTimeout))
		c.io.sock.Conn.Write(alertUnexpected)
	}
	overLimit := c.evicted.Load() || !c.origin.IsValid() // gets one write and no time
	silent := r.reply.IsZero() && r.reason != ReasonTLS
	if c.io.flush() != nil || silent || overLimit || c.srv.closing.Load() {
		return
	}
	c.io.end()
	c.io.discard()
}

// recoverPanic confines a panic to its session.
func (c *Conn) recoverPanic() {
	p := recover()
	if p == nil {
		return
	}
	c.opt.Logger.Error("panic in a session", "session", c.id, "listener", c.opt.Name,
		"panic", p, "stack", string(debug.Stack()))
	c.io.send(mail.R(421, "4.3.0", "internal error, try again later"))
	c.io.flush()
}

// close releases everything.
func (c *Conn) close() {
	defer c.io.sock.Close()
	defer c.leave()
	defer func() {
		if p := recover(); p != nil {
			c.opt.Logger.Error("panic at the end of a session", "session", c.id,
				"panic", p, "stack", string(debug.Stack()))
		}
	}()
	if c.session != nil {
		c.endTransaction()
		c.session.Close()
	}
	if c.io.lost == nil {
		c.io.closeTLS()
	}
}

// leave returns shared resources.
func (c *Conn) leave() {
	if c.origin.IsValid() {
		c.srv.counts.leaveFrom(c.origin)
	}
	c.io.drop()
}

// endTransaction ends an open transaction and resets the session.
func (c *Conn) endTransaction() {
	c.refused = false
	if c.tx.open {
		c.tx = transaction{}
		c.session.Reset()
	}
}
