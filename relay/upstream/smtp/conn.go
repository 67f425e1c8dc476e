package smtp

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"

	"syscall"
	"time"

	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/internal/scrub"
	"postern/relay/upstream/replies"
	"postern/relay/upstream/via"
)

// conn is one connection to the upstream, from dial to close. It is used by one goroutine at a time; during a large
// transaction a second one writes. Only due is shared.
type conn struct {
	u    *Upstream
	peer string // for people: host and address

	nc  net.Conn // the socket
	rw  net.Conn // the socket, or TLS over it
	br  *bufio.Reader
	raw syscall.RawConn // of the socket, nil where there is none

	secrets *scrub.Scrubber // that went out: they do not come back into log, trace, queue or report
	ext     extensions
	state   *tls.ConnectionState // nil without TLS
	secure  bool                 // TLS, verified as configured

	born, idleSince time.Time
	messages        int
	dirty           bool // the last transaction did not end well: RSET comes before the next
	broken          bool // not to be used again, nor worth a QUIT
	rcptLearned     int  // recipients that it took before it said too many, 0: unknown

	known []string // habits of the server, see habits
	doubt *doubt   // a parameter that may be refused though offered, nil: none
	notes []string // what was learned and not told yet

	due deadlines
}

// step is what a test wants to see of each phase of open; nil otherwise.
type step func(name string, run func() (seen string, f *fault)) *fault

func runStep(_ string, run func() (string, *fault)) *fault {
	_, f := run()
	return f
}

// open makes a connection ready for MAIL: dial, greeting, EHLO, TLS, EHLO, AUTH.
func (u *Upstream) open(ctx context.Context, identity string, each step) (*conn, *fault) {
	if each == nil {
		each = runStep
	}
	if u.cfg.Token != nil {
		return u.openWithToken(ctx, identity, each)
	}
	return u.openAs(ctx, identity, "", each)
}

// openAs opens one connection, with a token where logins are made with one.
func (u *Upstream) openAs(ctx context.Context, identity, token string, each step) (*conn, *fault) {
	c := &conn{u: u, peer: u.cfg.Host, born: time.Now(), secrets: scrub.New(u.cfg.Password, token)}
	f := each("connect", func() (string, *fault) {
		nc, f := u.dial(ctx)
		if f != nil {
			return "", f
		}
		c.attach(nc)
		if t, ok := nc.(*via.Conn); ok {
			return t.Through(), nil
		}
		return nc.RemoteAddr().String(), nil
	})
	if f != nil {
		return nil, f
	}
	u.mu.Lock()
	u.conns[c] = struct{}{}
	u.mu.Unlock()
	defer c.due.watch(ctx)()
	if f := c.handshake(ctx, identity, token, each); f != nil {
		f.notes = c.takeNotes()
		if token != "" && f.tokenRefused() && !c.broken {
			c.quit() // another connection may follow at once, and the upstream counts them
		} else {
			c.leave()
		}
		u.forget(c)
		return nil, f
	}
	return c, nil
}

func (c *conn) attach(nc net.Conn) {
	c.nc, c.rw, c.due.nc, c.due.timeouts = nc, nc, nc, &c.u.cfg.Timeouts
	c.br = bufio.NewReaderSize(nc, replies.BufferSize)
	if _, ok := nc.(*via.Conn); ok {
		c.peer += " (through a proxy)"
	} else if a := nc.RemoteAddr(); a != nil {
		if host, _, err := net.SplitHostPort(a.String()); err == nil && host != c.peer {
			c.peer += " (" + host + ")"
		}
	}
	if sc, ok := nc.(syscall.Conn); ok {
		c.raw, _ = sc.SyscallConn()
	}
}

