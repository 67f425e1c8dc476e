package wire

import (
	"fmt"
	"strings"

	"postern/mail"
)

// maxRefusals bounds the session's 4yz and 5yz replies since the last accepted message, maxIdleTurns the commands since
// then. Both leave ample room for mailing lists and for connection pools that send NOOP.
const (
	maxRefusals  = 1000
	maxIdleTurns = 5000
)

// command is an entry of the command table.
type command struct {
	plain bool // answered before TLS
	bare  bool // takes no argument
	run   func(c *Conn, arg string) error
}

var commands = map[string]command{
	"EHLO":     {plain: true, run: (*Conn).greetEHLO},
	"HELO":     {plain: true, run: (*Conn).greetHELO},
	"NOOP":     {plain: true, run: (*Conn).noop},
	"RSET":     {plain: true, bare: true, run: (*Conn).rset},
	"QUIT":     {plain: true, bare: true, run: (*Conn).quit},
	"STARTTLS": {plain: true, bare: true, run: (*Conn).starttls},
	"AUTH":     {run: (*Conn).auth},
	"MAIL":     {run: (*Conn).mail},
	"RCPT":     {run: (*Conn).rcpt},
	"DATA":     {bare: true, run: (*Conn).data},
	"BDAT":     {run: (*Conn).bdat},
	"VRFY":     {run: (*Conn).vrfy},
	"HELP":     {run: (*Conn).help},
	"EXPN":     {run: (*Conn).notImplemented},
	"TURN":     {run: (*Conn).notImplemented},
	"ETRN":     {run: (*Conn).notImplemented},
	"SEND":     {run: (*Conn).notImplemented},
	"SOML":     {run: (*Conn).notImplemented},
	"SAML":     {run: (*Conn).notImplemented},
}

// splitCommand returns the verb in upper case and its argument.
func splitCommand(line string) (verb, arg string) {
	verb, arg, _ = strings.Cut(line, " ")
	if len(verb) <= 8 {
		verb = strings.ToUpper(verb)
	}
	return verb, strings.Trim(arg, " ")
}

// run runs one complete line.
func (c *Conn) run(line string) error {
	if strings.IndexByte(line, '\t') >= 0 { // a tab is white space too (RFC 5321 §4.1.1)
		line = strings.ReplaceAll(line, "\t", " ")
	}
	if c.opt.Appliance {
		line = strings.TrimRight(line, "\r") // of CR CR LF
	}
	c.line = line
	err := c.runLine(line)
	c.line = "" // a waiting connection holds no memory
	return err
}

func (c *Conn) runLine(line string) error {
	if !clean(line) {
		return c.wrong(500, "5.5.2", "control characters in a command")
	}
	if c.idleTurns++; c.idleTurns > maxIdleTurns {
		return refuse(ReasonProtocol,
			mail.R(421, "4.7.0", "too many commands without a message, closing; connect again"),
			"%d commands without a message", maxIdleTurns)
	}
	verb, arg := splitCommand(line)
	cmd, known := commands[verb]
	switch {
	case isHTTP(verb):
		return refuse(ReasonProtocol, mail.R(554, "5.5.1", "this is a mail server"),
			"a web client sent an HTTP request")
	case verb == "PROXY":
		return refuse(ReasonProxy, mail.R(554, "5.7.0", "no PROXY header is expected here"),
			"a PROXY header came after the greeting")
	case !known && c.clearPhase():
		return c.wrong(530, "5.7.0", "%s", c.opt.securityNeeded())
	case !known:
		return c.wrong(500, "5.5.1", "unknown command")
	case !cmd.plain && c.clearPhase():
		return c.needsTLS(verb)
	case cmd.bare && arg != "":
		return c.wrong(501, "5.5.4", "this command takes no argument")
	}
	return cmd.run(c, arg)
}

// clean reports whether a line has no control characters, which no command may have (RFC 5321 §4.1.2).
func clean(line string) bool {
	for i := 0; i < len(line); i++ {
		if line[i] < ' ' || line[i] == 0x7f {
			return false
		}
	}
	return true
}

func isHTTP(verb string) bool {
	switch verb {
	case "GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "CONNECT", "PATCH", "TRACE", "PRI":
		return true
	}
	return false
}

// clearPhase reports whether TLS is required but has not begun.
func (c *Conn) clearPhase() bool { return c.io.tls == nil && c.opt.TLSMode != None }

// needsTLS answers a command that requires TLS.
func (c *Conn) needsTLS(verb string) error {
	switch verb {
	case "AUTH":
		// RFC 4954 §4: the credentials may have been exposed, but were not accepted.
		return c.loginFault(538, "5.7.11", "%s", c.opt.securityNeeded())
	case "BDAT": // its chunk would be read as commands
		return refuse(ReasonProtocol, mail.R(530, "5.7.0", "%s", c.opt.securityNeeded()),
			"the client sent BDAT without STARTTLS")
	}
	return c.wrong(530, "5.7.0", "%s", c.opt.securityNeeded())
}

// wrong answers a protocol error and ends the connection after too many.
func (c *Conn) wrong(code int, enhanced, format string, args ...any) error {
	return c.violation(mail.R(code, enhanced, format, args...))
}

func (c *Conn) violation(r mail.Reply) error {
	c.io.send(r)
	c.tell(r)
	return c.countError(r)
}

