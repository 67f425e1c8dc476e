// Package graph sends mail through Microsoft Graph, for tenants where SMTP AUTH is off: one HTTPS request for each message,
// POST {base}/users/{mailbox}/sendMail with the message as MIME in base64. It stands beside the smart host client and has
// the same words: places, states, transactions, one mail.Result for each recipient.
//
// Graph knows no envelope. It sends to whoever the header names, so the package compares the two before it says anything:
// recipients that the header lacks get a Bcc field, which Exchange takes out again; a header that names somebody outside the
// envelope is refused, because that person would get the mail. The reverse-path is not carried (Exchange sends from the
// mailbox), neither are the parameters of DSN. Bodies are never recoded: what does not fit one request is refused, unless
// Options.LargeMail lets it be taken apart into a draft and its files (see large.go).
//
// Failure semantics:
//   - Delivered is 202 and nothing else. Another 2xx has been seen for mail that was not sent: it defers and is Uncertain.
//   - What is about us (token, permission, mailbox, quota, throttling, network) is AccountFault or BackPressure; the mailbox
//     waits (see gate), the mail does not fail.
//   - ErrorSendAsDenied is an account fault of one header author; the mailbox goes on with others.
//   - Silence, or 500, 502 or 504, after the last octet of a request defers and is Uncertain: Graph has been seen to send such
//     mail. A request that was cut before its last octet is certain: Graph has not got it.
//   - A draft is nobody's mail: what fails before it is sent is certain, and the draft is deleted. A right to make drafts that is
//     missing holds large mail back, and no other.
//   - 429 and 503 are no acceptance, even if the field has seen a few that were.
//   - What Graph says is bounded, made printable, and kept with its request id. Redirects are not followed.
package graph

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"postern/relay/upstream"
	"postern/relay/upstream/graph/large"
	"postern/relay/upstream/via"
)

// GlobalURL is the service root of Microsoft's worldwide cloud.
const GlobalURL = "https://graph.microsoft.com/v1.0"

// The service roots of the clouds, by the names that [upstream.oauth] has for them (learn.microsoft.com/graph/deployments).
var cloudURLs = map[string]string{
	"":           GlobalURL,
	"us-gov":     "https://graph.microsoft.us/v1.0",
	"us-gov-dod": "https://dod-graph.microsoft.us/v1.0",
	"china":      "https://microsoftgraph.chinacloudapi.cn/v1.0",
}

// CloudURL returns the service root of a cloud: "", us-gov, us-gov-dod or china. For any other name it returns "".
func CloudURL(cloud string) string { return cloudURLs[cloud] }

// Limits that Microsoft publishes, or that were seen.
const (
	// DefaultConnections: Graph runs four requests at a time for an application and a mailbox
	// (learn.microsoft.com/graph/throttling-limits, Outlook service limits).
	DefaultConnections = 4
	// DefaultMessageSize is in octets of MIME. A request may have 4 MB, of which base64 takes a quarter.
	DefaultMessageSize = 3_000_000
	// DefaultUploadSize is in octets of MIME: Exchange Online sends messages up to 35 MB unless the tenant set more.
	DefaultUploadSize = 35_000_000
	// MaxUploadSize is in octets of MIME: no tenant can set more than 150 MB.
	MaxUploadSize = 150_000_000
	// DefaultRecipients is in the envelope of one message; Exchange Online allows 500 unless the tenant set more.
	DefaultRecipients = 500
)

