package smtp

import (
	"context"
	"slices"
	"strings"
	"time"

	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/account"
)

// Send implements upstream.Slot. A cancelled one waits at most Timeouts.Drain for the reply behind the final dot. If it
// panics, Release closes the connection.
func (s *slot) Send(ctx context.Context, t upstream.Transaction) []mail.Result {
	if s.used || len(t.Recipients) == 0 {
		return nil
	}
	s.used = true
	s.hold()
	ctx, free := s.Bound(ctx)
	defer free()
	if said, held := s.SenderHeld(time.Now(), t.From); held {
		return s.withhold(&t, said)
	}
	a := attempt{slot: s, t: &t, results: make([]mail.Result, len(t.Recipients))}
	s.begin(a.results)
	defer func() {
		if a.content.r != nil {
			a.content.r.Close()
		}
		if !a.whole && s.conn != nil { // a panic: nobody knows the state of the connection
			s.conn.broken = true
		}
		s.record(a.news)
	}()
	a.run(ctx)
	a.whole = true
	for i := range a.results {
		a.results[i].Uncertain = a.results[i].Uncertain || a.twice
		a.results[i].Note = joinNotes(a.results[i].Note, a.notes)
	}
	a.review()
	return a.results
}

// joinNotes adds what was learned on the way to what is said of a result.
func joinNotes(note string, learned []string) string {
	if len(learned) == 0 {
		return note
	}
	return strings.TrimPrefix(note+"; "+strings.Join(learned, "; "), "; ")
}

func (s *slot) begin(results []mail.Result) {
	for i := range results {
		r := &results[i]
		r.Recipient, r.Upstream, r.Identity, r.Host = i, s.u.cfg.Name, s.Identity(), s.u.cfg.Host
	}
}

// withhold does not offer a message whose sender the upstream refuses: what was said last holds.
func (s *slot) withhold(t *upstream.Transaction, said mail.Result) []mail.Result {
	said.Note = noteHeld
	results := slices.Repeat([]mail.Result{said}, len(t.Recipients))
	s.begin(results)
	return results
}

// attempt is one Send: as many transactions as the envelope takes, on one connection after another if need be.
type attempt struct {
	slot    *slot
	t       *upstream.Transaction
	results []mail.Result
	pending []int // recipients without result, in order
	content body
	ready   bool     // content is prepared
	whole   bool     // run has returned
	again   int      // transactions that began anew
	notes   []string // what was learned of the upstream on the way
	twice   bool     // a pooled connection was lost with the whole message on its way: the upstream may have it

	news account.News // what the account is told
}

func (a *attempt) run(ctx context.Context) {
	a.pending = make([]int, len(a.results))
	for i := range a.pending {
		a.pending[i] = i
	}
	for len(a.pending) > 0 {
		if a.t.Spare() <= 0 {
			a.fail(a.pending, leaseFault(mail.StageConnect))
			return
		}
		c, f := a.slot.connect(ctx)
		if f == nil {
			a.notes = append(a.notes, c.takeNotes()...)
			f = a.begin(ctx, c)
		}
		if f != nil {
			if f.rule == nil && a.t.Spare() <= 0 { // what ran out may have done so while we were stopped
				f = leaseFault(f.stage)
			}
			a.notes = append(a.notes, f.notes...)
			a.fail(a.pending, f)
			return
		}
		if len(a.pending) == 0 { // none that this upstream could take
			return
		}
		if a.transact(ctx, c) {
			return
		}
		if len(a.pending) > 0 && a.t.Taken != nil {
			a.tell()
		}
	}
}

// tell calls Taken if the message was taken for anybody.
func (a *attempt) tell() {
	var taken []mail.Result
	for _, r := range a.results {
		if r.Class == mail.Delivered {
			taken = append(taken, r)
		}
	}
	if len(taken) > 0 {
		a.t.Taken(taken)
	}
}