// countError ends the connection after too many protocol errors. r is the reply to the last one.
func (c *Conn) countError(r mail.Reply) error {
	if c.errors++; c.errors < c.opt.MaxErrors {
		return nil
	}
	return refuse(ReasonProtocol,
		mail.R(421, "4.7.0", "too many errors, closing; the replies before say what was wrong"),
		"%d protocol errors, the last one was answered %s", c.errors, r)
}

// tell reports the refusal of a command of the transaction to a RefusalObserver. tellLogin does so for AUTH.
func (c *Conn) tell(r mail.Reply) {
	w, ok := c.session.(RefusalObserver)
	if !ok || c.line == "" {
		return
	}
	switch verb, _ := splitCommand(c.line); verb {
	case "MAIL", "RCPT", "DATA", "BDAT":
		w.Refused(mail.Printable(mail.Cut(c.line, 256)), r)
	}
}

// answer sends a reply of the session. 421 ends the connection (RFC 5321 §3.8).
func (c *Conn) answer(r mail.Reply) error {
	if r.IsZero() {
		r = mail.R(451, "4.3.0", "internal error, try again later")
	}
	c.io.send(r)
	if r.OK() {
		return nil
	}
	if r.Code == 421 {
		return errQuit
	}
	if c.refusals++; c.refusals < maxRefusals {
		return nil
	}
	return refuse(ReasonProtocol, mail.R(421, "4.7.0", "too many refused commands, closing; connect again"),
		"%d refused commands without a message, the last one was answered %s", c.refusals, r)
}

func (c *Conn) greetEHLO(arg string) error { return c.hello(arg, true) }

func (c *Conn) greetHELO(arg string) error { return c.hello(arg, false) }

// hello handles EHLO and HELO, which also reset (RFC 5321 §4.1.4). The client's name is logged but never checked, and
// may be missing, as with some devices: the login says who sends.
func (c *Conn) hello(arg string, extended bool) error {
	c.endTransaction()
	c.introduced = true
	c.helo, c.extended = mail.Cut(mail.Printable(arg), 252), extended
	if extended {
		c.io.send(mail.Reply{Code: 250, Text: c.extensions()})
	} else {
		c.io.send(mail.Reply{Code: 250, Text: c.opt.Hostname})
	}
	return nil
}

// extensions is the text of the EHLO reply.
func (c *Conn) extensions() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nPIPELINING\n8BITMIME\nSIZE "+
		"%d\nENHANCEDSTATUSCODES\nCHUNKING\nSMTPUTF8\nDSN\nLIMITS RCPTMAX=%d",
		c.opt.Hostname, c.opt.MaxMessageSize, c.opt.MaxRecipients) // LIMITS: RFC 9422
	if c.clearPhase() {
		b.WriteString("\nSTARTTLS")
	}
	if c.authOffered() {
		mechanisms := strings.Join(c.mechanisms(), " ")
		b.WriteString("\nAUTH " + mechanisms)
		if c.opt.Appliance {
			b.WriteString("\nAUTH=" + mechanisms) // which is what programs from before RFC 2554 look for
		}
	}
	return b.String()
}

func (c *Conn) noop(string) error {
	c.io.send(mail.R(250, "2.0.0", "OK"))
	return nil
}

func (c *Conn) rset(string) error {
	c.endTransaction()
	c.io.send(mail.R(250, "2.0.0", "OK"))
	return nil
}

func (c *Conn) quit(string) error {
	c.endTransaction()
	c.io.send(mail.R(221, "2.0.0", "%s closing", c.opt.Hostname))
	return errQuit
}

func (c *Conn) vrfy(arg string) error {
	if arg == "" {
		return c.wrong(501, "5.5.4", "VRFY needs an argument")
	}
	c.io.send(mail.R(252, "2.5.0", "send mail and see")) // RFC 5321 §3.5.3: does not reveal who exists
	return nil
}

func (c *Conn) help(string) error {
	c.io.send(mail.R(214, "2.0.0", "EHLO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP QUIT"))
	return nil
}

func (c *Conn) notImplemented(string) error {
	return c.wrong(502, "5.5.1", "command not implemented")
}

// starttls begins TLS. Plaintext sent after the command may have been injected by anybody, so it ends the connection
// (RFC 3207 §5, CVE-2011-0411).
func (c *Conn) starttls(string) error {
	switch {
	case c.opt.TLSMode == None:
		return c.wrong(502, "5.5.1",
			"TLS is not available here; set the connection security to none, or use another port")
	case c.io.tls != nil:
		return c.wrong(503, "5.5.1", "TLS is on already")
	case len(c.io.buffered()) > 0:
		return refuse(ReasonProtocol, mail.R(554, "5.5.1", "nothing may follow STARTTLS before its reply"),
			"the client, or somebody on the way, sent plaintext after STARTTLS")
	}
	c.io.send(mail.R(220, "2.0.0", "go ahead"))
	c.io.release()
	if err := c.io.flush(); err != nil {
		return err
	}
	c.helo, c.extended, c.introduced = "", false, false // RFC 3207 §4.2
	if err := c.handshake(); err != nil {
		return err
	}
	if c.opt.TLSMode == Auto {
		c.srv.tlsHints.sawStartTLS(c.origin)
	}
	return c.enterInside()
}
