package smtp

import (
	"slices"
	"time"

	"postern/mail"
	"postern/relay/upstream"
)

// transaction is MAIL, RCPT and the message for some recipients on one connection (RFC 5321 §3.3).
type transaction struct {
	c       *conn
	t       *upstream.Transaction
	content *body
	batch   []int // indices into t.Recipients and results
	results []mail.Result

	answered bool       // MAIL was
	accepted int        // recipients, by RCPT
	rest     []int      // recipients that were not considered: for the next transaction
	gone     bool       // every octet of the message was written
	took     mail.Reply // the reply that was taken for the message's
	inStep   bool       // when the end of the message was sent, all replies before it were in
	ended    bool       // no further reply is to be expected
	mayAgain bool       // what the server does not take may be left out, and the transaction begin anew
	again    bool       // so it shall: the refusal said nothing of the mail
	lessened bool       // somebody in rest goes once more with less: that counts as again
	withDSN  bool       // the parameters of DSN were sent
	stale    bool       // a pooled connection was of no use any more, and looked at nothing
	up       *upload    // of a large message
	writeErr error
	fault    *fault
	blame    *fault // what the identity is told: fault, or a recipient's
	offence  *fault // the upstream does not let us use the sender
}

func (x *transaction) run() {
	c := x.c
	c.due.begin()
	x.withDSN = c.ext.dsn
	if f := x.content.rewind(); f != nil {
		x.fail(f)
		x.conclude()
		return
	}
	switch {
	case c.said(): // it spoke without being asked
		x.lost(mail.StageMail, errOutOfStep)
	case c.ext.pipelining:
		x.pipelined()
	default:
		x.oneByOne()
	}
	if x.stale || x.again {
		return
	}
	if c.said() {
		x.surplus()
	}
	x.conclude()
}

// conclude gives everybody in the batch a result and notes what the next transaction must know.
func (x *transaction) conclude() {
	for _, i := range x.batch {
		if !x.waits(i) {
			continue
		}
		if x.fault == nil { // cannot happen; nobody is left without a result
			x.fault = x.c.trouble(mail.StageDot, errOutOfStep, "left a recipient without an answer")
		}
		x.fault.apply(&x.results[i])
	}
	// After anything but a good end the upstream may hold a transaction open: RSET goes before the next MAIL.
	x.c.dirty = x.fault != nil || x.accepted == 0
	if x.fault != nil && (x.blame == nil || x.fault.verdict() >= x.blame.verdict()) {
		x.blame = x.fault
	}
}

// waits reports whether a recipient has no result and shall get the message's.
func (x *transaction) waits(i int) bool {
	return x.results[i].Class == mail.Unknown && !slices.Contains(x.rest, i)
}

// pipelined sends all commands and, with CHUNKING, the message in one flight (RFC 2920, RFC 3030).
func (x *transaction) pipelined() {
	p := getBuffer()
	b := x.appendCommands((*p)[:0])
	switch {
	case x.t.AllOrNone && len(x.batch) > 1:
		if x.write(b); x.readReplies() && x.forAll() {
			x.write(append(b[:0], "DATA\r\n"...))
			if x.startData() {
				x.data(b[:0])
			}
		}
	case !x.c.ext.chunking:
		x.write(append(b, "DATA\r\n"...))
		if x.readReplies() && x.startData() {
			x.data(b[:0])
		}
	case x.content.size() <= inlineLimit:
		b = x.appendChunk(b)
		if x.writeMessage(b) && x.readReplies() {
			x.final()
		}
	default:
		x.stream(b)
	}
	putBuffer(p, b)
}

// oneByOne waits for each reply, which is what a server without PIPELINING wants. The message goes by DATA: it can be
// left at any octet without a trace, and CHUNKING would save one round trip of many.
func (x *transaction) oneByOne() {
	p := getBuffer()
	defer putBuffer(p, *p)
	b, limits := (*p)[:0], &x.c.u.cfg.Timeouts
	if x.c.dirty && !x.reset(b) {
		return
	}
	r, ok := x.step(x.appendMail(b), mail.StageMail, limits.Mail)
	if !ok || !x.mail(r) || x.fault != nil || x.again {
		return
	}
	for _, i := range x.batch {
		r, ok = x.step(x.appendRcpt(b, &x.t.Recipients[i]), mail.StageRcpt, limits.Rcpt)
		if !ok || !x.rcpt(i, r) {
			return
		}
	}
	if x.accepted == 0 || !x.forAll() {
		return
	}
	x.write(append(b, "DATA\r\n"...))
	if x.startData() {
		x.data(b)
	}
}

