package sink

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	readBuffer = 32 << 10
	maxErrors  = 50 // in a session
)

// errEnd ends a session on purpose.
var errEnd = errors.New("end of session")

// conn is one connection. Replies gather in out and leave when the next read would have to wait.
type conn struct {
	sink   *Sink
	raw    net.Conn
	net    net.Conn // raw, or TLS over it
	secure bool
	in     *bufio.Reader
	out    []byte
	errors int

	login string // as given; known only when authenticated is set
	auth  bool
	helo  bool
	names map[string]string // forward-paths seen, so that each is allocated once

	// the transaction
	open       bool
	from       string
	mailParams string
	rcpts      []string
	rcptParams []string
	body       *transfer // open BDAT
}

func newConn(s *Sink, raw net.Conn) *conn {
	return &conn{sink: s, raw: raw, net: raw, in: bufio.NewReaderSize(raw, readBuffer), names: make(map[string]string)}
}

func (c *conn) run() {
	c.raw.SetDeadline(time.Now().Add(idleTimeout))
	if c.sink.opts.Mode == Implicit && c.startTLS() != nil {
		return
	}
	defer func() { c.net.Close() }()
	if err := c.fault(AtConnect, ""); err != nil {
		c.flush()
		return
	}
	c.reply("220 " + c.sink.opts.Hostname + " ESMTP sink")
	for {
		line, err := c.readLine()
		if err != nil {
			return
		}
		if err := c.command(line); err != nil {
			c.flush()
			return
		}
	}
}

func (c *conn) startTLS() error {
	t := tls.Server(c.raw, c.sink.opts.TLS)
	if err := t.Handshake(); err != nil {
		return err
	}
	c.sink.handshakes.Add(1)
	c.net, c.secure = t, true
	c.in.Reset(t)
	c.helo, c.auth = false, false
	c.reset()
	return nil
}

// readLine returns the next command line without its line end; it is valid until the next read.
func (c *conn) readLine() ([]byte, error) {
	if buffered, _ := c.in.Peek(c.in.Buffered()); bytes.IndexByte(buffered, '\n') < 0 {
		if err := c.flush(); err != nil {
			return nil, err
		}
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return nil, err // also a line longer than the buffer
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

func (c *conn) reply(s string) {
	c.out = append(c.out, s...)
	c.out = append(c.out, '\r', '\n')
}

// flush sends the gathered replies, after the delay.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	if d := time.Duration(c.sink.delay.Load()); d > 0 {
		wait := time.NewTimer(d)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-c.sink.closed:
			return errEnd
		}
	}
	c.sink.flights.Add(1)
	c.raw.SetDeadline(time.Now().Add(idleTimeout))
	_, err := c.net.Write(c.out)
	c.out = c.out[:0]
	return err
}

// fault carries out what is to go wrong at a stage. It returns errFaulty when the command has been
// answered, another error when the session is to end.
func (c *conn) fault(stage Stage, recipient string) error {
	f, ok := c.sink.faults.at(stage, recipient)
	if !ok {
		return nil
	}
	switch f.Action {
	case Hangup:
		c.out = c.out[:0]
		return errEnd
	case Taken:
		return errTaken
	case Stall:
		c.flush()
		io.Copy(io.Discard, c.net)
		return errEnd
	}
	c.reply(f.Reply)
	if strings.HasPrefix(f.Reply, "421") || stage == AtConnect {
		return errEnd
	}
	return errFaulty
}

var (
	errFaulty = errors.New("answered with a fault")
	errTaken  = errors.New("taken without a reply")
)

// answer ends a command: a fault that was answered lets the session go on.
func answer(err error) error {
	if errors.Is(err, errFaulty) {
		return nil
	}
	return err
}

func (c *conn) wrong(reply string) error {
	c.reply(reply)
	if c.errors++; c.errors > maxErrors {
		c.reply("421 4.7.0 Too many errors")
		return errEnd
	}
	return nil
}

// command carries out one command. An error ends the session.
func (c *conn) command(line []byte) error {
	verb, arg := line, []byte(nil)
	if i := bytes.IndexByte(line, ' '); i >= 0 {
		verb, arg = line[:i], line[i+1:]
	}
	switch strings.ToUpper(string(verb)) {
	case "EHLO", "HELO":
		return c.ehlo(len(verb) > 0 && (verb[0] == 'E' || verb[0] == 'e'))
	case "NOOP":
		c.reply("250 2.0.0 Ok")
		return nil
	case "RSET":
		c.sink.resets.Add(1)
		c.reset()
		c.reply("250 2.0.0 Ok")
		return nil
	case "QUIT":
		c.reply("221 2.0.0 Bye")
		return errEnd
	case "STARTTLS":
		return c.commandSTARTTLS()
	}
	if c.sink.opts.Mode == StartTLS && !c.secure {
		return c.wrong("530 5.7.0 Must issue a STARTTLS command first")
	}
	switch strings.ToUpper(string(verb)) {
	case "AUTH":
		return c.commandAUTH(string(arg))
	case "MAIL":
		return c.mail(arg)
	case "RCPT":
		return c.rcpt(arg)
	case "DATA":
		return c.data()
	case "BDAT":
		return c.bdat(string(arg))
	}
	return c.wrong("500 5.5.1 Command unrecognized")
}

