package fakesmtp

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

const (
	readBuffer = 64 << 10
	maxCommand = 512   // octets of a line, RFC 5321 §4.5.3.1.4, as strict as it may be
	maxAuth    = 12288 // octets of a line of an AUTH exchange, RFC 4954 §4
)

var (
	errEnd      = errors.New("end of session")
	errLongLine = errors.New("line too long")
)

// Session is one connection.
type Session struct {
	Number int // of the connection, from 1
	Taken  int // messages taken on it
	TLS    bool
	User   string

	srv *Server
	nc  net.Conn // the socket
	rw  net.Conn // nc, or TLS over it
	br  *bufio.Reader
	out []byte // replies that have not left yet

	answered bool // since the client last sent

	// The transaction.
	open    bool
	message Message
	body    io.Writer // where its octets go, once the first has come
	size    int64     // octets that came
	reading bool      // its octets
}

// Serve serves one connection to its end.
func (s *Server) Serve(nc net.Conn) {
	defer nc.Close()
	c := s.enter(nc)
	if c == nil {
		return
	}
	defer s.leave(c)
	c.use(nc)
	if s.cfg.Implicit && c.startTLS() != nil {
		return
	}
	if done, err := c.ask(Connect, ""); err != nil {
		return
	} else if !done {
		c.Reply("220 " + s.cfg.Hostname + " ESMTP")
	}
	for c.command() == nil {
	}
	c.flush()
}

func (c *Session) use(rw net.Conn) {
	c.rw = rw
	c.br = bufio.NewReaderSize(&turns{c}, readBuffer)
}

// turns sends the replies before it waits for the client, and counts the client's flights.
type turns struct{ c *Session }

func (t *turns) Read(b []byte) (int, error) {
	c := t.c
	if !c.reading || !c.srv.cfg.Gather {
		if err := c.flush(); err != nil {
			return 0, err
		}
	}
	n, err := c.rw.Read(b)
	if n > 0 && c.answered {
		c.answered = false
		c.srv.count(func(n *Counts) { n.Flights++ })
	}
	return n, err
}

// flush sends the replies that wait, after the delay.
func (c *Session) flush() error {
	cfg := &c.srv.cfg
	if len(c.out) == 0 {
		return nil
	}
	if cfg.Delay != nil {
		if err := c.pause(cfg.Delay()); err != nil {
			return err
		}
	}
	if cfg.Idle > 0 {
		c.nc.SetDeadline(time.Now().Add(cfg.Idle))
	}
	c.answered = true
	_, err := c.rw.Write(c.out)
	c.out = c.out[:0]
	return err
}

func (c *Session) pause(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-c.srv.done:
		return errEnd
	}
}

// CutAfter sends what is waiting and closes the connection after a time.
func (c *Session) CutAfter(d time.Duration) {
	c.flush()
	c.nc.SetDeadline(time.Now().Add(d))
}

// ConnectionState is that of TLS.
func (c *Session) ConnectionState() tls.ConnectionState {
	if t, ok := c.rw.(*tls.Conn); ok {
		return t.ConnectionState()
	}
	return tls.ConnectionState{}
}

func (c *Session) startTLS() error {
	t := tls.Server(c.nc, c.srv.cfg.TLS)
	if err := t.Handshake(); err != nil {
		return err
	}
	c.srv.count(func(n *Counts) {
		n.Handshakes++
		if t.ConnectionState().DidResume {
			n.Resumed++
		}
	})
	c.TLS = true
	c.use(t)
	return nil
}

