package upstream

import (
	"context"
	"slices"
	"strings"
	"time"

	"postern/internal/logline"
	"postern/mail"
	"postern/relay/upstream/internal/gate"
)

// Transaction is one message for one or many recipients.
type Transaction struct {
	ID         string // for the log
	From       mail.Address
	Recipients []mail.Recipient
	Content    mail.Content
	// EightBit: the content may have octets above 0x7f, and is looked at. What the message needs of SMTPUTF8 (RFC 6531) and
	// 8BITMIME (RFC 6152) is found here, whatever its client declared.
	EightBit bool
	Ret      mail.Ret
	EnvID    string
	// Prefix is called once, when a connection is ready and EHLO known, before MAIL. It returns header fields that go
	// before the content, each ended by CRLF. Its error defers. nil: there is nothing to add.
	Prefix func(ctx context.Context) ([]byte, error)
	// Doubts is how many earlier attempts may have delivered it, and Last tells that there is no other after this one if this one
	// brings no answer either.
	Doubts int
	Last   bool
	// Received is when it was submitted: what has its Message-ID and is older is another message. Zero: not known.
	Received time.Time
	// Taken is called between two transactions of one message, with the results so far of the recipients that it was taken
	// for. nil: nobody wants to know.
	Taken func([]mail.Result)
	// Review is called once with all results, before anybody is told what they say of the identity. It may change them, and
	// tells whose matter a refusal is that it does not believe. nil: all are believed.
	Review func([]mail.Result) Doubt
}

