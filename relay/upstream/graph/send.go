package graph

import (
	"context"
	"slices"
	"time"

	"postern/internal/logline"
	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/account"
	"postern/relay/upstream/graph/large"
)

// Send implements upstream.Slot, and gives the slot back. A cancelled one waits at most Timeouts.Drain for the answer
// to a whole request.
func (s *slot) Send(ctx context.Context, t upstream.Transaction) []mail.Result {
	defer s.Release()
	if s.used || len(t.Recipients) == 0 {
		return nil
	}
	s.used = true
	ctx, free := s.Bound(ctx)
	defer free()
	a := attempt{u: s.u, slot: s, mailbox: s.Identity(), t: &t, results: make([]mail.Result, len(t.Recipients))}
	for i := range a.results {
		a.results[i] = mail.Result{Recipient: i, Upstream: s.u.o.Name, Identity: a.mailbox, Host: s.u.host}
	}
	defer a.putAside()
	a.run(ctx)
	a.review()
	s.Record(a.news)
	return a.results
}

// attempt is one Send.
type attempt struct {
	u       *Upstream
	slot    *slot
	mailbox string
	t       *upstream.Transaction
	results []mail.Result

	message  *message
	rebuilt  *large.Rebuilt // of a message that is too large for one request; nil: not needed yet
	shape    shape
	token    string
	renewed  bool // a token was refused in this attempt
	repeated bool // see Rule.Repeat
	prefix   []byte
	news     account.News // what the account is told
}

func (a *attempt) run(ctx context.Context) {
	for _, step := range []func(context.Context) *fault{a.prepare, a.fetchToken, a.lookUp, a.sign} {
		if f := step(ctx); f != nil {
			a.fail(a.withoutResult(), a.excused(ctx, f))
			return
		}
	}
	for _, batch := range a.batches() {
		f := a.send(ctx, batch)
		if f == nil || f.uncertain && a.lookOnce(ctx, batch) {
			continue
		}
		f = a.excused(ctx, f)
		a.fail(a.notFound(batch), f)
		if !f.class.Permanent() { // of those behind nothing was sent
			f.uncertain = false
			a.fail(a.withoutResult(), f)
			return
		}
	}
}

// excused is a fault, or that the lease ran out where nothing was said: what took too long, or was let go of, may have
// been so while we were stopped, and says nothing about Graph.
func (a *attempt) excused(ctx context.Context, f *fault) *fault {
	if f.uncertain || f.answered || f.rule != nil || f.class.Permanent() ||
		a.t.Spare() > 0 && (f.class != mail.BackPressure || ctx.Err() == nil) {
		return f
	}
	return leaseFault(f.stage)
}

// prepare reads and checks the message without asking Graph.
func (a *attempt) prepare(ctx context.Context) *fault {
	var err error
	if a.message, err = readMessage(a.t.Content); err != nil {
		return contentFault(err)
	}
	var f *fault
	if a.shape, f = compare(a.message.header, a.t.Recipients, a.t.Envelope); f != nil {
		return f
	}
	a.message.write(a.shape.written)
	// With somebody in the header each further request would reach him again, so such an envelope cannot be parted.
	if n := len(a.t.Recipients); n > a.u.o.MaxRecipients && a.shape.named > 0 {
		return messageFault(550, "5.5.3", "the message has %d recipients, %s takes at most %d of one that names "+
			"recipients in its header", n, a.u.host, a.u.o.MaxRecipients)
	}
	size := a.t.Content.Size()
	if f = a.fits(size); f != nil || size <= a.u.single() {
		return f
	}
	return a.takeApart(ctx)
}

// single is the octets of MIME that go with one request as they are.
func (u *Upstream) single() int64 { return min(u.o.MaxMessageSize, DefaultMessageSize) }

func (a *attempt) fits(size int64) *fault {
	limit := a.u.o.MaxMessageSize
	switch {
	case size <= limit:
		return nil
	case a.u.o.LargeMail == UploadLarge:
		return messageFault(552, "5.3.4", "the message has %d octets, upstream %s takes at most %d "+
			"(max_message_size): send a link, or send it by an SMTP upstream", size, a.u.o.Name, limit)
	}
	return messageFault(552, "5.3.4", "the message has %d octets, Microsoft Graph takes at most %d in one request "+
		"and no larger message without rewriting it: send a link, or send it by an SMTP upstream; "+
		`an administrator can allow the rewriting with large_mail = "upload"`, size, limit)
}

func (a *attempt) fetchToken(ctx context.Context) *fault {
	token, err := a.u.token(ctx, a.mailbox)
	if err != nil {
		return tokenFault(err)
	}
	a.token = token
	return nil
}

func (u *Upstream) token(ctx context.Context, mailbox string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, u.o.Timeouts.Token)
	defer cancel()
	return u.o.Token(ctx, mailbox)
}

func (a *attempt) sign(ctx context.Context) *fault {
	if a.t.Prefix == nil {
		return nil
	}
	prefix, err := a.t.Prefix(ctx)
	if err != nil {
		return signFault(err)
	}
	if len(prefix) > 0 && len(a.shape.written) > 0 {
		return messageFault(554, "5.3.3", "a recipient in the header has no domain, or one that Microsoft Graph "+
			"could misread, and our DKIM signature does not let it be mended: write user@example.com")
	}
	a.prefix = prefix
	return nil
}