// begin prepares the content once and sorts out what the upstream cannot take.
func (a *attempt) begin(ctx context.Context, c *conn) *fault {
	a.note(account.Reached, nil)
	if !a.ready {
		if f := a.content.prepare(ctx, a.t); f != nil {
			return f
		}
		if f := a.content.survey(a.t.EightBit); f != nil {
			return f
		}
		a.ready = true
	}
	return a.fits(c)
}

// fits compares the message with what EHLO offered. Sending it anyway would be refused later, or damaged on the way.
func (a *attempt) fits(c *conn) *fault {
	no := func(code int, enhanced, format string, args ...any) *fault {
		return &fault{stage: mail.StageMail, class: mail.MessageFault, ours: true,
			reply: mail.R(code, enhanced, format, args...)}
	}
	if size := a.content.size(); c.ext.size > 0 && size > c.ext.size {
		return no(552, "5.3.4", "the message has %d octets, %s takes at most %d", size, c.u.cfg.Host, c.ext.size)
	}
	if a.content.utf8Header && !c.ext.utf8 { // RFC 6531 §3.5
		return no(550, "5.6.7", "the header of the message has characters beyond ASCII that are not encoded (RFC "+
			"2047), "+
			"which needs SMTPUTF8, and %s does not offer it", c.u.cfg.Host)
	}
	if a.content.eightBit && !c.ext.eightBit { // RFC 6152 §3; we do not recode bodies
		return no(554, "5.6.3", "the message has eight-bit content, which %s does not take", c.u.cfg.Host)
	}
	if c.ext.utf8 {
		return nil
	}
	if _, ok := a.t.From.ASCII(); !ok {
		return no(550, "5.6.7", "the sender's address %s needs SMTPUTF8, which %s does not offer", a.t.From,
			c.u.cfg.Host)
	}
	ascii := a.pending[:0]
	for _, i := range a.pending {
		if _, ok := a.t.Recipients[i].To.ASCII(); ok {
			ascii = append(ascii, i)
			continue
		}
		f := no(553, "5.6.7", "the address needs SMTPUTF8, which %s does not offer", c.u.cfg.Host)
		f.class, f.stage = mail.RecipientFault, mail.StageRcpt
		a.fail([]int{i}, f)
	}
	a.pending = ascii
	return nil
}

// transact sends to as many of the pending recipients as one transaction takes. It reports whether the attempt is over.
func (a *attempt) transact(ctx context.Context, c *conn) (over bool) {
	n := min(len(a.pending), c.u.cfg.MaxRecipients)
	if c.ext.rcptMax > 0 { // RFC 9422
		n = min(n, c.ext.rcptMax)
	}
	if c.rcptLearned > 0 {
		n = min(n, c.rcptLearned)
	}
	if a.t.AllOrNone && n < len(a.results) { // the upstream does not take some of them, or not all at once
		a.fail(a.pending, notForAll(mail.StageRcpt))
		return true
	}
	n, wait := a.slot.Claim(ctx, n)
	if n == 0 || a.t.AllOrNone && n < len(a.results) {
		a.fail(a.pending, noRoom(c.u.cfg.Name, wait))
		return true
	}
	x := transaction{c: c, t: a.t, content: &a.content, batch: a.pending[:n], results: a.results,
		mayAgain: a.again < maxAgain}
	release := c.due.watch(ctx)
	x.run()
	release()
	a.notes = append(a.notes, c.takeNotes()...)
	if x.again {
		a.anew(&x)
		return false
	}
	if x.answered || x.gone {
		a.slot.Charge(n - len(x.rest))
	}
	if x.stale { // the next turn dials: a fresh connection is never stale
		a.twice = a.twice || x.gone
		c.u.log.Info("pooled connection had ended, another is made", "id", a.t.ID, "in_flight", x.gone)
		a.slot.drop()
		return false
	}
	c.messages++
	if x.lessened { // the next connection may refuse it again
		a.again++
	}
	a.record(&x)
	a.pending = append(x.rest, a.pending[n:]...)
	if f := x.fault; f != nil && (c.broken || f.class != mail.Deferral) {
		f.uncertain = false // of those behind nothing was sent
		a.fail(a.pending, f)
		return true
	}
	return false
}

