package graph

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/via"
)

// TestSenders goes the way of a delivery for the configured mailbox and sends nothing. It returns what happened up to
// the first failure: resolve, connect, tls, token, permission, and large-mail where it is rebuilt. It takes no slot,
// and the account hears nothing of the outcome. With AsThemselves it tries the mailbox of each sender too, which is who
// sends then; one that does not let us in does not keep the others from being tried: its mail would go by the
// configured one, which comes first. Without AsThemselves senders make no difference: Graph checks them with a message.
//
// The permission is probed with the very request of a delivery, whose body is no base64 at all: with Mail.Send, Graph
// answers 400 ErrorMimeContentInvalidBase64String, without it 403. So no right beside Mail.Send is needed to find out.
// The right to make drafts is probed in the same way. What cannot be found out without sending is whether the mailbox
// may use another address in From, and whether its quota is used up.
func (u *Upstream) TestSenders(ctx context.Context, trial upstream.Trial) []upstream.Step {
	t := tester{u: u, trial: trial, limit: time.Minute, mailbox: u.o.Username}
	if trial.Limit > 0 {
		t.limit = trial.Limit
	}
	defer t.client().CloseIdleConnections()
	if !t.connect(ctx) {
		return t.steps
	}
	t.box(ctx)
	if !trial.AsThemselves {
		return t.steps
	}
	for _, from := range trial.Senders {
		if ctx.Err() != nil {
			break
		}
		t.mailbox, t.sender = mail.LowerASCII(from.String()), from.String()
		t.box(ctx)
	}
	return t.steps
}

// box tries one mailbox up to the first failure.
func (t *tester) box(ctx context.Context) {
	steps := []func(context.Context) bool{t.fetch, t.permission}
	if t.u.o.LargeMail == UploadLarge {
		steps = append(steps, t.large)
	}
	for _, step := range steps {
		if !step(ctx) {
			return
		}
	}
}

// tester is one test with connections of its own.
type tester struct {
	u       *Upstream
	trial   upstream.Trial
	limit   time.Duration // of each step
	mailbox string
	sender  string    // whose mailbox it is; "" for the configured one
	own     *Upstream // u with a fresh transport
	token   string
	steps   []upstream.Step
}

func (t *tester) client() *http.Client {
	if t.own == nil {
		t.own = &Upstream{o: t.u.o, host: t.u.host, client: newClient(&t.u.o)}
	}
	return t.own.client
}

func (t *tester) add(name string, took time.Duration, seen string, f *fault) bool {
	s := upstream.Step{Name: name, OK: f == nil, Took: took, Seen: seen, Sender: t.sender, Identity: t.mailbox}
	if f != nil {
		s.Cause, s.Reply = explain(f, t.u.adviceFor(f.rule, t.mailbox, t.token)), f.reply
		if t.sender != "" && f.stage == mail.StageAuth && f.class == mail.AccountFault {
			s.Cause += " Until then this sender's mail goes by " + mail.Printable(t.u.o.Username) +
				", which needs Send As for the address."
		}
	}
	t.steps = append(t.steps, s)
	t.trial.Ends(s)
	return f == nil
}

func explain(f *fault, fix string) string {
	text := f.reply.Text
	switch {
	case fix != "":
		return text + ". What to do: " + fix + "."
	case f.stage == mail.StageResolve:
		return text + ": check host, and the name servers of this machine."
	case f.stage == mail.StageConnect && throughProxy(f.err):
		return text
	case f.stage == mail.StageConnect:
		return text + ": check whether a firewall or proxy lets this machine out to port 443."
	}
	return text
}

// connect asks for the service root without a token. Whatever the answer is, the way is open.
func (t *tester) connect(ctx context.Context) bool {
	var phases phases
	phases.told = t.trial
	ctx, cancel := context.WithTimeout(httptrace.WithClientTrace(ctx, phases.trace()), t.limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.u.o.BaseURL+"/", nil)
	if err != nil {
		return t.add("connect", 0, "", contentFault(err))
	}
	t.trial.Begins("connect")
	begun := time.Now()
	_, err = t.own.do(req, "")
	phases.mu.Lock()
	phases.over = true
	t.steps = append(t.steps, phases.done...)
	name := phases.next()
	phases.mu.Unlock()
	if err == nil {
		if len(t.steps) == 0 { // a transport that tells nothing
			t.add("connect", time.Since(begun), t.u.host, nil)
		}
		return true
	}
	f := t.u.unreached(unwrapURL(err))
	if f == nil {
		f = &fault{stage: mail.StageConnect, class: mail.BackPressure, err: err,
			reply: mail.R(451, "4.4.2", "%s %s", t.u.host, describe(err))}
	}
	if throughProxy(err) {
		name = "proxy"
	}
	return t.add(name, time.Since(begun), "", f)
}

// throughProxy reports an error of the way through a proxy, which says what to do.
func throughProxy(err error) bool {
	var proxy *via.Error
	return errors.As(err, &proxy)
}

