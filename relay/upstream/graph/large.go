package graph

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/account"
	"postern/relay/upstream/graph/large"
)

// This file is all that knows of package large, which rebuilds messages that are too large for one request. Here the
// requests of a draft are made, and their answers classified; the draft is sent or deleted; and large mail is held back
// while the right for it is missing, which is Mail.ReadWrite for all of it but the sending.

// The words of Options.LargeMail, and of large_mail in relay.toml.
const (
	RefuseLarge = "refuse"
	UploadLarge = "upload"
)

// noReadWrite is what a refused draft, file or session means. Mail.Send is enough for sendMail, so small mail may go
// on.
var noReadWrite = Rule{
	Name: "large-mail", Class: mail.AccountFault, Code: 454, Enhanced: "4.7.0", DropToken: true,
	Fix: `large_mail = "upload" needs Mail.ReadWrite for this mailbox, beside Mail.Send: in Exchange Online ` +
		`PowerShell, New-ManagementRoleAssignment -App <application id> -Role "Application Mail.ReadWrite" ` +
		`-CustomResourceScope <scope> ` +
		`(docs/upstreams/microsoft-graph.md); Exchange takes up to two hours to notice. Smaller mail is not affected`,
	Example: "403 ErrorAccessDenied Access is denied. Check credentials and try again.",
}

// takeApart rebuilds the message, once, when there is room for another large one. The room is kept until the attempt
// ends.
func (a *attempt) takeApart(ctx context.Context) *fault {
	if a.rebuilt != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.u.ctx, cancel)()
	m := a.message
	p := &payload{content: m.content, body: m.body}
	var err error
	a.rebuilt, err = a.u.large.Rebuild(ctx, &large.Message{
		Header: m.header, Size: m.content.Size() - m.body, Open: p.openBody, Addresses: clearAddresses, Key: key,
	})
	if err != nil && errors.Is(err, ctx.Err()) {
		return &fault{stage: mail.StageMail, class: mail.Deferral, ours: true, err: errStopped,
			reply: mail.R(451, "4.3.2",
				"the message was left because we are shutting down; other large ones were before it")}
	}
	return a.largeFault(err)
}

// putAside makes room for another large message.
func (a *attempt) putAside() {
	if a.rebuilt != nil {
		a.rebuilt.Close()
	}
}

// clearAddresses is readAddressees for package large.
func clearAddresses(list string) (sure []mail.Address, clear bool) {
	who := readAddressees(list)
	return who.sure, who.unclear == "" && len(who.possible)+len(who.locals) == 0
}

// sendLarge sends the message to some recipients as a draft. The error classes are those of sendMail.
func (a *attempt) sendLarge(ctx context.Context, batch []int) *fault {
	if len(a.prefix) > 0 {
		return a.largeFault(&large.Refusal{Enhanced: "5.6.0",
			Text: `our DKIM signature would not survive; the upstream needs dkim = "skip"`})
	}
	if f := a.takeApart(ctx); f != nil {
		return f
	}
	to, blind := make([]large.Recipient, len(batch)), a.blind(batch)
	for n, i := range batch {
		to[n] = large.Recipient{To: a.t.Recipients[i].To, Blind: slices.Contains(blind, i)}
	}
	d, err := a.rebuilt.Draft(to)
	if err != nil {
		return a.largeFault(err)
	}
	admission, f := a.admitLarge()
	if f != nil {
		return f
	}
	c := &drafting{a: a}
	ans, f := c.run(ctx, d, admission)
	if f != nil {
		c.discard(ctx)
		if f.uncertain {
			a.slot.Charge(len(batch))
		}
		a.log(f)
		return f
	}
	a.slot.Charge(len(batch))
	a.deliver(batch, ans)
	for _, i := range batch {
		a.results[i].Note = d.Note()
	}
	return nil
}

// largeFault makes a fault of an error of package large.
func (a *attempt) largeFault(err error) *fault {
	var (
		known   *fault
		refusal *large.Refusal
		odd     large.Odd
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return known
	case errors.As(err, &refusal):
		return messageFault(554, refusal.Enhanced,
			"the message is too large for Microsoft Graph as it is, and cannot be rebuilt for it: %s. "+
				"Send less than %d octets, a link, or by an SMTP upstream", refusal.Text, DefaultMessageSize)
	case errors.As(err, &odd):
		return &fault{stage: mail.StageData, class: mail.Deferral, answered: true,
			reply: mail.R(451, "4.3.0", "%s gave %s", a.u.host, odd)}
	}
	return contentFault(err)
}

