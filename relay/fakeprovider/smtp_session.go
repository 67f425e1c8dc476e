package fakeprovider

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

// Bounds of a session. RFC 4954 §4 allows 12 288 octets for a line of AUTH; commands have RFC 5321 §4.5.3.1.4's.
const (
	maxCommand  = 512
	maxAuthLine = 12288
	maxMessage  = 150 << 20
	idleTime    = 5 * time.Minute
)

var errLongLine = errors.New("line too long")

// smtpSession is one connection.
type smtpSession struct {
	s    *SMTP
	raw  net.Conn
	rw   net.Conn
	br   *bufio.Reader
	bw   *bufio.Writer
	tls  bool
	user string
	a    *Arrival // the transaction
	data []byte   // of BDAT chunks
}

// Serve serves one connection until it ends.
func (s *SMTP) Serve(nc net.Conn) {
	defer nc.Close()
	if !s.enter(nc) {
		return
	}
	c := &smtpSession{s: s, raw: nc}
	c.use(nc)
	defer func() { s.exit(nc, c.user) }()
	c.reply("220 " + s.o.Hostname + " Microsoft ESMTP MAIL Service ready (fake)")
	for {
		line, err := c.line(maxCommand)
		if errors.Is(err, errLongLine) {
			c.reply("500 5.3.3 Unrecognized command 'line too long'")
			continue
		}
		if err != nil || !c.command(line) {
			_ = c.bw.Flush()
			return
		}
	}
}

func (c *smtpSession) use(nc net.Conn) {
	c.rw, c.br, c.bw = nc, bufio.NewReaderSize(nc, maxAuthLine+2), bufio.NewWriter(nc)
}

// line reads one line without its end. What is waiting goes out before it waits for more.
func (c *smtpSession) line(most int) (string, error) {
	if c.br.Buffered() == 0 {
		if err := c.bw.Flush(); err != nil {
			return "", err
		}
	}
	_ = c.raw.SetDeadline(time.Now().Add(idleTime))
	b, err := c.br.ReadSlice('\n')
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = c.br.ReadSlice('\n')
		b = bytes.Repeat([]byte{'x'}, most+3)
	}
	if err != nil {
		return "", err
	}
	if len(b) > most+2 {
		return "", errLongLine
	}
	return string(bytes.TrimRight(b, "\r\n")), nil
}

func (c *smtpSession) reply(lines ...string) {
	for _, l := range lines {
		_, _ = c.bw.WriteString(l + "\r\n")
	}
}

// command does one command and reports whether the connection goes on.
func (c *smtpSession) command(line string) bool {
	verb, args, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	switch verb {
	case "EHLO", "HELO":
		c.a, c.data = nil, nil
		c.reply(c.hello()...)
	case "STARTTLS":
		return c.startTLS()
	case "NOOP":
		c.reply("250 2.0.0 OK")
	case "RSET":
		c.a, c.data = nil, nil
		c.reply("250 2.0.0 Resetting")
	case "QUIT":
		c.reply("221 2.0.0 Service closing transmission channel")
		return false
	default:
		return c.secured(verb, args)
	}
	return true
}

func (c *smtpSession) hello() []string {
	lines := []string{"250-" + c.s.o.Hostname + " Hello", "250-SIZE " + strconv.Itoa(maxMessage), "250-PIPELINING", "250-DSN", "250-ENHANCEDSTATUSCODES"}
	if c.tls {
		lines = append(lines, "250-AUTH LOGIN XOAUTH2") // no PLAIN
	} else {
		lines = append(lines, "250-STARTTLS")
	}
	return append(lines, "250-8BITMIME", "250-BINARYMIME", "250-CHUNKING", "250 SMTPUTF8")
}

