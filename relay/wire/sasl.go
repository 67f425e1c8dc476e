package wire

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"postern/mail"
)

const (
	// maxRounds bounds the challenges of one SASL exchange; SCRAM needs three.
	maxRounds = 10
	// maxAuthFailures is how many failed AUTH end the connection with 421.
	maxAuthFailures = 3
)

// authOffered reports whether the EHLO reply lists AUTH.
func (c *Conn) authOffered() bool {
	return c.passwordsTravel() && c.Placed() && len(c.mechanisms()) > 0
}

// mechanisms are those of the listener that this connection can do.
func (c *Conn) mechanisms() []string {
	able := make([]string, 0, len(c.opt.Mechanisms))
	for _, m := range c.opt.Mechanisms {
		if strings.HasSuffix(m, "-PLUS") && len(c.Bindings()) == 0 || m == "EXTERNAL" && !c.certified() ||
			c.opt.Withheld != nil && c.opt.Withheld(m) {
			continue
		}
		able = append(able, m)
	}
	return able
}

// certified reports whether the client has shown a certificate.
func (c *Conn) certified() bool {
	return c.io.tls != nil && len(c.io.tls.ConnectionState().PeerCertificates) > 0
}

// Binding is a channel binding: its type as RFC 5929 and RFC 9266 name it, and its data.
type Binding struct {
	Type string
	Data []byte
}

// Bindings are those that a client may bind a login to, where the listener offers mechanisms with -PLUS. Below TLS 1.3
// they hold only if the master secret covers the handshake (RFC 7627), without which keys cannot be exported: otherwise
// somebody in between can have the same values on both sides.
func (c *Conn) Bindings() []Binding {
	if c.io.tls == nil || !slices.ContainsFunc(c.opt.Mechanisms, func(m string) bool {
		return strings.HasSuffix(m, "-PLUS")
	}) {
		return nil
	}
	state := c.io.tls.ConnectionState()
	data, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32) // RFC 9266 §2
	if err != nil {
		return nil
	}
	list := []Binding{{"tls-exporter", data}}
	if len(state.TLSUnique) > 0 { // below TLS 1.3
		list = append(list, Binding{"tls-unique", state.TLSUnique})
	}
	return list
}

// ClientCAs are the authorities whose certificates prove a login; nil: none.
func (c *Conn) ClientCAs() *x509.CertPool {
	if c.opt.TLS == nil {
		return nil
	}
	return c.opt.TLS.ClientCAs
}

// passwordsTravel reports whether passwords may be sent on this connection.
func (c *Conn) passwordsTravel() bool { return c.io.tls != nil || c.opt.plaintextAuth() }

// knownMechanisms are those that clients ask for. Only these appear in the log: anything else after AUTH may be a
// password.
var knownMechanisms = []string{
	"PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "NTLM", "GSSAPI", "GSS-SPNEGO",
	"NEGOTIATE", "KERBEROS_V4", "EXTERNAL", "ANONYMOUS", "XOAUTH", "XOAUTH2", "OAUTHBEARER", "SCRAM-SHA-1",
	"SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-512", "SCRAM-SHA-512-PLUS",
}

// loginFault answers a login that did not reach the session, and reports it.
func (c *Conn) loginFault(code int, enhanced, format string, args ...any) error {
	r := mail.R(code, enhanced, format, args...)
	c.io.send(r)
	c.tellLogin(r.Text, r)
	return c.countError(r)
}

// tellLogin reports to the session a login that we refused, or, with a zero reply, one that was cut off.
func (c *Conn) tellLogin(why string, r mail.Reply) {
	w, ok := c.session.(LoginRefusalObserver)
	if !ok {
		return
	}
	_, arg := splitCommand(c.line)
	mechanism, _, _ := strings.Cut(arg, " ")
	if mechanism = strings.ToUpper(mechanism); !slices.Contains(knownMechanisms, mechanism) {
		mechanism = ""
	}
	w.LoginRefused(mechanism, why, r)
}