func (c *conn) handshake(ctx context.Context, identity, token string, each step) *fault {
	cfg := &c.u.cfg
	if cfg.TLS == upstream.TLSImplicit {
		if f := each("tls", c.startHandshake); f != nil {
			return f
		}
	}
	if f := each("greeting", func() (string, *fault) { return c.greeting(ctx) }); f != nil {
		return f
	}
	if f := each("ehlo", c.ehlo); f != nil {
		return f
	}
	if cfg.TLS == upstream.TLSStartTLS {
		if f := each("starttls", c.startTLS); f != nil {
			return f
		}
		if f := each("ehlo", c.ehlo); f != nil { // RFC 3207 §4.2: what was said before is forgotten
			return f
		}
	}
	if cfg.Username == "" && identity == "" {
		return nil
	}
	return each("auth", func() (string, *fault) { return c.auth(identity, token) })
}

func (c *conn) greeting(ctx context.Context) (string, *fault) {
	limit := c.u.cfg.Timeouts.Greeting
	if c.state == nil {
		left, f := c.hearClear(ctx, limit)
		if f != nil {
			return "", f
		}
		limit = left
	}
	r, err := c.reply(limit, true)
	if err != nil {
		return "", c.lost(mail.StageGreeting, err)
	}
	if r.Code != 220 {
		return "", c.refused(mail.StageGreeting, r)
	}
	return r.Text, nil
}

func (c *conn) ehlo() (string, *fault) {
	r, f := c.command(mail.StageEHLO, "EHLO "+c.u.cfg.LocalName+"\r\n")
	if f != nil {
		return "", f
	}
	// RFC 5321 §3.2: a server of old is greeted with HELO. It can neither secure a connection nor log us in.
	if r.Permanent() && c.u.cfg.TLS != upstream.TLSStartTLS && c.u.cfg.Username == "" && c.u.cfg.Token == nil {
		refused := r
		if r, f = c.command(mail.StageEHLO, "HELO "+c.u.cfg.LocalName+"\r\n"); f != nil {
			return "", f
		}
		if r.Permanent() && refused.Code != 500 && refused.Code != 502 {
			r = refused // it says more of why we are not wanted than what HELO is told
		}
		if r.Code == 250 {
			r.Text = ""
		}
	}
	if r.Code != 250 {
		return "", c.refused(mail.StageEHLO, r)
	}
	c.ext = parseEHLO(r)
	c.ext.adjust(c.u.cfg.AssumeExtensions, c.u.cfg.DenyExtensions, c.u.cfg.MaxMessageSize)
	c.heed()
	return r.Text, nil
}

func (c *conn) startTLS() (string, *fault) {
	if !c.ext.startTLS {
		return "", c.accountFault(mail.StageTLS, "4.7.5", nil,
			c.peer+" does not offer STARTTLS, which is required; nothing was sent")
	}
	r, f := c.command(mail.StageTLS, "STARTTLS\r\n")
	if f != nil {
		return "", f
	}
	if r.Code != 220 {
		return "", c.refused(mail.StageTLS, r)
	}
	// Octets that came in clear behind the reply would be taken for the secured server's (response injection).
	if c.said() {
		return "", c.accountFault(mail.StageTLS, "4.7.5", errInjection,
			c.peer+" sent more than a reply to STARTTLS; somebody may be tampering with the connection")
	}
	return c.startHandshake()
}

func (c *conn) startHandshake() (string, *fault) {
	t := tls.Client(c.nc, c.u.tls)
	c.due.set(c.u.cfg.Timeouts.TLS)
	if err := t.Handshake(); err != nil {
		return "", c.handshakeFault(err)
	}
	state := t.ConnectionState()
	c.rw, c.state, c.secure = t, &state, true
	c.br.Reset(t)
	return describeTLS(&state), nil
}

// command sends one line and reads its reply, whatever it is.
func (c *conn) command(stage mail.Stage, line string) (mail.Reply, *fault) {
	if c.said() { // nobody asked for that
		return mail.Reply{}, c.trouble(stage, errOutOfStep, "sent a reply to no command")
	}
	if err := c.write([]byte(line)); err != nil {
		return mail.Reply{}, c.lost(stage, err)
	}
	r, err := c.reply(c.u.cfg.Timeouts.Command, true)
	if err != nil {
		return mail.Reply{}, c.lost(stage, err)
	}
	return r, nil
}

