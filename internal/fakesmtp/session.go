package fakesmtp

import (
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
	Client net.Addr

	srv  *Server
	link link

	// The transaction.
	open     bool
	message  Message
	transfer *transfer // once its first octet may come
}

// Serve serves one connection to its end.
func (s *Server) Serve(nc net.Conn) {
	defer nc.Close()
	c := s.enter(nc)
	if c == nil {
		return
	}
	defer s.leave(c)
	c.link.use(nc)
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
	c.link.flush()
}

// CutAfter sends what is waiting and closes the connection after a time.
func (c *Session) CutAfter(d time.Duration) {
	c.link.flush()
	c.link.nc.SetDeadline(time.Now().Add(d))
}

// ConnectionState is that of TLS.
func (c *Session) ConnectionState() tls.ConnectionState {
	if t, ok := c.link.rw.(*tls.Conn); ok {
		return t.ConnectionState()
	}
	return tls.ConnectionState{}
}

func (c *Session) startTLS() error {
	t := tls.Server(c.link.nc, c.srv.cfg.TLS)
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
	c.link.use(t)
	return nil
}

// Reply sends lines; "\n" becomes CRLF.
func (c *Session) Reply(text string) { c.link.reply(text) }

// Say sends a reply that nobody asked for, at once. The session must be waiting for the client.
func (c *Session) Say(text string) {
	io.WriteString(c.link.rw, strings.ReplaceAll(text, "\n", "\r\n")+"\r\n")
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
		c.link.flush()
	}
	switch {
	case a.Stall:
		io.Copy(io.Discard, c.link.nc)
		return true, errEnd
	case a.Deaf != nil:
		<-a.Deaf
		return true, errEnd
	case a.closes():
		if t, ok := c.link.nc.(interface{ SetLinger(int) error }); ok && a.Reset {
			t.SetLinger(0)
		}
		return true, errEnd
	}
	return a.Reply != "" && !a.Also, nil
}

func (c *Session) command() error {
	line, err := c.link.line(maxCommand)
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
		c.Reply(c.srv.cfg.ehlo(c.TLS))
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

func (cfg *Config) ehlo(secure bool) string {
	lines := append([]string{cfg.Hostname}, cfg.Extensions...)
	if cfg.TLS != nil && !secure {
		lines = append(lines, "STARTTLS")
	}
	if m := cfg.Mechanisms; len(m) > 0 && (secure || cfg.TLS == nil) {
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
	case c.link.br.Buffered() > 0: // would become commands inside TLS, RFC 3207 §4.2
		c.Reply("503 5.5.1 nothing may be pipelined behind STARTTLS")
		return errEnd
	}
	c.Reply("220 2.0.0 go ahead")
	if err := c.link.flush(); err != nil {
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