// unwrapURL takes off the words of net/http: method and URL say nothing here.
func unwrapURL(err error) error {
	if e, ok := err.(*url.Error); ok {
		return e.Err
	}
	return err
}

func (t *tester) fetch(ctx context.Context) bool {
	begun := time.Now()
	t.trial.Begins("token")
	ctx, cancel := context.WithTimeout(ctx, t.limit)
	defer cancel()
	token, err := t.u.token(ctx, t.mailbox)
	if err != nil {
		return t.add("token", time.Since(begun), "", tokenFault(err))
	}
	t.token = token
	return t.add("token", time.Since(begun),
		"an access token for "+mail.Printable(t.mailbox)+readRights(token).describe(), nil)
}

// notBase64 has no letter of base64's alphabet: there is nothing in it that could be sent.
const notBase64 = "!!!!"

func (t *tester) permission(ctx context.Context) bool {
	t.trial.Begins("permission")
	begun := time.Now()
	a, f := t.probe(ctx, t.u.sendMailURL(t.mailbox))
	if f == nil && !saysNoBase64(a) {
		f = t.faultOf(a)
	}
	if f != nil {
		return t.add("permission", time.Since(begun), "", f)
	}
	return t.add("permission", time.Since(begun), "Graph would take mail for "+mail.Printable(t.mailbox)+
		" (nothing was sent). Not checked, because it shows only when mail is sent: other addresses in From, and "+
		"what is left of the quota.", nil)
}

func saysNoBase64(a *answer) bool {
	return a.status == http.StatusBadRequest && slices.ContainsFunc(a.codes,
		func(code string) bool { return strings.HasPrefix(code, "ErrorMimeContent") })
}

// faultOf makes a fault of an answer to a probe.
func (t *tester) faultOf(a *answer) *fault {
	f := t.u.refused(a)
	if f.rule.DropToken {
		t.u.o.DropToken(t.mailbox, t.token)
	}
	if f.rule.Name == unknownRule || a.status/100 == 2 {
		f.reply = mail.R(451, "4.3.0", "Graph gave an unexpected answer to a request that cannot be mail: %s",
			a.words())
	}
	return f
}

func (t *tester) probe(ctx context.Context, target string) (*answer, *fault) {
	ctx, cancel := context.WithTimeout(ctx, t.limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(notBase64))
	if err != nil {
		return nil, contentFault(err)
	}
	req.Header.Set("Content-Type", "text/plain")
	a, err := t.own.do(req, t.token)
	if err == nil {
		return a, nil
	}
	f := t.u.unreached(unwrapURL(err))
	if f == nil {
		f = &fault{stage: mail.StageDot, class: mail.Deferral, err: err,
			reply: mail.R(451, "4.4.2", "%s %s", t.u.host, describe(err))}
	}
	return nil, f
}

// phases notes how a connection came about. The transport calls from goroutines of its own.
type phases struct {
	mu       sync.Mutex // guards what follows
	begun    time.Time
	done     []upstream.Step
	resolved bool
	over     bool // what comes now is nobody's concern
	told     upstream.Trial
}

// next is the phase that was not reached.
func (p *phases) next() string {
	switch {
	case len(p.done) == 0 && !p.resolved:
		return "resolve"
	case len(p.done) > 0 && p.done[len(p.done)-1].Name == "connect":
		return "tls"
	}
	return "connect"
}

func (p *phases) start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun = time.Now()
}

func (p *phases) end(name, seen string, err error) {
	if err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.done {
		if s.Name == name || p.over {
			return // another address of the same name
		}
	}
	s := upstream.Step{Name: name, OK: true, Took: time.Since(p.begun), Seen: seen}
	p.done = append(p.done, s)
	p.told.Ends(s)
}

func (p *phases) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		DNSStart: func(httptrace.DNSStartInfo) { p.start() },
		DNSDone: func(i httptrace.DNSDoneInfo) {
			addrs := make([]string, len(i.Addrs))
			for n, a := range i.Addrs {
				addrs[n] = a.String()
			}
			p.end("resolve", strings.Join(addrs, ", "), i.Err)
		},
		ConnectStart: func(string, string) {
			p.start()
			p.mu.Lock()
			p.resolved = true
			p.mu.Unlock()
		},
		ConnectDone:       func(_, address string, err error) { p.end("connect", address, err) },
		TLSHandshakeStart: p.start,
		TLSHandshakeDone: func(s tls.ConnectionState, err error) {
			p.end("tls", describeTLS(s), err)
		},
	}
}

func describeTLS(s tls.ConnectionState) string {
	if len(s.PeerCertificates) == 0 {
		return tls.VersionName(s.Version)
	}
	cert := s.PeerCertificates[0]
	return tls.VersionName(s.Version) + ", " + tls.CipherSuiteName(s.CipherSuite) + ", certificate by " + issuer(cert) +
		", valid until " + cert.NotAfter.UTC().Format(time.DateOnly)
}

func issuer(cert *x509.Certificate) string {
	if n := cert.Issuer.Organization; len(n) > 0 {
		return mail.Printable(n[0])
	}
	return mail.Printable(cert.Issuer.CommonName)
}