// auth runs a SASL exchange (RFC 4954 §4).
func (c *Conn) auth(arg string) error {
	mechanism, initial, _ := strings.Cut(arg, " ")
	mechanism = strings.ToUpper(mechanism)
	switch {
	case len(c.opt.Mechanisms) == 0:
		c.io.send(noLoginHere)
		c.tellLogin(noLoginHere.Text, noLoginHere)
		return c.countError(noLoginHere)
	case !c.passwordsTravel():
		return c.loginFault(538, "5.7.11", "this server takes no password in clear text")
	case !c.introduced:
		return c.loginFault(503, "5.5.1", "send EHLO first")
	case c.loggedIn:
		return c.loginFault(503, "5.5.1", "already logged in")
	case c.unplaced():
		return c.loginFault(unplaced.Code, unplaced.Enhanced, "%s", unplaced.Text)
	case c.tx.open:
		return c.loginFault(503, "5.5.1", "no AUTH inside a mail transaction")
	case mechanism == "":
		return c.loginFault(501, "5.5.4", "AUTH needs a mechanism")
	case !slices.Contains(c.mechanisms(), mechanism):
		return c.notOffered(mechanism)
	}
	response, ok := decodeInitial(strings.TrimLeft(initial, " "))
	if !ok {
		return c.loginFault(501, "5.5.2", "the login is malformed: it is not base64")
	}
	exchange, reply := c.session.Auth(c.ctx, mechanism)
	if !reply.IsZero() {
		return c.authResult(reply)
	}
	return c.exchange(exchange, response)
}

// notOffered refuses a mechanism, and says what to do instead.
func (c *Conn) notOffered(mechanism string) error {
	has := strings.Join(c.mechanisms(), ", ")
	switch {
	case mechanism == "EXTERNAL" && slices.Contains(c.opt.Mechanisms, mechanism):
		return c.loginFault(504, "5.5.4", "this program has shown no certificate, so it cannot log in with one: set "+
			"its client certificate (this server has %s)", has)
	case slices.Contains(c.opt.Mechanisms, "PLAIN"):
		return c.loginFault(504, "5.5.4",
			`this authentication method is not offered: choose "normal password" (this server has %s)`, has)
	}
	return c.loginFault(504, "5.5.4", "this authentication method is not offered: this server has %s", has)
}

func (c *Conn) exchange(x Exchange, response []byte) error {
	for range maxRounds {
		c.srv.half.busy(c.slot, true)
		challenge, reply := x.Next(c.ctx, response)
		c.srv.half.busy(c.slot, false)
		if !reply.IsZero() {
			return c.authResult(reply)
		}
		c.io.sendChallenge(challenge)
		line, err := c.io.readLine(c.commandBy(), true)
		switch {
		case errors.Is(err, errLineTooLong):
			return c.loginFault(500, "5.5.6", "the login is malformed: a response is too long")
		case errors.Is(err, errLineEnd):
			return c.loginFault(501, "5.5.2", "the login is malformed: a response ends with CR LF")
		case err != nil:
			c.tellLogin("the connection ended in the middle of the login", mail.Reply{})
			return c.explain(err)
		case string(line) == "*":
			return c.loginFault(501, "5.5.2", "authentication cancelled")
		}
		var ok bool
		if response, ok = decodeBase64(string(line)); !ok {
			return c.loginFault(501, "5.5.2", "the login is malformed: it is not base64")
		}
	}
	return c.loginFault(501, "5.5.2", "the login is malformed: it does not end")
}

// authResult ends an exchange. A client that fails too often must reconnect, which costs it more than us.
func (c *Conn) authResult(r mail.Reply) error {
	if r.OK() {
		c.loggedIn = c.session.Authenticated()
		if err := c.enterInside(); err != nil {
			return err
		}
		return c.answer(r)
	}
	if err := c.answer(r); err != nil {
		return err
	}
	if c.failures++; c.failures < maxAuthFailures {
		return nil
	}
	return refuse(ReasonAuth, mail.R(421, "4.7.0",
		"too many failed logins, closing; check user name and password before you connect again"),
		"%d failed logins in one connection, the last one was answered %s", c.failures, r)
}

// decodeInitial decodes an initial response: nil if there is none, empty for "=".
func decodeInitial(s string) ([]byte, bool) {
	switch s {
	case "":
		return nil, true
	case "=":
		return []byte{}, true
	}
	return decodeBase64(s)
}

func decodeBase64(s string) ([]byte, bool) {
	if !clean(s) { // the decoder would skip CR
		return nil, false
	}
	s = strings.Trim(s, " ")
	if unpadded := strings.TrimRight(s, "="); len(s)-len(unpadded) < 3 { // some clients pad too little or not at all
		s = unpadded
	}
	b, err := base64.RawStdEncoding.AppendDecode(make([]byte, 0, base64.RawStdEncoding.DecodedLen(len(s))), []byte(s))
	return b, err == nil
}