// admitLarge holds large mail back while the right for it is missing, or the way its files go. Small mail has a breaker
// of its own.
func (a *attempt) admitLarge() (admission account.Admission, f *fault) {
	a.u.Update(func() {
		now, m := time.Now(), a.slot.Held()
		b := &m.large
		until, busy := b.Wait(now)
		if busy {
			until = now.Add(account.BackoffFirst)
		}
		if until.IsZero() {
			admission = b.Admit()
			return
		}
		f = &fault{stage: mail.StageMail, class: mail.BackPressure, ours: true, reply: b.Reply, note: m.largeNote,
			retryAfter: until.Sub(now)}
		if b.Status == upstream.Paused {
			f.class = mail.AccountFault
		}
	})
	return admission, f
}

// drafting is the way of one draft. It makes the requests of package large.
type drafting struct {
	a     *attempt
	asked bool   // Graph has granted a request, the first of which makes the draft
	path  string // of the draft; "" before there is one
}

// run makes, fills and sends the draft, and tells the breaker of large mail, which waits for that; also where it
// panics.
func (c *drafting) run(ctx context.Context, d *large.Draft, admission account.Admission) (ans *answer, f *fault) {
	f = contentFault(errStopped)
	defer func() { c.record(admission, f) }()
	var err error
	c.path, err = d.Make(ctx, c)
	if f = c.a.largeFault(err); f == nil {
		ans, f = c.send(ctx)
	}
	return ans, f
}

// record tells the breaker of large mail what came of it. A draft that was made is proof of the right, whatever came
// after.
func (c *drafting) record(adm account.Admission, f *fault) {
	n := account.News{}
	switch {
	case f != nil && f.aside && f.class == mail.AccountFault:
		n = account.News{Verdict: account.Fault, Reply: f.reply}
	case f != nil && f.aside:
		n = account.News{Verdict: account.Pressure, Reply: f.reply}
	case f == nil || c.path != "":
		n = account.News{Verdict: account.Works}
	}
	c.a.u.Update(func() {
		if m := c.a.slot.Held(); m.large.Record(time.Now(), adm, n, c.a.u.o.Jitter()) && f != nil {
			m.largeNote = f.note
		}
	})
}

// Ask makes a request of Graph before the draft is sent and, after a refused token, one more.
func (c *drafting) Ask(ctx context.Context, r large.Request) error {
	for {
		ans, f := c.a.u.exchange(ctx, c.a.u.mailboxURL(c.a.mailbox)+r.Path, c.a.token, stepOf(r))
		if f != nil {
			return f
		}
		if ans.status == r.Want {
			c.asked = true
			return nil
		}
		if f = c.refused(ans); !c.a.again(ctx, f) {
			return f
		}
	}
}

func stepOf(r large.Request) step {
	return step{method: r.Method, body: r.Body, media: r.Media, contentRange: r.ContentRange, field: r.Field}
}

// refused classifies an answer before the draft is sent: nothing was sent yet, so nothing is uncertain.
func (c *drafting) refused(ans *answer) *fault {
	f := c.a.u.refused(ans)
	f.uncertain = false
	switch {
	case f.rule.Right:
		f.rule, f.stage, f.aside = &noReadWrite, mail.StageMail, true
		f.note = c.a.u.adviceFor(&noReadWrite, c.a.mailbox, c.a.token)
		f.reply.Text += `; large_mail = "upload" needs Mail.ReadWrite`
	case f.rule.Way: // small mail finds out by itself
		f.aside = true
	case c.asked && (ans.status == http.StatusNotFound || ans.status == http.StatusConflict):
		return lostDraft(mail.StageData, "the draft is gone or was changed", ans)
	}
	return f
}

// lostDraft lets the message be tried again.
func lostDraft(stage mail.Stage, what string, ans *answer) *fault {
	return &fault{stage: stage, class: mail.Deferral, answered: true,
		reply: mail.R(451, "4.3.0", "%s: %s", what, ans.words())}
}

// Upload makes a request of an upload session. Its address lets in who has it: it gets no token, and is not logged.
func (c *drafting) Upload(ctx context.Context, address string, r large.Request) (large.Answer, error) {
	at, err := url.Parse(address)
	if err != nil {
		return nil, contentFault(errors.New("read the address of an upload session"))
	}
	u := c.a.u
	s := &uploadHost{c: c, peer: &Upstream{o: u.o, host: at.Host, client: u.client, log: u.log, ctx: u.ctx}}
	ans, f := s.peer.exchange(ctx, address, "", stepOf(r))
	if f != nil {
		s.setAside(f)
		return nil, f
	}
	s.ans = ans
	return s, nil
}

// uploadHost is an answer of the host that files go to. peer is the upstream with its name.
type uploadHost struct {
	c    *drafting
	peer *Upstream
	ans  *answer
}