// anew prepares for the same transaction without what the server does not take.
func (a *attempt) anew(x *transaction) {
	a.again++
	x.c.resync()
	if x.c.broken {
		a.slot.drop()
	}
	a.pending = slices.DeleteFunc(a.pending, func(i int) bool { return a.results[i].Class != mail.Unknown })
}

// record takes over what a transaction says of the identity and adds what only the attempt knows.
func (a *attempt) record(x *transaction) {
	if x.blame != nil {
		a.note(x.blame.verdict(), x.blame)
	} else if x.answered {
		a.note(account.Works, nil)
	}
	delivered := false
	for _, i := range x.batch {
		r := &a.results[i]
		if r.Class == mail.Delivered {
			delivered = true
			r.RelayedDSN = x.withDSN
		}
	}
	switch {
	case delivered:
		a.slot.SenderWorks(a.t.From)
	case x.offence != nil:
		var said mail.Result
		x.offence.apply(&said)
		a.slot.SenderRefused(time.Now(), a.t.From, said)
	}
}

// fail gives the same result to recipients that have none.
func (a *attempt) fail(recipients []int, f *fault) {
	for _, i := range recipients {
		f.apply(&a.results[i])
	}
	a.note(f.verdict(), f)
}

func (f *fault) apply(r *mail.Result) {
	r.Class, r.Stage, r.Reply, r.RetryAfter, r.Uncertain, r.Err = f.class, f.stage, f.reply, f.retryAfter, f.uncertain,
		f.err
	r.Verbatim, r.Rule, r.Note = f.verbatim, "", ""
	if f.rule == nil {
		return
	}
	switch r.Rule = f.rule.Name; {
	case r.Rule == mail.RuleNone:
		r.Note = noteNoRule
	case f.ofSender():
		r.Note, r.OfSender = noteSender, true
	}
}

// What the trace says beside the reply.
const (
	noteNoRule = "no reply rule knows this answer: it counts as the message's fault"
	noteHeld   = "not offered again yet: the upstream refused mail of this sender more than once"
	noteSender = "this concerns the sender's address only: mail of other senders goes on"
)

// note keeps the strongest verdict: that the identity must wait outweighs that it works.
func (a *attempt) note(v account.Verdict, f *fault) {
	if v < a.news.Verdict {
		return
	}
	a.news.Verdict = v
	if f != nil {
		a.news = account.News{Verdict: v, Reply: f.reply, Early: early(f.stage), AtLeast: f.retryAfter}
		if f.rule != nil {
			a.news.Slow, a.news.Spent, a.news.Window = f.rule.Slow, f.rule.Quota > 0, f.rule.Quota
		}
	}
}

func noRoom(name string, wait time.Duration) *fault {
	return &fault{stage: mail.StageMail, class: mail.Deferral, ours: true, retryAfter: wait,
		reply: mail.R(451, "4.4.5", "the rates of upstream %s leave no room now", name)}
}

// notForAll: somebody else is not accepted, and the message may not go without them.
func notForAll(stage mail.Stage) *fault {
	return &fault{stage: stage, class: mail.Deferral, ours: true,
		reply: mail.R(451, "4.3.0", "not sent, since the upstream does not take it for all recipients at once")}
}

// signFault: there is no unsigned send, and no bounce for a key of ours.
func signFault(err error) *fault {
	r, ok := mail.ReplyFor(err)
	if !ok || !r.Temporary() {
		r = mail.R(451, "4.7.5", "the message cannot be signed now")
	}
	return &fault{stage: mail.StageSign, class: mail.Deferral, ours: true, reply: r, err: err}
}

// leaseFault: the message may be somebody else's by now, and this upstream does not have it.
func leaseFault(stage mail.Stage) *fault {
	return &fault{stage: stage, class: mail.Deferral, ours: true, reply: upstream.ReplyLease,
		err: upstream.ErrLease}
}

func contentFault(err error) *fault {
	return &fault{stage: mail.StageData, class: mail.Deferral, ours: true,
		reply: mail.R(451, "4.3.0", "the message cannot be read now"), err: err}
}
