package graph

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/internal/scrub"
)

func dialer(d time.Duration) *net.Dialer { return &net.Dialer{Timeout: d, KeepAlive: 30 * time.Second} }

// mailboxURL is https://graph.microsoft.com/v1.0/users/scanner@example.com.
func (u *Upstream) mailboxURL(mailbox string) string {
	return u.o.BaseURL + "/users/" + url.PathEscape(mailbox)
}

func (u *Upstream) sendMailURL(mailbox string) string { return u.mailboxURL(mailbox) + "/sendMail" }

// post sends one message and reads the answer. ctx is the caller's: see guard for what its end does.
func (u *Upstream) post(ctx context.Context, mailbox, token string, p *payload) (*answer, *fault) {
	first, err := p.open()
	if err != nil {
		return nil, contentFault(err)
	}
	var latest atomic.Pointer[encoder]
	latest.Store(first)
	defer func() { latest.Load().release() }()
	ctx, release := u.guard(ctx, func() bool { return latest.Load().gone.Load() })
	defer release()

	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.sendMailURL(mailbox), first)
	if err != nil {
		return nil, contentFault(err)
	}
	req.ContentLength = p.encoded()
	// The transport asks again by itself only where it is sure that Graph has seen nothing: a pooled connection that
	// was closed before the first octet, a stream that HTTP/2 says was refused.
	req.GetBody = func() (io.ReadCloser, error) {
		e, err := p.open()
		if err != nil {
			return nil, err
		}
		latest.Swap(e).release()
		return e, nil
	}
	req.Header.Set("Content-Type", "text/plain")
	a, err := u.do(req, token)
	e := latest.Load()
	switch failed := e.failed(); {
	case errors.Is(failed, upstream.ErrLease):
		return nil, leaseFault(mail.StageData)
	case failed != nil: // whatever is said of the part that was sent
		return nil, contentFault(failed)
	case err != nil:
		return nil, u.lost(ctx, err, e.gone.Load())
	case a.accepted() && !e.gone.Load(): // it cannot have taken what it did not get
		return nil, &fault{stage: mail.StageData, class: mail.Deferral, uncertain: true, answered: true,
			reply: mail.R(451, "4.4.2", "%s took the message before its end: %s", u.host, a.words())}
	}
	return a, nil
}

// step is a request that sends no message.
type step struct {
	method       string
	body         []byte
	media        string // of the body; "": JSON
	contentRange string
	field        func(name string, value json.RawMessage) // is shown the fields of a 2xx answer
}

// exchange makes one request that sends no message. It ends with ctx.
func (u *Upstream) exchange(ctx context.Context, target, token string, s step) (*answer, *fault) {
	ctx, release := u.guard(ctx, func() bool { return false })
	defer release()
	req, err := http.NewRequestWithContext(ctx, s.method, target, bytes.NewReader(s.body))
	if err != nil {
		return nil, contentFault(errors.New("make a request")) // err may have the address, which may be a secret
	}
	if s.method != http.MethodGet {
		media := s.media
		if media == "" {
			media = "application/json"
		}
		req.Header.Set("Content-Type", media)
	}
	if s.contentRange != "" {
		req.Header.Set("Content-Range", s.contentRange)
	}
	ans, err := u.doFields(req, token, s.field)
	if err != nil {
		return nil, u.lost(ctx, unwrapURL(err), false)
	}
	return ans, nil
}

// guard makes the context of one request. Its time is bounded. When the caller's ctx or the Upstream ends before the
// last octet is gone, the request ends there and then; behind it the answer is still waited for, at most
// Timeouts.Drain, because it decides about a duplicate.
func (u *Upstream) guard(caller context.Context, gone func() bool) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(caller))
	limit := time.AfterFunc(u.o.Timeouts.Request, func() { cancel(errTimeout) })
	drain := time.AfterFunc(u.o.Timeouts.Request, func() { cancel(errStopped) })
	drain.Stop() // until the caller has enough
	stop := context.AfterFunc(caller, func() {
		if gone() {
			drain.Reset(u.o.Timeouts.Drain)
			return
		}
		cancel(errStopped)
	})
	cut := context.AfterFunc(u.ctx, func() { cancel(errStopped) })
	if caller.Err() != nil { // it may have ended unnoticed, while the process stood still
		cancel(errStopped)
	}
	return ctx, func() {
		stop()
		cut()
		limit.Stop()
		drain.Stop()
		cancel(nil)
	}
}

// do asks and reads the answer. An answer whose body cannot be read is still one: its status line came.
func (u *Upstream) do(req *http.Request, token string) (*answer, error) {
	return u.doFields(req, token, nil)
}

// maxDraft bounds what is read of the answer to a draft, which has the draft in it, in octets.
const maxDraft = 16 << 20

// onTheWay is an error from before there was a connection: whatever its kind, Graph has seen nothing.
type onTheWay struct {
	error
	tls bool // the handshake had begun
}

func (e *onTheWay) Unwrap() error { return e.error }

// doFields is do, and shows the fields of an answer 2xx to field. What of it is not looked at, such as the file that
// was sent, is read all the same, so that the connection can be used again.
func (u *Upstream) doFields(req *http.Request, token string, field func(name string, value json.RawMessage)) (*answer,
	error) {
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("User-Agent", "Postern")
	req.Header.Set("Accept", "application/json")
	// A transport of ours tells how far it came. Another is taken to be connected at once.
	var begun, handshake, connected atomic.Bool
	trace := &httptrace.ClientTrace{
		GetConn:           func(string) { begun.Store(true) },
		TLSHandshakeStart: func() { handshake.Store(true) },
		GotConn:           func(httptrace.GotConnInfo) { connected.Store(true) },
	}
	res, err := u.client.Do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if err != nil && begun.Load() && !connected.Load() {
		return nil, &onTheWay{unwrapURL(err), handshake.Load()}
	}
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var body []byte
	rest := io.LimitReader(res.Body, maxDraft)
	if res.StatusCode/100 == 2 && field != nil {
		readFields(rest, field)
	} else {
		body, _ = io.ReadAll(io.LimitReader(rest, maxAnswer))
	}
	if res.StatusCode/100 == 2 {
		_, _ = io.Copy(io.Discard, rest)
	}
	if res.StatusCode/100 != 2 { // some repeat what they were sent
		secret := token
		if token == "" {
			secret = req.URL.RawQuery // of an upload's address, which lets in who has it
		}
		body = []byte(scrub.New(secret).Text(string(body)))
	}
	return readAnswer(res.StatusCode, res.Header, body, time.Now()), nil
}

// readFields shows the fields of a JSON object one by one. What is not JSON has none.
func readFields(r io.Reader, field func(name string, value json.RawMessage)) {
	d := json.NewDecoder(r)
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return
	}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return
		}
		field(name, value)
	}
}