func (c *conn) offers(extension string) bool {
	return !slices.Contains(c.sink.opts.Without, extension)
}

func (c *conn) ehlo(extended bool) error {
	if err := c.fault(AtEHLO, ""); err != nil {
		return answer(err)
	}
	c.helo = true
	c.reset()
	if !extended {
		c.reply("250 " + c.sink.opts.Hostname)
		return nil
	}
	lines := []string{c.sink.opts.Hostname}
	for _, name := range []string{"PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "DSN", "CHUNKING"} {
		if c.offers(name) {
			lines = append(lines, name)
		}
	}
	if c.sink.opts.Size >= 0 {
		lines = append(lines, "SIZE "+strconv.FormatInt(c.limit(), 10))
	}
	if c.sink.opts.Mode == StartTLS && !c.secure && c.offers("STARTTLS") {
		lines = append(lines, "STARTTLS")
	}
	if c.authOffered() {
		lines = append(lines, "AUTH "+strings.Join(c.sink.opts.Mechanisms, " "))
	}
	for i, l := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		c.reply("250" + sep + l)
	}
	return nil
}

func (c *conn) limit() int64 {
	if c.sink.opts.Size > 0 {
		return c.sink.opts.Size
	}
	return defaultSize
}

func (c *conn) authOffered() bool {
	return c.sink.opts.Username != "" && (c.secure || c.sink.opts.Mode == None)
}

func (c *conn) commandSTARTTLS() error {
	if err := c.fault(AtStartTLS, ""); err != nil {
		return answer(err)
	}
	if c.sink.opts.Mode != StartTLS || c.secure || !c.offers("STARTTLS") {
		return c.wrong("503 5.5.1 STARTTLS is not offered")
	}
	if c.in.Buffered() > 0 {
		c.reply("503 5.5.1 Nothing may be pipelined behind STARTTLS")
		return errEnd
	}
	c.reply("220 2.0.0 Ready to start TLS")
	if err := c.flush(); err != nil {
		return err
	}
	return c.startTLS()
}

func (c *conn) commandAUTH(arg string) error {
	if !c.authOffered() || c.auth {
		return c.wrong("503 5.5.1 AUTH is not possible now")
	}
	if err := c.fault(AtAuth, ""); err != nil {
		return answer(err)
	}
	mechanism, initial, _ := strings.Cut(arg, " ")
	mechanism = strings.ToUpper(mechanism)
	if !slices.Contains(c.sink.opts.Mechanisms, mechanism) {
		return c.wrong("504 5.5.4 Unknown mechanism")
	}
	login, password, err := c.exchange(mechanism, initial)
	if err != nil {
		return err
	}
	if login != c.sink.opts.Username || password != c.sink.opts.Password {
		c.sink.authFailures.Add(1)
		return c.wrong("535 5.7.8 Authentication credentials invalid")
	}
	c.sink.logins.Add(1)
	c.login, c.auth = login, true
	c.reply("235 2.7.0 Authentication successful")
	return nil
}

// exchange reads the credentials. A response that is not what the mechanism wants gives empty ones,
// which nobody has.
func (c *conn) exchange(mechanism, initial string) (login, password string, err error) {
	if mechanism == "LOGIN" {
		if login, err = c.response(initial, "VXNlcm5hbWU6"); err != nil {
			return "", "", err
		}
		password, err = c.response("", "UGFzc3dvcmQ6")
		return login, password, err
	}
	plain, err := c.response(initial, "")
	if err != nil {
		return "", "", err
	}
	parts := strings.Split(plain, "\x00")
	if len(parts) != 3 {
		return "", "", nil
	}
	return parts[1], parts[2], nil
}

func (c *conn) response(initial, challenge string) (string, error) {
	if initial == "" {
		c.reply("334 " + challenge)
		line, err := c.readLine()
		if err != nil {
			return "", err
		}
		initial = string(line)
	}
	decoded, err := base64.StdEncoding.DecodeString(initial)
	if err != nil {
		return "", nil
	}
	return string(decoded), nil
}