// Reply sends lines; "\n" becomes CRLF.
func (c *Session) Reply(text string) {
	if strings.Contains(text, "\n") {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	c.out = append(append(c.out, text...), '\r', '\n')
}

// Say sends a reply that nobody asked for, at once. The session must be waiting for the client.
func (c *Session) Say(text string) {
	io.WriteString(c.rw, strings.ReplaceAll(text, "\n", "\r\n")+"\r\n")
}

// ask asks the hook about a command. done: the command has been answered.
func (c *Session) ask(verb, line string) (done bool, err error) {
	hook := c.srv.hook.Load()
	if hook == nil {
		return false, nil
	}
	return c.do((*hook)(c, verb, line))
}

func (c *Session) do(a Action) (done bool, err error) {
	if a.Reply != "" {
		c.Reply(a.Reply)
	}
	if a.Flush || a.Stall || a.Deaf != nil || a.closes() {
		c.flush()
	}
	switch {
	case a.Stall:
		io.Copy(io.Discard, c.nc)
		return true, errEnd
	case a.Deaf != nil:
		<-a.Deaf
		return true, errEnd
	case a.closes():
		if t, ok := c.nc.(interface{ SetLinger(int) error }); ok && a.Reset {
			t.SetLinger(0)
		}
		return true, errEnd
	}
	return a.Reply != "" && !a.Also, nil
}

// line reads a line without its end.
func (c *Session) line(most int) (string, error) {
	b, err := c.br.ReadSlice('\n')
	long := len(b) > most
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = c.br.ReadSlice('\n')
	}
	switch {
	case err != nil:
		return "", err
	case long:
		return "", errLongLine
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

func (c *Session) command() error {
	line, err := c.line(maxCommand)
	if errors.Is(err, errLongLine) {
		return c.answer("", line, "500 5.5.6 line too long")
	}
	if err != nil {
		return err
	}
	c.srv.note(line)
	verb, args, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	switch verb {
	case "RSET":
		c.srv.count(func(n *Counts) { n.Resets++ })
	case "QUIT":
		c.srv.count(func(n *Counts) { n.Quits++ })
	case "BDAT":
		if !c.srv.cfg.NoBDAT {
			return c.bdat(line, args)
		}
	}
	if done, err := c.ask(verb, line); done || err != nil {
		if verb == "QUIT" {
			return errEnd
		}
		return err
	}
	return c.perform(verb, args)
}

// answer asks the hook, then answers a command that has no other effect.
func (c *Session) answer(verb, line, reply string) error {
	done, err := c.ask(verb, line)
	if !done && err == nil {
		c.Reply(reply)
	}
	return err
}

func (c *Session) perform(verb, args string) error {
	switch verb {
	case "EHLO":
		c.reset()
		c.Reply(c.ehlo())
	case "HELO":
		c.reset()
		c.Reply("250 " + c.srv.cfg.Hostname)
	case "NOOP":
		c.Reply("250 2.0.0 ok")
	case "RSET":
		c.reset()
		c.Reply("250 2.0.0 flushed")
	case "QUIT":
		c.Reply("221 2.0.0 bye")
		return errEnd
	case "STARTTLS":
		return c.startTLSCommand()
	case "AUTH":
		return c.auth(args)
	case "MAIL":
		c.mail(args)
	case "RCPT":
		c.rcpt(args)
	case "DATA":
		return c.data()
	default:
		c.Reply("500 5.5.1 unknown command")
	}
	return nil
}

func (c *Session) ehlo() string {
	cfg := &c.srv.cfg
	lines := append([]string{cfg.Hostname}, cfg.Extensions...)
	if cfg.TLS != nil && !c.TLS {
		lines = append(lines, "STARTTLS")
	}
	if m := cfg.Mechanisms; len(m) > 0 && (c.TLS || cfg.TLS == nil) {
		sep := " "
		if cfg.AuthEquals {
			sep = "="
		}
		lines = append(lines, "AUTH"+sep+strings.Join(m, " "))
	}
	return Multi(250, lines...)
}

// Multi makes a reply of many lines.
func Multi(code int, lines ...string) string {
	first := fmt.Sprintf("%d-", code)
	last := len(lines) - 1
	var b strings.Builder
	for _, l := range lines[:last] {
		b.WriteString(first + l + "\n")
	}
	return b.String() + strconv.Itoa(code) + " " + lines[last]
}

func (c *Session) startTLSCommand() error {
	switch {
	case c.srv.cfg.TLS == nil || c.TLS:
		c.Reply("502 5.5.1 not offered")
		return nil
	case c.br.Buffered() > 0: // would become commands inside TLS, RFC 3207 §4.2
		c.Reply("503 5.5.1 nothing may be pipelined behind STARTTLS")
		return errEnd
	}
	c.Reply("220 2.0.0 go ahead")
	if err := c.flush(); err != nil {
		return err
	}
	c.reset()
	return c.startTLS()
}

// barred answers a command that wants TLS or a login first.
func (c *Session) barred(wantsLogin bool) bool {
	cfg := &c.srv.cfg
	switch {
	case !cfg.Require:
	case cfg.TLS != nil && !c.TLS:
		c.Reply("530 5.7.0 must issue a STARTTLS command first")
		return true
	case wantsLogin && c.User == "" && (len(cfg.Users) > 0 || cfg.Login != nil):
		c.Reply("530 5.7.0 authentication required")
		return true
	}
	return false
}

func (c *Session) mail(args string) {
	_, parameters, ok := Path(args)
	switch {
	case c.barred(true):
	case c.open:
		c.Reply("503 5.5.1 nested MAIL")
	case !ok || !strings.HasPrefix(strings.ToUpper(args), "FROM:"):
		c.Reply("501 5.5.4 MAIL FROM:<address>")
	case c.srv.cfg.Size > 0 && declared(parameters) > c.srv.cfg.Size:
		c.Reply("552 5.3.4 message too big")
	default:
		c.open, c.message.From = true, args
		c.Reply("250 2.1.0 sender ok")
	}
}

// declared is the SIZE of MAIL.
func declared(parameters string) int64 {
	for p := range strings.FieldsSeq(parameters) {
		if name, value, _ := strings.Cut(p, "="); strings.EqualFold(name, "SIZE") {
			n, _ := strconv.ParseInt(value, 10, 64)
			return n
		}
	}
	return 0
}

func (c *Session) rcpt(args string) {
	address, _, ok := Path(args)
	switch most := c.srv.cfg.MaxRecipients; {
	case !c.open:
		c.Reply("503 5.5.1 MAIL first")
	case !ok || address == "" || !strings.HasPrefix(strings.ToUpper(args), "TO:"):
		c.Reply("501 5.5.4 RCPT TO:<address>")
	case most > 0 && len(c.message.To) >= most:
		c.Reply("452 4.5.3 too many recipients")
	default:
		c.message.To = append(c.message.To, args)
		c.Reply("250 2.1.5 recipient ok")
	}
}

func (c *Session) reset() {
	c.open, c.message, c.body, c.size = false, Message{}, nil, 0
}
