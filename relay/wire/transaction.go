package wire

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"postern/mail"
)

// mail opens a transaction.
func (c *Conn) mail(arg string) error {
	switch {
	case !c.introduced:
		return c.wrong(503, "5.5.1", "send EHLO first")
	case c.unplaced():
		return c.violation(unplaced)
	case !c.session.Authenticated():
		return c.violation(loginNeeded)
	case c.tx.open:
		return c.wrong(503, "5.5.1", "a mail transaction is open already")
	}
	c.refused = true // until it is accepted
	env, reply := parseMail(arg, c.replaceSender(), c.opt.Appliance)
	if !reply.IsZero() {
		return c.violation(reply)
	}
	if env.Size > c.opt.MaxMessageSize {
		c.tell(c.tooBig())
		return c.answer(c.tooBig())
	}
	reply = c.session.Mail(c.ctx, env)
	if reply.OK() {
		c.tx, c.refused = transaction{open: true, utf8: env.UTF8}, false
		c.tellRepaired(arg, "FROM:", env.From)
	}
	return c.answer(reply)
}

// tellRepaired reports to the session the path of a MAIL or RCPT that only a tolerant listener reads.
func (c *Conn) tellRepaired(arg, keyword string, a mail.Address) {
	w, ok := c.session.(RepairObserver)
	if !ok || !c.opt.Appliance {
		return
	}
	if _, _, readable := cutPath(arg, keyword); !readable {
		w.Repaired(fmt.Sprintf("%s is read as %s", strconv.Quote(quoted(arg)), a.Path()))
	}
}

// replaceSender returns the session's method of that name, nil if it has none.
func (c *Conn) replaceSender() func(path string) (mail.Address, bool) {
	if m, ok := c.session.(SenderReplacer); ok {
		return m.ReplaceSender
	}
	return nil
}

// rcpt adds a recipient.
func (c *Conn) rcpt(arg string) error {
	if !c.tx.open {
		return c.outOfOrder()
	}
	c.idleTurns-- // bounded by the limits below
	r, reply := parseRcpt(arg, c.tx.utf8, c.opt.Hostname, c.opt.Appliance)
	if !reply.IsZero() {
		return c.violation(reply)
	}
	if c.tx.rcpts >= c.opt.MaxRecipients {
		// Not counted as a refusal: clients go on with the accepted ones (RFC 5321 §4.5.3.1.10).
		reply = c.opt.tooMany()
		c.io.send(reply)
		if c.tx.excess++; c.tx.excess == 1 {
			c.tell(reply) // once is enough
		}
		if c.tx.excess > maxExcess {
			return refuse(ReasonProtocol, mail.R(421, "4.7.0", "too many recipients: send the message in parts"),
				"%d recipients over the limit in one transaction", maxExcess)
		}
		return nil
	}
	reply = c.session.Rcpt(c.ctx, r)
	if reply.OK() {
		c.tx.rcpts++
		c.tellRepaired(arg, "TO:", r.To)
	}
	return c.answer(reply)
}

// outOfOrder answers RCPT, DATA or BDAT out of order. It is no protocol error after a refused MAIL or refused
// recipients: a pipelining client could not know (RFC 2920 §3.1).
func (c *Conn) outOfOrder() error {
	switch {
	case c.tx.open:
		return c.answer(mail.R(554, "5.5.1", "no valid recipients"))
	case c.refused:
		return c.answer(mail.R(503, "5.5.1", "no mail transaction: MAIL was refused"))
	}
	return c.wrong(503, "5.5.1", "send MAIL first")
}

// ready reports whether a message may follow.
func (c *Conn) ready() bool { return c.tx.open && c.tx.rcpts > 0 }

// data receives a message up to CRLF.CRLF.
func (c *Conn) data(string) error {
	if !c.ready() {
		return c.outOfOrder()
	}
	c.io.send(mail.R(354, "", "end the message with a line that holds a dot only"))
	c.io.flush() // the client waits for it, even before the session reads
	return c.transfer(c.newTransfer(Transfer{stuffed: stuffing{lineStart: true}}))
}

// bdat receives a message in chunks (RFC 3030 §2). The octets of a refused chunk are already on their way, so it
// discards them; if their number is unknown, the connection ends.
func (c *Conn) bdat(arg string) error {
	if !c.admitted() {
		// Discarding the chunk would let a client without login send for hours: auth_timeout does not end a transfer.
		reply := loginNeeded
		if c.unplaced() {
			reply = unplaced
		}
		return refuse(ReasonProtocol, reply, "the client sent BDAT without a login")
	}
	n, last, ok := parseChunk(arg)
	if !ok {
		return refuse(ReasonProtocol, mail.R(501, "5.5.4", "expected BDAT size [LAST], closing"), "malformed BDAT")
	}
	t := c.newTransfer(Transfer{chunked: true, left: n, last: last})
	if c.ready() {
		return c.transfer(t)
	}
	t.last = true
	t.drain()
	if errors.Is(t.err, ErrCut) {
		return t.cause
	}
	return c.outOfOrder()
}

// transfer gives a message to the session and answers. The session's reply counts only if the message came to its end.
func (c *Conn) transfer(t *Transfer) error {
	reply := c.session.Data(c.ctx, t)
	t.drain()
	c.endTransaction()
	fault, refused := mail.ReplyFor(t.err)
	switch {
	case errors.Is(t.err, ErrCut):
		return t.cause // nil if a command ended it, which is pending
	case refused && (reply.OK() || reply.IsZero()):
		reply = fault
	case !errors.Is(t.err, io.EOF) && !refused && reply.OK():
		c.opt.Logger.Error("session accepted a message before its end", "session", c.id)
		reply = mail.R(451, "4.3.0", "internal error, try again later")
	}
	if reply.OK() {
		c.errors, c.refusals, c.idleTurns = 0, 0, 0
	}
	c.refused = t.chunked && !reply.OK() // more chunks may be on their way
	return c.answer(reply)
}