// said reports whether the upstream has said something that was not read yet. Empty lines are nothing said.
func (c *conn) said() bool {
	for n := c.br.Buffered(); n > 0; n = c.br.Buffered() {
		b, _ := c.br.Peek(min(n, 2))
		switch {
		case b[0] == '\n':
			c.br.Discard(1)
		case len(b) == 2 && b[0] == '\r' && b[1] == '\n':
			c.br.Discard(2)
		default:
			return true
		}
	}
	return false
}

// buffered is what was received and not read yet.
func (c *conn) buffered() []byte {
	b, _ := c.br.Peek(c.br.Buffered())
	return b
}

// reply reads one reply within d. The time counts for the whole reply: a peer that drips octets gains nothing.
func (c *conn) reply(d time.Duration, keep bool) (mail.Reply, error) {
	if c.br.Buffered() == 0 { // else the deadline of the reply before it holds, which is earlier
		c.due.read(d)
	}
	r, err := replies.Read(c.br, keep)
	if err != nil {
		c.broken = true
	}
	return r, err
}

// write writes b within Timeouts.DataBlock.
func (c *conn) write(b []byte) error { return c.writeWithin(c.u.cfg.Timeouts.DataBlock, b) }

func (c *conn) writeWithin(d time.Duration, b []byte) error {
	c.due.write(d)
	_, err := c.rw.Write(b)
	if err != nil {
		c.broken = true
	}
	return err
}

// spent reports whether the connection has carried its share. It costs nothing to ask.
func (c *conn) spent(now time.Time) bool {
	most := c.u.cfg.MessagesPerConnection
	if c.ext.mailMax > 0 {
		most = min(most, c.ext.mailMax)
	}
	if c.has(habitTalks) { // what comes late must not answer the next message
		most = 1
	}
	return c.messages >= most || now.Sub(c.born) >= c.u.cfg.MaxAge || c.due.interrupted()
}

// dead reports whether an idle connection has ended or has something to say, which can only be a farewell.
func (c *conn) dead() bool {
	if c.said() {
		c.overheard()
		return true
	}
	c.nc.SetReadDeadline(time.Time{})
	switch pending(c.raw) {
	case nothingPending:
		return false
	case endPending:
		return true
	}
	// In TLS it may be a session ticket, which says nothing.
	c.due.read(5 * time.Millisecond)
	_, err := c.br.Peek(1)
	if err == nil && !c.said() {
		return false // an empty line, which says nothing
	}
	if err == nil {
		c.overheard()
	}
	return !isTimeout(err)
}

// overheard classifies what an idle connection said: a farewell, or one more reply to what was answered before.
func (c *conn) overheard() {
	if !farewell(c.buffered()) {
		c.learn(habitTalks, wordsTalks)
	}
}

// quit says QUIT, waits until the upstream has let go, and closes. Providers count what is open on their side.
func (c *conn) quit() {
	defer c.close()
	c.due.write(c.u.cfg.Timeouts.Quit)
	if _, err := c.rw.Write([]byte("QUIT\r\n")); err != nil {
		return
	}
	c.due.read(c.u.cfg.Timeouts.Quit)
	if _, err := replies.Read(c.br, false); err == nil {
		c.due.read(min(c.u.cfg.Timeouts.Quit, time.Second))
		c.br.ReadByte()
	}
}

// leave says QUIT where that is worth it, but does not wait: somebody waits for the result.
func (c *conn) leave() {
	if !c.broken {
		c.due.write(time.Second)
		c.rw.Write([]byte("QUIT\r\n"))
	}
	c.close()
}

// close closes without a word to the other side, except TLS's own where nothing was left half written.
func (c *conn) close() {
	if c.broken {
		c.nc.Close()
		return
	}
	c.nc.SetWriteDeadline(time.Now().Add(time.Second))
	c.rw.Close()
}