// Status implements large.Answer.
func (s *uploadHost) Status() int { return s.ans.status }

// Refused implements large.Answer. What is said about the address of the session is about it alone.
func (s *uploadHost) Refused() error {
	f := s.peer.refused(s.ans)
	f.uncertain, f.stage = false, mail.StageData
	switch {
	case f.rule.Way: // which comes before the address of the session is
		s.setAside(f)
		return f
	case len(s.ans.codes) == 0:
	case f.class == mail.BackPressure, f.rule.Name == "mailbox-full", f.rule.Name == "daily-quota":
		return f // Exchange speaks of the mailbox
	}
	switch s.ans.status {
	case http.StatusOK, http.StatusCreated, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
		http.StatusConflict, http.StatusGone, http.StatusRequestedRangeNotSatisfiable:
		return lostDraft(mail.StageData, "the upload session is of no use any more", s.ans)
	}
	s.setAside(f)
	return f
}

// setAside keeps trouble of the upload host, or of the way to it, from pausing small mail, which does not go there.
func (s *uploadHost) setAside(f *fault) {
	host := s.peer.host
	if f.class != mail.AccountFault && f.class != mail.BackPressure || host == s.c.a.u.host && f.rule != nil &&
		!f.rule.Way {
		return
	}
	f.aside, f.note = true, "the files of large mail go to "+host+", which a firewall must let out too; smaller "+
		"mail is not affected"
}

// send sends the draft. From its request on the message may be gone, as with sendMail.
func (c *drafting) send(ctx context.Context) (*answer, *fault) {
	for {
		ans, f := c.sendOnce(ctx)
		if f != nil {
			return nil, f
		}
		if ans.accepted() {
			return ans, nil
		}
		f = c.a.u.refused(ans)
		if ans.status == http.StatusNotFound {
			f = lostDraft(mail.StageDot, "the draft is gone", ans)
		}
		if !c.a.again(ctx, f) {
			return nil, f
		}
	}
}

func (c *drafting) sendOnce(ctx context.Context) (*answer, *fault) {
	u := c.a.u
	// A transport of ours tells when it has written the request. Another is taken to have done so at once.
	var traced, wrote atomic.Bool
	gone := func() bool { return !traced.Load() || wrote.Load() }
	if c.a.t.Spare() <= 0 {
		return nil, leaseFault(mail.StageData)
	}
	ctx, release := u.guard(ctx, gone)
	defer release()
	ctx, breakOff := context.WithCancelCause(ctx)
	defer breakOff(nil)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { traced.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { // to connect may have taken long
			if c.a.t.Spare() <= 0 {
				breakOff(upstream.ErrLease)
			}
		},
		WroteHeaders: func() { wrote.Store(true) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.mailboxURL(c.a.mailbox)+c.path+"/send", http.NoBody)
	if err != nil {
		return nil, contentFault(err)
	}
	ans, err := u.do(req, c.a.token)
	if err != nil {
		return nil, u.lost(ctx, unwrapURL(err), gone())
	}
	return ans, nil
}

// discard deletes the draft of a message that was not sent, or may not have been: it is tried again either way. What
// was sent is no draft any more, so this cannot take it back.
func (c *drafting) discard(ctx context.Context) {
	if c.path == "" {
		return
	}
	u := c.a.u
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), u.o.Timeouts.Drain)
	defer cancel()
	ans, f := u.exchange(ctx, u.mailboxURL(c.a.mailbox)+c.path, c.a.token, step{method: http.MethodDelete})
	var reply string
	switch {
	case f != nil:
		reply = f.reply.String()
	case ans.status != http.StatusNoContent && ans.status != http.StatusNotFound:
		reply = ans.words()
	default:
		return
	}
	u.log.Warn("a draft may be left in the mailbox", "id", c.a.t.ID, "identity", c.a.mailbox, "reply", reply)
}

// large probes the right to make drafts, for a Test.
func (t *tester) large(ctx context.Context) bool {
	t.trial.Begins("large-mail")
	begun := time.Now()
	a, f := t.probe(ctx, t.u.mailboxURL(t.mailbox)+"/messages")
	if f == nil && !saysNoBase64(a) {
		f = t.faultOf(a)
		if f.rule.Right {
			f.rule, f.stage = &noReadWrite, mail.StageMail
		}
	}
	if f != nil {
		return t.add("large-mail", time.Since(begun), "", f)
	}
	return t.add("large-mail", time.Since(begun), "Graph would make drafts for "+mail.Printable(t.mailbox)+
		" (none was made). Files go to another host, outlook.office.com as a rule, which was not tried.", nil)
}