func (x *transaction) step(b []byte, stage mail.Stage, d time.Duration) (mail.Reply, bool) {
	x.write(b)
	return x.read(stage, d)
}

// write sends one flight. After an error the replies are read all the same: they may say why.
func (x *transaction) write(b []byte) bool { return x.writeWithin(x.c.u.cfg.Timeouts.DataBlock, b) }

func (x *transaction) writeWithin(d time.Duration, b []byte) bool {
	if x.writeErr = x.c.writeWithin(d, b); x.writeErr != nil {
		x.c.due.linger()
	}
	return x.writeErr == nil
}

// read reads one reply. false: there is none, and the fault is noted.
func (x *transaction) read(stage mail.Stage, d time.Duration) (mail.Reply, bool) {
	r, err := x.c.reply(d, stage == mail.StageDot)
	if err != nil {
		x.lost(stage, err)
		return r, false
	}
	return r, true
}

// readReplies reads what answers appendCommands. false: no further reply is to be expected.
func (x *transaction) readReplies() bool {
	limits := &x.c.u.cfg.Timeouts
	if x.c.dirty {
		if r, ok := x.read(mail.StageMail, limits.Command); !ok || x.closing(mail.StageMail, r) {
			return false
		}
	}
	r, ok := x.read(mail.StageMail, limits.Mail)
	if !ok || !x.mail(r) {
		return false
	}
	for _, i := range x.batch {
		if r, ok = x.read(mail.StageRcpt, limits.Rcpt); !ok || !x.rcpt(i, r) {
			return false
		}
	}
	return true
}

// reset ends the transaction that the last one left. What it answers does not matter: MAIL will tell.
func (x *transaction) reset(b []byte) bool {
	r, ok := x.step(append(b, "RSET\r\n"...), mail.StageMail, x.c.u.cfg.Timeouts.Command)
	return ok && !x.closing(mail.StageMail, r)
}

// mail takes the reply to MAIL. false: no further reply is to be expected.
func (x *transaction) mail(r mail.Reply) bool {
	if x.closing(mail.StageMail, r) {
		return false
	}
	if x.c.messages > 0 && r.Permanent() && x.c.u.rules.Lapsed(r, x.t.From) { // another connection logs in again
		x.c.broken, x.ended, x.stale, x.gone = true, true, true, false
		return false
	}
	x.answered = true
	switch {
	case r.Code/100 == 2:
		x.c.closeDoubt(mail.StageMail, true)
	case x.mailParameterRefused(r):
	default:
		x.c.closeDoubt(mail.StageMail, false)
		x.refuse(mail.StageMail, r)
	}
	return !x.ended
}

// rcpt takes the reply to one RCPT. false: no further reply is to be expected.
func (x *transaction) rcpt(i int, r mail.Reply) bool {
	switch {
	case x.closing(mail.StageRcpt, r):
		return false
	case x.fault != nil || x.again: // MAIL was refused; this says nothing of its own
		return true
	case r.Code/100 == 2:
		if !x.withDSN {
			x.c.closeDoubt(mail.StageRcpt, true)
		}
		x.accepted++
		return true
	case x.rcptParameterRefused(i, r):
		return true
	case r.Code < 400:
		x.refuse(mail.StageRcpt, r)
		return false
	}
	if !x.withDSN {
		x.c.closeDoubt(mail.StageRcpt, false)
	}
	f := x.c.refused(mail.StageRcpt, r, x.t.From, x.t.Recipients[i].To)
	if f.rule != nil && f.rule.Rest && x.accepted > 0 {
		x.rest = append(x.rest, i)
		x.c.rcptLearned = x.accepted
		return true
	}
	f.apply(&x.results[i])
	if f.ofSender() {
		x.offence = f
	}
	if x.blame == nil || f.verdict() > x.blame.verdict() {
		x.blame = f
	}
	return true
}

// forAll reports whether the message may be sent to those who were accepted.
func (x *transaction) forAll() bool {
	if x.t.AllOrNone && x.accepted < len(x.batch) && x.fault == nil && !x.again {
		x.fail(notForAll(mail.StageRcpt))
	}
	return x.fault == nil && !x.again
}