func (c *smtpSession) startTLS() bool {
	if c.tls {
		c.reply("503 5.5.1 TLS is on")
		return true
	}
	c.reply("220 2.0.0 SMTP server ready")
	if c.bw.Flush() != nil || c.br.Buffered() > 0 {
		return false
	}
	t := tls.Server(c.raw, c.s.o.TLS)
	if t.Handshake() != nil {
		return false
	}
	c.tls = true
	c.use(t)
	return true
}

// secured are the commands that need TLS, and all but AUTH a login.
func (c *smtpSession) secured(verb, args string) bool {
	switch {
	case !slices.Contains([]string{"AUTH", "MAIL", "RCPT", "DATA", "BDAT"}, verb):
		c.reply("500 5.3.3 Unrecognized command")
	case !c.tls:
		c.reply("530 5.7.0 Must issue a STARTTLS command first")
	case verb == "AUTH":
		return c.auth(args)
	case verb == "BDAT":
		return c.bdat(args)
	case c.user == "":
		c.reply("530 5.7.57 Client not authenticated to send mail.")
	case verb == "MAIL":
		c.mail(args)
	case verb == "RCPT":
		c.rcpt(args)
	default:
		return c.dataCommand()
	}
	return true
}

// auth is AUTH (RFC 4954). LOGIN is offered and refused: passwords are switched off.
func (c *smtpSession) auth(args string) bool {
	f := strings.Fields(args)
	if c.user != "" || len(f) == 0 {
		c.reply("503 5.5.2 Bad sequence of commands")
		return true
	}
	switch strings.ToUpper(f[0]) {
	case "XOAUTH2":
	case "LOGIN":
		return c.loginMechanism(f[1:])
	default:
		c.reply("504 5.7.4 Unrecognized authentication type")
		return true
	}
	if len(f) == 1 {
		c.reply("334 ")
		line, err := c.line(maxAuthLine)
		if err != nil {
			return false
		}
		f = append(f, line)
	}
	return c.xoauth2(f[1])
}

func (c *smtpSession) loginMechanism(initial []string) bool {
	prompts := []string{"334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"}[len(initial):]
	for _, prompt := range prompts {
		c.reply(prompt)
		if _, err := c.line(maxAuthLine); err != nil {
			return false
		}
	}
	c.s.loginRefused()
	c.reply("535 5.7.139 Authentication unsuccessful, basic authentication is disabled.")
	return true
}

func (c *smtpSession) xoauth2(line string) bool {
	text, err := base64.StdEncoding.DecodeString(line)
	user, rest, _ := strings.Cut(strings.TrimPrefix(string(text), "user="), "\x01")
	token, ok := strings.CutSuffix(strings.TrimPrefix(rest, "auth=Bearer "), "\x01\x01")
	if err != nil || !ok || user == "" {
		c.s.loginRefused()
		c.reply("501 5.5.4 Invalid XOAUTH2 auth data")
		return true
	}
	regime := c.s.present()
	if !c.s.admits(user, token) {
		c.s.loginRefused()
		if regime.Explain {
			c.reply("334 " + base64.StdEncoding.EncodeToString([]byte(`{"status":"401","schemes":"Bearer","scope":"https://mail.google.com/"}`)))
			if answer, err := c.line(maxCommand); err != nil || answer != "" {
				c.reply("501 5.5.2 an empty line was expected")
				return err == nil
			}
		}
		c.reply("535 5.7.3 Authentication unsuccessful [" + c.s.o.Hostname + "]")
		return true
	}
	user = strings.ToLower(user)
	if regime.Login != nil {
		if refusal := regime.Login(user); refusal != "" {
			c.s.loginRefused()
			c.reply(refusal)
			return true
		}
	}
	c.s.login(user)
	c.user = user
	c.reply("235 2.7.0 Authentication successful")
	return true
}

// admits reports whether the token is good for the mailbox.
func (s *SMTP) admits(user, token string) bool {
	identity, scopes, ok := s.o.Valid(token)
	if !ok || s.o.Scope != "" && !slices.Contains(scopes, s.o.Scope) {
		return false
	}
	exists := len(s.o.Mailboxes) == 0 || slices.ContainsFunc(s.o.Mailboxes, func(m string) bool { return strings.EqualFold(m, user) })
	return exists && (identity == AnyMailbox || strings.EqualFold(identity, user))
}

