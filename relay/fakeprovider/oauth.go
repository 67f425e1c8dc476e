package fakeprovider

import (
	"cmp"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// AnyMailbox is the identity of a token that an application got for itself: it is good for every mailbox that the
// application may use.
const AnyMailbox = "*"

// Client is an application that the OAuth server knows.
type Client struct {
	ID          string
	Secret      string            // empty: a public client, or one with a certificate
	Certificate *x509.Certificate // proves signed assertions
	// Scopes that it may ask for; empty is any.
	Scopes []string
	// Redirects that it may name, beside any port of http://localhost and http://127.0.0.1.
	Redirects []string
}

// Account is a service account that may act for mailboxes.
type Account struct {
	Email     string
	Key       *rsa.PublicKey
	Mailboxes []string // empty: any
}

// OAuthOptions configure the OAuth server. The zero value is a generic server with tokens of an hour.
type OAuthOptions struct {
	// Microsoft makes errors look like Microsoft's: AADSTS numbers, error_codes, trace ids.
	Microsoft bool
	// Lifetime of an access token; 0 is an hour.
	Lifetime time.Duration
	// RefreshLifetime is how long a refresh token lives unused; 0 is 90 days.
	RefreshLifetime time.Duration
	// KeepRefresh hands out no new refresh token when one is used. Else each is good for one use, and a second use
	// revokes the whole consent (RFC 9700 §4.14.2).
	KeepRefresh bool
	// ScopeAtRefresh wants scope with a refresh token too, as Microsoft does of some applications.
	ScopeAtRefresh bool
	// NoExpiresIn leaves expires_in out.
	NoExpiresIn bool
	// RefreshExpiresIn says how long the consent lives at all, as Google does in testing; 0 says nothing.
	RefreshExpiresIn time.Duration

	// DeviceInterval is what is asked of those who poll; 0 is 5 s. DeviceLife is how long a code lives; 0 is 15 min.
	DeviceInterval, DeviceLife time.Duration
	// Consenter is who consents by himself: at once in a browser, and after DevicePolls answers of "pending" to a
	// device. Empty: ConsentDevice and the form in the browser decide.
	Consenter   string
	DevicePolls int

	// Now is the clock; nil is time.Now. Advance moves it on.
	Now func() time.Time
}

// Fault is how the OAuth server misbehaves.
type Fault struct {
	// Endpoint is "token", "device" or "authorize"; empty is every one.
	Endpoint string
	// Times is how often; 0 is until the fault is taken away.
	Times int
	// Delay goes before whatever comes.
	Delay time.Duration
	// Drop closes the connection without an answer. With AfterWork the request takes effect first: a lost answer.
	Drop, AfterWork bool
	// Status and Body are answered instead, with RetryAfter in seconds if above 0.
	Status     int
	Body       string
	RetryAfter int
	// Error and Description are answered as RFC 6749 §5.2 has it, with AADSTS in front if above 0.
	Error, Description string
	AADSTS             int
}

// OAuth is a fake authorization server. It is an http.Handler; Listen serves it on loopback. Paths are told by
// their end: .../token, .../devicecode or .../device/code, .../authorize or .../auth.
type OAuth struct {
	o OAuthOptions

	mu       sync.Mutex // guards what follows
	skew     time.Duration
	clients  map[string]Client
	accounts map[string]Account
	tokens   map[string]*issued
	refresh  map[string]*refreshToken
	devices  map[string]*device // by device code
	codes    map[string]*authCode
	seen     map[string]bool // jti of assertions
	faults   []Fault
	counts   map[string]int
}

// issued is an access token.
type issued struct {
	identity string
	client   string
	scopes   []string
	expires  time.Time
	family   *consent
}

// consent is what a person allowed. Everything that comes from it dies with it.
type consent struct {
	identity string
	client   string
	scopes   []string
	revoked  bool
	ends     time.Time // zero: never
}

type refreshToken struct {
	family  *consent
	used    bool
	expires time.Time
}

// NewOAuth makes a server without clients.
func NewOAuth(o OAuthOptions) *OAuth {
	o.Lifetime, o.RefreshLifetime = cmp.Or(o.Lifetime, time.Hour), cmp.Or(o.RefreshLifetime, 90*24*time.Hour)
	o.DeviceInterval, o.DeviceLife = cmp.Or(o.DeviceInterval, 5*time.Second), cmp.Or(o.DeviceLife, 15*time.Minute)
	if o.Now == nil {
		o.Now = time.Now
	}
	return &OAuth{
		o: o, clients: map[string]Client{}, accounts: map[string]Account{}, tokens: map[string]*issued{},
		refresh: map[string]*refreshToken{}, devices: map[string]*device{}, codes: map[string]*authCode{},
		seen: map[string]bool{}, counts: map[string]int{},
	}
}

// AddClient makes an application known, or replaces it.
func (a *OAuth) AddClient(c Client) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.clients[c.ID] = c
}

// AddAccount makes a service account known, or replaces it.
func (a *OAuth) AddAccount(s Account) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.accounts[s.Email] = s
}

// Advance moves the clock on.
func (a *OAuth) Advance(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.skew += d
}

func (a *OAuth) nowLocked() time.Time { return a.o.Now().Add(a.skew) }

// Set changes the options while the server runs; Now stays.
func (a *OAuth) Set(change func(*OAuthOptions)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.o.Now
	change(&a.o)
	a.o.Now = now
}

// Fail sets the faults, in order: the first that fits a request is what it meets. Without any the server works.
func (a *OAuth) Fail(faults ...Fault) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults = faults
}

// Valid reports whether an access token is good now, for whom and for what. An application's own token is for
// AnyMailbox.
func (a *OAuth) Valid(token string) (identity string, scopes []string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tokens[token]
	if t == nil || !a.nowLocked().Before(t.expires) || t.family != nil && t.family.revoked {
		return "", nil, false
	}
	return t.identity, slices.Clone(t.scopes), true
}

// RevokeConsents ends what a person has consented to, with every token that came of it.
func (a *OAuth) RevokeConsents(identity string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.refresh {
		if r.family.identity == identity {
			r.family.revoked = true
		}
	}
}

// Requests is how often an endpoint was asked: "token", "device", "authorize", or "token:" and a grant type, such as
// "token:refresh_token".
func (a *OAuth) Requests(what string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.counts[what]
}

// Counts is all that Requests knows.
func (a *OAuth) Counts() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.counts)
}

// Running is a fake on a socket.
type Running struct {
	URL    string
	server *http.Server
	done   chan struct{}
}

// Listen serves on a loopback port of the system's choice: HTTPS with a configuration, plain HTTP with nil.
func (a *OAuth) Listen(conf *tls.Config) (*Running, error) { return listen(a, conf) }

func listen(h http.Handler, conf *tls.Config) (*Running, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Running{URL: "http://" + ln.Addr().String(), done: make(chan struct{})}
	r.server = &http.Server{Handler: h, TLSConfig: conf.Clone(), ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: log.New(io.Discard, "", 0)}
	serve := func() error { return r.server.Serve(ln) }
	if conf != nil {
		r.URL = "https://" + ln.Addr().String()
		serve = func() error { return r.server.ServeTLS(ln, "", "") }
	}
	go func() {
		defer close(r.done)
		_ = serve()
	}()
	return r, nil
}

// Close ends the server and waits for it.
func (r *Running) Close() error {
	err := r.server.Close()
	<-r.done
	return err
}
