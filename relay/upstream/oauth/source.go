package oauth

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"postern/mail"
)

// Token is an access token and when it ends.
type Token struct {
	AccessToken Secret
	Expiry      time.Time
}

const (
	// timeout bounds a Token call and whatever it asks of servers and store. It stays under leaseFor.
	timeout = 30 * time.Second
	// maxIdentities bounds the mailboxes whose tokens are kept. One that is forgotten costs a request.
	maxIdentities = 10_000
	// maxRequests bounds what is asked of the token endpoint at a time.
	maxRequests = 8
	// A token is replaced between early and 2*early before its end, by chance, so that nodes and mailboxes spread.
	early = 5 * time.Minute
	// spare is the life that a token must have to be handed out: it still has to reach AUTH.
	spare = 30 * time.Second
	// trust is how long a token that replaced a refused one is not replaced again: the token is not what is wrong.
	trust = 10 * time.Minute
	// lookEvery is how often the store is asked whether a person has logged in again.
	lookEvery = 10 * time.Second
)

// Source gives access tokens for one upstream.
type Source struct {
	o         Options
	node      string // this process among those that share Grants: two never share a lease
	p         *provider
	transport http.RoundTripper
	cert      *certificate
	account   *serviceAccount
	names     *strings.Replacer // in fixes

	ctx   context.Context // of the flights
	stop  context.CancelFunc
	wg    sync.WaitGroup
	slots chan struct{} // one for each request under way

	// pending belongs to the flight that refreshes; there is one at a time, because a grant has one entry.
	pending *pending

	mu      sync.Mutex // guards what follows
	closed  bool
	entries *simplelru.LRU[string, *entry]
	endures pressure
	known   struct{ refreshed, ends time.Time }
}

// entry is the state of one token. Fields are guarded by Source.mu.
type entry struct {
	token     Token
	refreshAt time.Time
	refused   Secret    // dropped after a 535; the next must be another
	replaced  time.Time // when token came in place of a refused one

	fault  *Error // account fault, until retryAt
	faults int
	looked time.Time
	flight *flight
}

// flight is one fetch that any number of callers wait for.
type flight struct {
	done    chan struct{}
	started time.Time
	token   Token
	err     *Error
}

// NewSource checks the options. The error names the key of [upstream.oauth] that is wrong and what to write.
func NewSource(o Options) (*Source, error) {
	account, err := parseServiceAccount(o.ServiceAccount)
	if err != nil {
		return nil, err
	}
	if account != nil && o.TokenURL == "" {
		o.TokenURL = account.tokenURL
	}
	if bad := o.Check(); len(bad) > 0 {
		return nil, bad[0]
	}
	switch {
	case o.Upstream == "":
		return nil, errors.New("the upstream has no name")
	case o.Flow.Delegated() && (o.Grants == nil || o.Sealer == nil):
		return nil, fmt.Errorf("flow %s: no store for the grant", o.Flow)
	}
	p := resolve(&o)
	s := &Source{node: rand.Text(), p: p, account: account, slots: make(chan struct{}, maxRequests)}
	if s.cert, err = parseCertificate(o.Certificate); err != nil {
		return nil, err
	}
	if s.transport, err = newTransport(&o); err != nil {
		return nil, err
	}
	s.entries, _ = simplelru.NewLRU[string, *entry](maxIdentities, nil) // fails for a size below 1 only
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.o = withDefaults(o)
	s.names = strings.NewReplacer("{name}", mail.Printable(o.Upstream), "{client}", mail.Printable(o.ClientID),
		"{tenant}", mail.Printable(o.Tenant), "{host}", tokenHost(p))
	return s, nil
}

func withDefaults(o Options) Options {
	o.Logger = cmp.Or(o.Logger, slog.New(slog.NewTextHandler(io.Discard, nil)))
	o.Logger = o.Logger.With("upstream", o.Upstream)
	if o.Jitter == nil {
		o.Jitter = mathrand.Float64
	}
	return o
}