// path takes the address out of "FROM:<a@b> SIZE=1".
func path(args, prefix string) (string, bool) {
	if len(args) < len(prefix) || !strings.EqualFold(args[:len(prefix)], prefix) {
		return "", false
	}
	rest, ok := strings.CutPrefix(strings.TrimSpace(args[len(prefix):]), "<")
	address, _, end := strings.Cut(rest, ">")
	return address, ok && end
}

func (c *smtpSession) mail(args string) {
	from, ok := path(args, "FROM:")
	switch {
	case !ok:
		c.reply("501 5.5.4 Invalid arguments")
	case c.a != nil:
		c.reply("503 5.5.2 Sender already specified")
	default:
		c.a = &Arrival{Mailbox: c.user, From: strings.ToLower(from), Protocol: "XOAUTH2"}
		if t, ok := c.rw.(*tls.Conn); ok {
			c.a.TLS = tls.VersionName(t.ConnectionState().Version)
		}
		c.reply("250 2.1.0 Sender OK")
	}
}

func (c *smtpSession) rcpt(args string) {
	to, ok := path(args, "TO:")
	switch {
	case c.a == nil:
		c.reply("503 5.5.2 Need mail command")
	case !ok || to == "":
		c.reply("501 5.5.4 Invalid arguments")
	default:
		c.a.To = append(c.a.To, to)
		c.reply("250 2.1.5 Recipient OK")
	}
}

func (c *smtpSession) dataCommand() bool {
	if c.a == nil || len(c.a.To) == 0 {
		c.reply("503 5.5.2 Need rcpt command")
		return true
	}
	c.reply("354 Start mail input; end with <CRLF>.<CRLF>")
	if c.bw.Flush() != nil {
		return false
	}
	for {
		line, err := c.br.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) || len(c.data)+len(line) > maxMessage {
			return false
		}
		begins := len(c.data) == 0 || c.data[len(c.data)-1] == '\n'
		if begins && string(line) == ".\r\n" {
			return c.end()
		}
		if begins && line[0] == '.' { // RFC 5321 §4.5.2
			line = line[1:]
		}
		c.data = append(c.data, line...)
	}
}

// bdat reads a chunk (RFC 3030 §2); it is read even where it is of no use.
func (c *smtpSession) bdat(args string) bool {
	f := strings.Fields(args)
	n, err := 0, error(nil)
	if len(f) > 0 {
		n, err = strconv.Atoi(f[0])
	}
	if len(f) == 0 || err != nil || n < 0 || len(c.data)+n > maxMessage {
		c.reply("501 5.5.4 Invalid arguments")
		return false
	}
	chunk := make([]byte, n)
	if _, err := io.ReadFull(c.br, chunk); err != nil {
		return false
	}
	if c.a == nil || len(c.a.To) == 0 {
		c.reply("503 5.5.2 Need rcpt command")
		return true
	}
	c.data = append(c.data, chunk...)
	if len(f) < 2 || !strings.EqualFold(f[1], "LAST") {
		c.reply("250 2.0.0 " + f[0] + " bytes received")
		return true
	}
	return c.end()
}

// end is behind the last octet of a message.
func (c *smtpSession) end() bool {
	c.a.Data = c.data
	a := *c.a
	c.a, c.data = nil, nil
	if latency := c.s.present().Latency; latency > 0 {
		time.Sleep(latency)
	}
	reply, silent := c.s.take(a)
	if silent { // until the client goes, or the server is closed
		_ = c.bw.Flush()
		if patience := c.s.present().Patience; patience > 0 {
			_ = c.raw.SetDeadline(time.Now().Add(patience))
		}
		_, _ = io.Copy(io.Discard, c.br)
		return false
	}
	c.reply(reply)
	return true
}