// Options describe one upstream. They are not changed after New.
type Options struct {
	Name    string // as in relay.toml; in every result
	Mailbox string // where identity is ""; an address or an object id
	BaseURL string // service root with its version; "": GlobalURL. https only

	// RootCAs are the trust anchors; nil: the system's.
	RootCAs            *x509.CertPool
	InsecureSkipVerify bool // the caller answers for it, and says so aloud

	// Token gives an access token that is good for the mailbox. An error with a method Temporary() bool that returns false
	// pauses the mailbox, any other backs off. DropToken is told of a token that Graph refused; the next Token must be
	// another, where there is another. Both must be safe for concurrent use.
	Token     func(ctx context.Context, mailbox string) (string, error)
	DropToken func(mailbox, token string)

	// Delegated: tokens are of a person who has logged in. Advice differs.
	Delegated bool

	MaxConnections int   // requests at a time for each mailbox; 0: DefaultConnections
	MaxMessageSize int64 // octets of MIME; 0: DefaultMessageSize, with UploadLarge DefaultUploadSize
	MaxRecipients  int   // of one message; 0: DefaultRecipients
	Timeouts       Timeouts

	// LargeMail says what becomes of a message over DefaultMessageSize: RefuseLarge, which is also "", or UploadLarge.
	LargeMail string

	Rates  []upstream.Rate     // for each mailbox; none: as fast as Graph takes
	Quotas upstream.QuotaStore // nil: a restart forgets what was sent

	// Rules come before the built-in ones.
	Rules []Rule

	// Dial makes connections, through a proxy or not; nil: directly, or through the proxy of the environment.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	Transport http.RoundTripper // nil: one of our own, with Dial
	Jitter    func() float64    // in [0, 1); nil: math/rand
	Logger    *slog.Logger
}

// Timeouts bound each wait. Zero fields take the defaults.
type Timeouts struct {
	Connect time.Duration // for the name and each address, 15 s
	TLS     time.Duration // the handshake, 30 s
	Token   time.Duration // 1 min
	Request time.Duration // from the first octet to the last of the answer, 10 min as for the final dot of SMTP
	Drain   time.Duration // how long a cancelled Send still waits for the answer to a whole request, 10 s
}

func (o Options) withDefaults() (Options, error) {
	if o.Token == nil {
		return o, fmt.Errorf("upstream %s: microsoft-graph needs an [upstream.oauth] table: Graph takes no password", o.Name)
	}
	if o.Mailbox == "" || strings.ContainsAny(o.Mailbox, " \t\r\n<>/?#") {
		return o, fmt.Errorf("upstream %s: username %q is no mailbox; write its address", o.Name, o.Mailbox)
	}
	if o.BaseURL == "" {
		o.BaseURL = GlobalURL
	}
	o.BaseURL = strings.TrimRight(o.BaseURL, "/")
	if o.DropToken == nil {
		o.DropToken = func(string, string) {}
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = DefaultConnections
	}
	switch {
	case o.LargeMail == "":
		o.LargeMail = RefuseLarge
	case o.LargeMail != RefuseLarge && o.LargeMail != UploadLarge:
		return o, fmt.Errorf("upstream %s: large_mail is %q, not %s or %s", o.Name, o.LargeMail, RefuseLarge, UploadLarge)
	}
	most := int64(DefaultMessageSize)
	if o.LargeMail == UploadLarge {
		most = DefaultUploadSize
	}
	if o.MaxMessageSize <= 0 {
		o.MaxMessageSize = most
	}
	if o.MaxRecipients <= 0 {
		o.MaxRecipients = DefaultRecipients
	}
	for _, r := range o.Rates {
		if err := r.Check(); err != nil {
			return o, fmt.Errorf("upstream %s: %w", o.Name, err)
		}
	}
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Timeouts.setDefaults()
	return o, nil
}

func (t *Timeouts) setDefaults() {
	set := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	set(&t.Connect, 15*time.Second)
	set(&t.TLS, 30*time.Second)
	set(&t.Token, time.Minute)
	set(&t.Request, 10*time.Minute)
	set(&t.Drain, 10*time.Second)
}

// Upstream is Graph as one configured provider. All methods are safe for concurrent use.
type Upstream struct {
	o      Options
	host   string // of BaseURL
	rules  []matcher
	client *http.Client
	log    *slog.Logger

	ctx  context.Context // ends when what still runs is to be cut off
	stop context.CancelFunc

	large *large.Rebuilder

	mu        sync.Mutex // guards what follows, and every mailbox
	mailboxes map[string]*mailbox
	places    int // of all mailboxes
	onChange  func()
	closed    bool
	drained   chan struct{} // closed when closed and places is 0
	saver     *time.Timer   // the next save, nil: nothing to save
	inherited bool          // another Upstream counts from here on
	saved     bool          // for the last time

	saving sync.Mutex // held while the quotas are written, never within mu
}