// Token returns a token that is good for a login as identity, which is the mailbox. It returns at once while there is a
// valid token, and within 30 s else. The error is an *Error.
func (s *Source) Token(ctx context.Context, identity string) (Token, error) {
	s.mu.Lock()
	e := s.entryLocked(identity)
	now := time.Now()
	if s.usable(e.token, now) {
		t := e.token
		if !now.Before(e.refreshAt) {
			_, _ = s.startLocked(e, s.subject(identity), now) // what it brings is for the next
		}
		s.mu.Unlock()
		return t, nil
	}
	f, err := s.startLocked(e, s.subject(identity), now)
	s.mu.Unlock()
	if err != nil {
		return Token{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	select {
	case <-f.done:
	case <-ctx.Done():
		return Token{}, pressureError(codeStopped, "there was no time to wait for a token", context.Cause(ctx))
	}
	if f.err != nil {
		return Token{}, f.err
	}
	return f.token, nil
}

// Drop takes back a token that the upstream has refused with 535, so that the next Token brings another. It reports
// whether another try makes sense: not so if the token itself came in place of a refused one a short while ago. Then
// the token is kept, for the mailboxes that it works for, and the account is what a person must look at.
func (s *Source) Drop(identity string, refused Secret) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entryLocked(identity)
	if !e.token.AccessToken.Equal(refused) {
		return true // there is another one already, or it is under way
	}
	if !e.replaced.IsZero() && time.Since(e.replaced) < trust {
		return false
	}
	e.token, e.refused = Token{}, refused
	return true
}

// Forget drops everything that is remembered, also troubles, so that the next Token asks.
func (s *Source) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries.Values() {
		e.token, e.fault, e.faults, e.replaced = Token{}, nil, 0, time.Time{}
	}
	s.endures = pressure{}
}

// Close gives up what is under way and waits for it.
func (s *Source) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.wg.Wait()
}

// subject is whom a token is for: the mailbox of a service account, and nobody in particular else.
func (s *Source) subject(identity string) string {
	if s.o.Flow == ServiceAccount {
		return identity
	}
	return ""
}

func (s *Source) entryLocked(identity string) *entry {
	key := mail.LowerASCII(s.subject(identity))
	if e, ok := s.entries.Get(key); ok {
		return e
	}
	e := new(entry)
	s.entries.Add(key, e)
	return e
}

func (s *Source) usable(t Token, now time.Time) bool {
	return !t.AccessToken.IsZero() && now.Before(t.Expiry.Add(-spare))
}

// startLocked returns the flight that is under way, or starts one, or says why it is not the time.
func (s *Source) startLocked(e *entry, subject string, now time.Time) (*flight, *Error) {
	switch {
	case e.flight != nil:
		return e.flight, nil
	case s.closed:
		return nil, pressureError(codeStopped, "postern is shutting down", context.Canceled)
	case e.fault != nil && now.Before(e.fault.Retry) && !s.mayLookLocked(e, now):
		return nil, e.fault
	}
	if err := s.endures.enter(now); err != nil {
		return nil, err
	}
	f := &flight{done: make(chan struct{}), started: now}
	e.flight = f
	s.wg.Add(1)
	go s.fly(e, f, subject)
	return f, nil
}

// mayLookLocked: a login by another process ends an account fault of a grant at once, so the store is asked now and
// then.
func (s *Source) mayLookLocked(e *entry, now time.Time) bool {
	return s.o.Flow.Delegated() && now.Sub(e.looked) >= lookEvery
}

// fly fetches, records the outcome and lets the callers go. It does not end with a caller: others wait too.
func (s *Source) fly(e *entry, f *flight, subject string) {
	defer s.wg.Done()
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	var t Token
	var err *Error
	select {
	case s.slots <- struct{}{}:
		t, err = s.fetch(ctx, e, subject)
		<-s.slots
	case <-ctx.Done():
		err = pressureError(codeUnreachable, "too many tokens are waited for", context.Cause(ctx))
	}
	s.mu.Lock()
	s.recordLocked(e, f, t, err, time.Now())
	s.mu.Unlock()
	s.log(subject, f)
	close(f.done)
}