// Send makes one attempt and returns one result for each recipient, in order. It may be called once, and Release after it.
// When ctx ends before the last octet of a message is written, the attempt stops there and then; behind it, Send still waits
// for the reply, at most Timeouts.Drain. If it panics, Release closes the connection.
func (s *Slot) Send(ctx context.Context, t Transaction) []mail.Result {
	if s.settled || len(t.Recipients) == 0 {
		return nil
	}
	if f := s.heldSender(time.Now(), t.From); f != nil {
		return s.withhold(&t, f)
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
		s.settle(a.news)
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

func (s *Slot) begin(results []mail.Result) {
	for i := range results {
		results[i] = mail.Result{Recipient: i, Upstream: s.u.cfg.Name, Identity: s.id.name, Host: s.u.cfg.Host}
	}
}

// withhold does not offer a message whose sender the upstream refuses.
func (s *Slot) withhold(t *Transaction, f *fault) []mail.Result {
	results := make([]mail.Result, len(t.Recipients))
	s.begin(results)
	for i := range results {
		f.apply(&results[i])
		results[i].Note = noteHeld
	}
	return results
}

// attempt is one Send: as many transactions as the envelope takes, on one connection after another if need be.
type attempt struct {
	slot    *Slot
	t       *Transaction
	results []mail.Result
	pending []int // recipients without result, in order
	content body
	ready   bool     // content is prepared
	whole   bool     // run has returned
	again   int      // transactions that began anew
	notes   []string // what was learned of the upstream on the way
	twice   bool     // a pooled connection was lost with the whole message on its way: the upstream may have it

	news news // what the gate is told
}

func (a *attempt) run(ctx context.Context) {
	a.pending = make([]int, len(a.results))
	for i := range a.pending {
		a.pending[i] = i
	}
	for len(a.pending) > 0 {
		c, f := a.slot.connect(ctx)
		if f == nil {
			a.notes = append(a.notes, c.takeNotes()...)
			f = a.begin(ctx, c)
		}
		if f != nil {
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
	a.note(gate.Reached, nil)
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
		return &fault{stage: mail.StageMail, class: mail.MessageFault, ours: true, reply: mail.R(code, enhanced, format, args...)}
	}
	if size := a.content.size(); c.ext.size > 0 && size > c.ext.size {
		return no(552, "5.3.4", "the message has %d octets, %s takes at most %d", size, c.u.cfg.Host, c.ext.size)
	}
	if a.content.utf8Header && !c.ext.utf8 { // RFC 6531 §3.5
		return no(550, "5.6.7", "the header of the message has characters beyond ASCII that are not encoded (RFC 2047), "+
			"which needs SMTPUTF8, and %s does not offer it", c.u.cfg.Host)
	}
	if a.content.eightBit && !c.ext.eightBit { // RFC 6152 §3; we do not recode bodies
		return no(554, "5.6.3", "the message has eight-bit content, which %s does not take", c.u.cfg.Host)
	}
	if c.ext.utf8 {
		return nil
	}
	if _, ok := a.t.From.ASCII(); !ok {
		return no(550, "5.6.7", "the sender's address %s needs SMTPUTF8, which %s does not offer", a.t.From, c.u.cfg.Host)
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
	n, f := a.slot.claim(ctx, n)
	if f != nil {
		a.fail(a.pending, f)
		return true
	}
	x := transaction{c: c, t: a.t, content: &a.content, batch: a.pending[:n], results: a.results, mayAgain: a.again < maxAgain}
	release := c.watch(ctx)
	x.run()
	release()
	a.notes = append(a.notes, c.takeNotes()...)
	if x.again {
		a.anew(&x)
		return false
	}
	if x.answered || x.gone {
		a.slot.charge(n - len(x.rest))
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
	a.settle(&x)
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

// settle takes over what a transaction says of the identity and adds what only the attempt knows.
func (a *attempt) settle(x *transaction) {
	if x.blame != nil {
		a.note(x.blame.verdict(), x.blame)
	} else if x.answered {
		a.note(gate.Works, nil)
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
		a.slot.senderWorks(a.t.From)
	case x.offence != nil:
		a.slot.senderRefused(time.Now(), a.t.From, x.offence)
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
	r.Class, r.Stage, r.Reply, r.RetryAfter, r.Uncertain, r.Err = f.class, f.stage, f.reply, f.retryAfter, f.uncertain, f.err
	r.Verbatim, r.Rule, r.Note = f.verbatim, "", ""
	if f.rule == nil {
		return
	}
	switch r.Rule = f.rule.Name; {
	case r.Rule == mail.RuleNone:
		r.Note = noteNoRule
	case f.ofSender():
		r.Note = noteSender
	}
}

// What the trace says beside the reply.
const (
	noteNoRule = "no reply rule knows this answer: it counts as the message's fault"
	noteHeld   = "not offered again yet: the upstream refused mail of this sender more than once"
	noteSender = "this concerns the sender's address only: mail of other senders goes on"
)

// note keeps the strongest verdict: that the identity must wait outweighs that it works.
func (a *attempt) note(v gate.Verdict, f *fault) {
	if v < a.news.Verdict {
		return
	}
	a.news.Verdict = v
	if f != nil {
		a.news = news{News: gate.News{Verdict: v, Reply: f.reply, Early: early(f.stage), AtLeast: f.retryAfter}}
		if f.rule != nil {
			a.news.slow, a.news.quota = f.rule.Slow, f.rule.Quota
		}
	}
}

// connect returns the slot's connection, or a fresh one where there is none that lives or it has carried its share.
func (s *Slot) connect(ctx context.Context) (*conn, *fault) {
	if c := s.conn; c != nil {
		switch {
		case c.broken || c.dead():
			c.broken = true
			s.drop()
		case c.spent(time.Now()):
			s.drop()
		default:
			return c, nil
		}
	}
	c, f := s.u.open(ctx, s.id.name, nil)
	if f != nil {
		s.u.log.Warn("upstream connection failed", logline.Pairs("identity", s.id.name, "stage", string(f.stage),
			"reply", f.reply.String(), "err", logline.Error(f.reply, f.err))...)
		return nil, f
	}
	s.conn = c
	return c, nil
}

// drop closes the slot's connection before another takes its place.
func (s *Slot) drop() {
	c := s.conn
	s.conn = nil
	if c.broken {
		c.close()
	} else {
		c.quit()
	}
	s.u.mu.Lock()
	delete(s.u.conns, c)
	s.u.mu.Unlock()
}

// signFault: there is no unsigned send, and no bounce for a key of ours.
func signFault(err error) *fault {
	r, ok := mail.ReplyFor(err)
	if !ok || !r.Temporary() {
		r = mail.R(451, "4.7.5", "the message cannot be signed now")
	}
	return &fault{stage: mail.StageSign, class: mail.Deferral, ours: true, reply: r, err: err}
}

func contentFault(err error) *fault {
	return &fault{stage: mail.StageData, class: mail.Deferral, ours: true, reply: mail.R(451, "4.3.0", "the message cannot be read now"), err: err}
}