// New checks the options, reads what Quotas has kept and prepares an Upstream. It opens no connection.
func New(o Options) (*Upstream, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	base, err := url.Parse(o.BaseURL)
	if err != nil || base.Scheme != "https" || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, fmt.Errorf("upstream %s: base URL %q is not like %s", o.Name, o.BaseURL, GlobalURL)
	}
	rules, err := compileRules(o.Rules)
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", o.Name, err)
	}
	u := &Upstream{
		o: o, host: base.Host, rules: rules, client: newClient(&o), log: o.Logger.With("upstream", o.Name),
		mailboxes: make(map[string]*mailbox), drained: make(chan struct{}), large: large.New(),
	}
	u.ctx, u.stop = context.WithCancel(context.Background())
	u.loadQuotas()
	return u, nil
}

// newClient follows no redirect: the token is for the configured host only.
func newClient(o *Options) *http.Client {
	rt := o.Transport
	if rt == nil {
		rt = newTransport(o)
	}
	return &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func newTransport(o *Options) *http.Transport {
	dial := o.Dial
	if dial == nil {
		dial = via.Environment(dialer(o.Timeouts.Connect).DialContext)
	}
	return &http.Transport{ // without Proxy: what a proxy refuses is told by package via
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, 2*o.Timeouts.Connect) // for the proxy and what it does
			defer cancel()
			return dial(ctx, network, address)
		},
		TLSClientConfig: &tls.Config{
			RootCAs:            o.RootCAs,
			InsecureSkipVerify: o.InsecureSkipVerify, //nolint:gosec // set by the administrator only
			MinVersion:         tls.VersionTLS12,
		},
		TLSHandshakeTimeout:    o.Timeouts.TLS,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    64, // mailboxes share the host
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
		// Without pings a dead connection is noticed by the time-out of a request only, which leaves it uncertain.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
}

// Name returns the configured name.
func (u *Upstream) Name() string { return u.o.Name }

// MaxMessageSize is the octets of MIME that a message may have, our own header fields included.
func (u *Upstream) MaxMessageSize() int64 { return u.o.MaxMessageSize }

// OnChange sets the function that is called, never under a lock, when a place gets free and when a mailbox starts or ends to
// wait. It must not block.
func (u *Upstream) OnChange(f func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.onChange = f
}

func (u *Upstream) changed() {
	u.mu.Lock()
	f := u.onChange
	u.mu.Unlock()
	if f != nil {
		f()
	}
}

// Close ends the Upstream: nothing can be reserved any more, sends that run are waited for. When ctx ends first, what is left
// is cut off and waited for, and ctx's error is returned.
func (u *Upstream) Close(ctx context.Context) error {
	u.mu.Lock()
	if !u.closed {
		u.closed = true
		if u.places == 0 {
			close(u.drained)
		}
	}
	if u.saver != nil {
		u.saver.Stop()
		u.saver = nil
	}
	for _, m := range u.mailboxes {
		m.stopAlarmLocked()
		m.stopPacedLocked()
	}
	u.mu.Unlock()

	defer u.client.CloseIdleConnections()
	defer u.stop()
	defer u.save(context.WithoutCancel(ctx))
	select {
	case <-u.drained:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var (
	errStopped = errors.New("we are shutting down")
	errTimeout = errors.New("no answer in time")
)

// These are the words that the package shares with the smart host client.
type (
	// Transaction is one message for one or many recipients. Ret and EnvID are not carried.
	Transaction = upstream.Transaction
	// State is one mailbox at a glance; Idle and Closing stay 0, because connections belong to no mailbox.
	State = upstream.State
	// Step is one phase of a Test.
	Step = upstream.Step
)