func (s *Source) fetch(ctx context.Context, e *entry, subject string) (Token, *Error) {
	s.mu.Lock()
	not := []Secret{e.token.AccessToken, e.refused}
	fault := e.fault
	e.looked = time.Now()
	s.mu.Unlock()
	switch {
	case s.o.Flow == ServiceAccount:
		return s.fetchAs(ctx, subject)
	case s.o.Flow == ClientCredentials:
		return s.fetchOnce(ctx, url.Values{"grant_type": {"client_credentials"}}, s.p.scopes)
	case fault != nil && time.Now().Before(fault.Retry):
		if !s.mended(ctx, fault) {
			return Token{}, fault
		}
	}
	return s.refresh(ctx, not)
}

func (s *Source) fetchAs(ctx context.Context, subject string) (Token, *Error) {
	if subject == "" {
		return Token{}, s.fault("no_subject", "a service account acts for a mailbox, and none is named",
			"set username in [[upstream]] {name}, or identity = \"sender\"")
	}
	assertion, err := s.account.assertion(subject, s.p.scopes, s.p.endpoint.TokenURL, time.Now())
	if err != nil {
		return Token{}, s.fault("service_account_file", err.Error(), "check the key in service_account_file")
	}
	return s.fetchOnce(ctx, url.Values{"grant_type": {jwtBearer}, "assertion": {assertion.Reveal()}}, nil)
}

func (s *Source) fetchOnce(ctx context.Context, v url.Values, scopes []string) (Token, *Error) {
	r, err := s.request(ctx, v, scopes)
	if err != nil {
		return Token{}, err
	}
	return Token{r.access, r.expiry}, nil
}

// mended reports whether the stored grant is not the one that the fault was about. A store that does not answer mends
// nothing.
func (s *Source) mended(ctx context.Context, fault *Error) bool {
	g, version, err := s.loadGrant(ctx)
	if err != nil && err.Temporary() {
		return false
	}
	return aboutGrant(g, version) != fault.about
}

// recordLocked makes of the outcome the state that the next callers meet.
func (s *Source) recordLocked(e *entry, f *flight, t Token, err *Error, now time.Time) {
	e.flight = nil
	switch {
	case err == nil:
		s.endures = pressure{}
		e.fault, e.faults, e.replaced = nil, 0, time.Time{}
		if !e.refused.IsZero() {
			e.replaced, e.refused = now, Secret{}
		}
		e.token, e.refreshAt = t, refreshAt(t, now, s.o.Jitter())
		f.token = t
		return
	case err == e.fault: // looked at, and nothing new
		s.endures.leave()
	case err.Class == mail.AccountFault:
		s.endures = pressure{} // the server works
		err.Retry = now.Add(backoff(faultFirst, faultLast, e.faults, s.o.Jitter()))
		e.fault, e.faults = err, e.faults+1
	default:
		s.endures.add(err, f.started, now, s.o.Jitter())
	}
	f.err = err
}

func (s *Source) log(subject string, f *flight) {
	attrs := []any{}
	if subject != "" {
		attrs = append(attrs, "identity", mail.Printable(subject))
	}
	switch {
	case f.err == nil:
		s.o.Logger.Debug("access token fetched", append(attrs, "expiry", f.token.Expiry)...)
	case f.err.Code == codeStopped:
	default:
		level := slog.LevelWarn
		if f.err.Class == mail.AccountFault {
			level = slog.LevelError
		}
		attrs = append(attrs, "class", f.err.Class.String(), "code", f.err.Code, "cause", f.err.Cause, "fix", f.err.Fix,
			"detail", f.err.Detail, "retry", f.err.Retry)
		if f.err.Err != nil {
			attrs = append(attrs, "err", mail.Printable(f.err.Err.Error()))
		}
		s.o.Logger.Log(s.ctx, level, "no access token", attrs...)
	}
}