// startData takes the reply to DATA. true: the message is due now.
func (x *transaction) startData() bool {
	r, ok := x.read(mail.StageData, x.c.u.cfg.Timeouts.DataInit)
	if !ok || x.closing(mail.StageData, r) {
		return false
	}
	nobody := x.fault != nil || x.accepted == 0
	switch {
	case r.Code == 354 && !nobody && x.c.said():
		x.fail(x.c.trouble(mail.StageData, errEarlyReply, "answered before the message was sent"))
		return false
	case r.Code == 354 && !nobody:
		x.inStep = true
		return true
	case r.Code == 354: // RFC 2920 §3.1: nobody is there to get it, so it ends at once
		if _, ok := x.step([]byte(".\r\n"), mail.StageDot, x.c.u.cfg.Timeouts.DataDone); !ok {
			x.c.broken = true
		}
	case !nobody:
		x.refuse(mail.StageData, r)
	}
	return false
}

// final reads the reply to the message and gives it to all that were accepted.
func (x *transaction) final() {
	if r, ok := x.read(mail.StageDot, x.c.u.cfg.Timeouts.DataDone); ok {
		x.finish(r)
	}
}

func (x *transaction) finish(r mail.Reply) {
	switch ok := r.Code/100 == 2; {
	case x.fault != nil || x.accepted == 0: // refused before: that stands
		x.c.broken = x.c.broken || ok || r.Code == 421
	case !ok && x.chunkRefused(mail.StageDot, r):
	case r.Code == 221 || !ok:
		x.refuse(mail.StageDot, r)
	case !x.gone: // it cannot have taken what it did not get
		x.c.broken = true
		x.fail(x.c.trouble(mail.StageDot, errEarlyReply, "took the message before its end"))
	default:
		x.deliver(r)
	}
}

func (x *transaction) deliver(r mail.Reply) {
	r = x.c.kept(r)
	x.took = r
	for _, i := range x.batch {
		if res := &x.results[i]; x.waits(i) {
			res.Class, res.Stage, res.Reply, res.Verbatim = mail.Delivered, mail.StageDot, r, true
		}
	}
}

// closing reports a reply with which the upstream takes its leave (RFC 5321 §3.8), whatever was asked.
func (x *transaction) closing(stage mail.Stage, r mail.Reply) bool {
	if r.Code != 421 && r.Code != 221 {
		return false
	}
	x.ended = true
	if !x.answered && x.c.messages > 0 { // it did so while the connection was idle, and looked at nothing
		x.c.broken = true
		x.stale, x.gone = true, false
		return true
	}
	x.refuse(stage, r)
	return true
}

// refuse ends the transaction by a reply.
func (x *transaction) refuse(stage mail.Stage, r mail.Reply) {
	if r.Code < 400 || r.Code == 421 {
		x.ended = true
	}
	x.fail(x.c.refused(stage, r, x.addresses(stage)...))
}

// addresses are those that a reply at a stage may repeat.
func (x *transaction) addresses(stage mail.Stage) []mail.Address {
	about := []mail.Address{x.t.From}
	if stage != mail.StageMail {
		for _, i := range x.batch {
			about = append(about, x.t.Recipients[i].To)
		}
	}
	return about
}

// fail ends the transaction for all that have no result. The first cause stands.
func (x *transaction) fail(f *fault) {
	if x.fault == nil {
		x.fault = f
	}
	if f.ofSender() {
		x.offence = f
	}
}

// lost notes the end of the connection. On a pooled one, before MAIL is answered, it is nobody's fault.
func (x *transaction) lost(stage mail.Stage, err error) {
	c := x.c
	x.ended = true
	x.gone = x.allWritten()
	if isTimeout(err) && x.writeErr != nil {
		err = x.writeErr // the reason for the short wait
	}
	f := c.lost(stage, err)
	if !x.answered && c.messages > 0 && !c.due.ended() && !isTimeout(err) {
		x.stale = true
		return
	}
	// The upstream may have the message when all of it was written and somebody may have been accepted.
	f.uncertain = x.gone && (x.accepted > 0 || stage != mail.StageDot)
	switch {
	case f.uncertain:
		f.reply.Text += "; the message may have been taken"
	case !x.gone && x.t.Spare() <= 0: // time went by for us, not for the upstream
		f = leaseFault(stage)
	}
	x.fail(f)
}