// batches parts the recipients into requests: one, unless there are more than Graph takes and the header names nobody.
func (a *attempt) batches() [][]int {
	all := a.withoutResult()
	switch {
	case len(all) == 0:
		return nil
	case len(all) <= a.u.o.MaxRecipients:
		return [][]int{all}
	}
	var batches [][]int
	for n := a.u.o.MaxRecipients; len(all) > 0; all = all[min(n, len(all)):] {
		batches = append(batches, all[:min(n, len(all))])
	}
	return batches
}

func (a *attempt) all() []int {
	all := make([]int, len(a.results))
	for i := range all {
		all[i] = i
	}
	return all
}

// withoutResult is the recipients that have none yet.
func (a *attempt) withoutResult() []int {
	var rest []int
	for i := range a.results {
		if a.results[i].Class == mail.Unknown {
			rest = append(rest, i)
		}
	}
	return rest
}

// send makes one request for some recipients and, after a refused token, one more.
func (a *attempt) send(ctx context.Context, batch []int) *fault {
	if a.t.Spare() <= 0 {
		return leaseFault(mail.StageMail)
	}
	var bcc mail.Field
	if blind := a.blind(batch); len(blind) > 0 {
		bcc = bccField(a.t.Recipients, blind)
	}
	p := a.message.compose(a.prefix, bcc)
	p.spare = a.t.Spare
	if f := a.fits(p.size()); f != nil {
		return f
	}
	if a.rebuilt != nil || p.size() > a.u.single() {
		return a.sendLarge(ctx, batch)
	}
	for {
		ans, f := a.u.post(ctx, a.mailbox, a.token, p)
		if f == nil && ans.accepted() {
			a.slot.Charge(len(batch))
			a.deliver(batch, ans)
			return nil
		}
		if f == nil {
			f = a.u.refused(ans)
		}
		if f.uncertain {
			a.slot.Charge(len(batch))
		}
		if !a.again(ctx, f) {
			a.log(f)
			return f
		}
	}
}

// blind are those of a batch that need a Bcc.
func (a *attempt) blind(batch []int) []int {
	if len(batch) == len(a.results) {
		return a.shape.blind
	}
	return batch // nobody is in the header
}

// deliver: Graph has been seen to say 202 and Retry-After together; the message is sent then, and sending it again
// makes a second one (github.com/microsoftgraph/msgraph-sdk-java/issues/1487). The mailbox rests.
func (a *attempt) deliver(batch []int, ans *answer) {
	for _, i := range batch {
		r := &a.results[i]
		r.Class, r.Stage, r.Reply = mail.Delivered, mail.StageDot, mail.R(250, "2.0.0", "%s", ans.words())
	}
	if ans.retryAfter > 0 {
		a.note(account.News{Verdict: account.Pressure, Reply: mail.R(451, "4.3.2", "%s, with Retry-After", ans.words()),
			AtLeast: ans.retryAfter})
		return
	}
	a.note(account.News{Verdict: account.Works})
}

// fail gives the same result to recipients.
func (a *attempt) fail(recipients []int, f *fault) {
	for _, i := range recipients {
		f.apply(&a.results[i])
	}
	a.note(f.news())
}

// note keeps the strongest verdict: that the mailbox must wait outweighs that it works.
func (a *attempt) note(n account.News) {
	if n.Verdict >= a.news.Verdict {
		a.news = n
	}
}

// log tells what an administrator may have to look at.
func (a *attempt) log(f *fault) {
	switch {
	case f.class == mail.AccountFault && f.rule != nil:
		a.u.log.Warn("graph refuses us", "id", a.t.ID, "identity", a.mailbox, "reply", f.reply.String(), "fix",
			a.u.adviceFor(f.rule, a.mailbox, a.token))
	case f.uncertain:
		a.u.log.Warn("graph may have sent the message", logline.Pairs("id", a.t.ID, "identity", a.mailbox,
			"reply", f.reply.String(), "err", logline.Error(f.reply, f.err))...)
	}
}

// review asks whether the refusals are to be believed, and tells the account what it is told.
func (a *attempt) review() {
	if a.t.Review == nil {
		return
	}
	doubt := a.t.Review(a.results)
	i := slices.IndexFunc(a.results, upstream.Doubted)
	switch {
	case i < 0:
	case doubt == upstream.DoubtMessage:
		a.news = account.News{}
	case doubt == upstream.DoubtIdentity:
		a.news = account.News{Verdict: account.Fault, Reply: a.results[i].Reply}
	}
}

// again reports whether a refused request is worth another one at once, and gets what it needs for it.
func (a *attempt) again(ctx context.Context, f *fault) bool {
	if f.rule != nil && f.rule.DropToken {
		a.u.o.DropToken(a.mailbox, a.token)
	}
	switch {
	case f.rule == nil:
		return false
	case f.rule.Repeat && !a.repeated:
		a.repeated = true
		return a.u.pause(ctx, repeatAfter)
	case !f.rule.Again || a.renewed:
		return false
	}
	a.renewed = true
	if failed := a.fetchToken(ctx); failed != nil {
		*f = *failed
		return false
	}
	return true
}

// repeatAfter is how long Graph is given to notice what it knows, see Rule.Repeat.
const repeatAfter = 2 * time.Second

// pause reports whether d passed before anything ended.
func (u *Upstream) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-u.ctx.Done():
	}
	return false
}
