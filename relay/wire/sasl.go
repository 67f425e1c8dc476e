package wire

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"postern/mail"
)

// maxRounds bounds the challenges of one SASL exchange; SCRAM needs three.
const maxRounds = 10

// authOffered reports whether the EHLO reply lists AUTH.
func (c *Conn) authOffered() bool {
	return len(c.opt.Mechanisms) > 0 && (c.tls != nil || c.opt.plaintextAuth())
}

// auth runs a SASL exchange (RFC 4954 §4).
func (c *Conn) auth(arg string) error {
	mechanism, initial, _ := strings.Cut(arg, " ")
	mechanism = strings.ToUpper(mechanism)
	switch {
	case c.tls == nil && !c.opt.plaintextAuth():
		return c.wrong(538, "5.7.11", "this server takes no password in clear text")
	case c.helo == "":
		return c.wrong(503, "5.5.1", "send EHLO first")
	case c.loggedIn:
		return c.wrong(503, "5.5.1", "already logged in")
	case c.tx.open:
		return c.wrong(503, "5.5.1", "no AUTH inside a mail transaction")
	case mechanism == "":
		return c.wrong(501, "5.5.4", "AUTH needs a mechanism")
	case !slices.Contains(c.opt.Mechanisms, mechanism):
		return c.wrong(504, "5.5.4", "unknown mechanism; this server has: %s", strings.Join(c.opt.Mechanisms, " "))
	}
	response, ok := decodeInitial(strings.TrimLeft(initial, " "))
	if !ok {
		return c.wrong(501, "5.5.2", "not base64")
	}
	exchange, reply := c.session.Auth(c.ctx, mechanism)
	if !reply.IsZero() {
		return c.authResult(reply)
	}
	return c.exchange(exchange, response)
}

func (c *Conn) exchange(x Exchange, response []byte) error {
	for range maxRounds {
		challenge, reply := x.Next(c.ctx, response)
		if !reply.IsZero() {
			return c.authResult(reply)
		}
		c.sendChallenge(challenge)
		line, err := c.readLine(c.commandBy(), true)
		switch {
		case errors.Is(err, errLineTooLong):
			return c.wrong(500, "5.5.6", "response too long")
		case errors.Is(err, errLineEnd):
			return c.wrong(501, "5.5.2", "a response ends with CR LF")
		case err != nil:
			return c.explainTimeout(err)
		case string(line) == "*":
			return c.wrong(501, "5.5.2", "authentication cancelled")
		}
		var ok bool
		if response, ok = decodeBase64(string(line)); !ok {
			return c.wrong(501, "5.5.2", "not base64")
		}
	}
	return c.wrong(501, "5.5.2", "authentication exchange too long")
}

// authResult ends an exchange. A client that fails too often must connect again, which costs it more
// than it costs us.
func (c *Conn) authResult(r mail.Reply) error {
	if r.OK() {
		c.loggedIn = c.session.Authenticated()
		return c.answer(r)
	}
	if err := c.answer(r); err != nil {
		return err
	}
	if c.failures++; c.failures < c.opt.MaxAuthFailures {
		return nil
	}
	return refuse(ReasonAuth, mail.R(421, "4.7.0", "too many failed logins, closing"),
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
	b, err := base64.StdEncoding.AppendDecode(make([]byte, 0, base64.StdEncoding.DecodedLen(len(s))), []byte(s))
	return b, err == nil
}
