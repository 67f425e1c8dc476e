// Package upstream is the smart host client: it owns the connections to one provider, from the lookup of its name to QUIT,
// and turns what the provider answers into one mail.Result for each recipient.
//
// An Upstream has places: at most so many connections for each upstream identity (the account that we log in as). A caller
// reserves one without waiting, sends one message with it, and gets results. Connections are kept between messages and
// closed politely when they are idle, old, or have carried enough messages. Where the provider offers PIPELINING and
// CHUNKING a whole message costs one round trip.
//
// Failure semantics:
//   - A result is Delivered only for a 2yz reply after the last octet of the message.
//   - Whatever happens before MAIL FROM is never the message's fault: it is AccountFault or BackPressure, and it is the
//     identity that waits (see gate), not the mail that fails.
//   - A connection lost before the last octet was written defers; one lost after it defers too and says Uncertain.
//   - When the content cannot be read to its end the connection is closed. A message is never ended early.
//   - A pooled connection that turns out to be dead before MAIL is answered is replaced at once and is nobody's fault.
//   - What the upstream says is hostile until parsed: replies are bounded in lines, octets and time, and made printable.
package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// The values of Config.TLS.
const (
	TLSStartTLS = "starttls" // required: without it nothing is sent
	TLSImplicit = "implicit"
	TLSNone     = "none"
)

// Config describes one upstream. It is not changed after New.
type Config struct {
	Name string // as in relay.toml; in every result
	Host string // name or address; the certificate must be for it
	Port int    // 0: 587, or 465 where TLS is implicit
	TLS  string // TLSStartTLS (default), TLSImplicit, TLSNone

	// RootCAs are the trust anchors; nil: the system's. See Roots for the system's and more.
	RootCAs            *x509.CertPool
	Certificates       []tls.Certificate // shown where the upstream asks for one
	InsecureSkipVerify bool              // the caller answers for it, and says so aloud

	LocalName string // in EHLO; "": localhost

	// Mechanisms in order of preference; empty: DefaultMechanisms. Username "" means no AUTH at all.
	Mechanisms         []string
	Username, Password string

	// Token gives the access token for a login as identity, which is a mailbox; its error may be a TokenError. When it is
	// set, only OAuthMechanisms are used, any identity may be reserved, and TLS must verify. It is called before each
	// connection, at most twice, and must return soon after ctx ends.
	Token func(ctx context.Context, identity string) (token string, err error)
	// DropToken takes back a token that the upstream has refused, so that the next is another. May be nil.
	DropToken func(identity, token string)

	MaxConnections        int           // per identity, those being closed included; 0: 10. See flow
	MessagesPerConnection int           // 0: 100
	MaxRecipients         int           // in one transaction, larger envelopes are split; 0: 100
	IdleClose             time.Duration // 0: 30 s
	MaxAge                time.Duration // of a connection; 0: 15 min
	Timeouts              Timeouts

	Rates  []Rate     // for each identity; none: as fast as it takes
	Quotas QuotaStore // nil: a restart forgets what was sent

	MaxMessageSize   int64    // octets, where EHLO says more or nothing; 0: as EHLO says
	AssumeExtensions []string // taken for offered, as EHLO would write them: "SIZE 10000000"
	DenyExtensions   []string // not used though offered; keywords

	// Rules come before the generic ones.
	Rules []Rule

	// Resolve and Dial replace the net package's. With Dial and without Resolve, Dial gets the host as configured.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	Dial    func(ctx context.Context, network, address string) (net.Conn, error)

	Jitter func() float64 // in [0, 1); nil: math/rand
	Logger *slog.Logger
}

// Timeouts bound each wait. Zero fields take the defaults, which are those of RFC 5321 §4.5.3.2 where it has one.
type Timeouts struct {
	Resolve   time.Duration // 15 s
	Connect   time.Duration // for each address, 15 s
	TLS       time.Duration // the handshake, 1 min
	Greeting  time.Duration // 5 min
	Silence   time.Duration // before a server that should greet is asked whether it waits for TLS, 20 s
	Command   time.Duration // EHLO, STARTTLS, each step of AUTH, RSET: 2 min
	Mail      time.Duration // 5 min
	Rcpt      time.Duration // 5 min
	DataInit  time.Duration // reply to DATA, 2 min
	DataBlock time.Duration // each write of at most 64 KiB, 3 min
	DataDone  time.Duration // reply after the final dot or the last chunk, 10 min
	Quit      time.Duration // 5 s
	Drain     time.Duration // how long a cancelled Send still waits for the reply after the final dot, 10 s
}

func (t Timeouts) withDefaults() Timeouts {
	set := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	set(&t.Resolve, 15*time.Second)
	set(&t.Connect, 15*time.Second)
	set(&t.TLS, time.Minute)
	set(&t.Greeting, 5*time.Minute)
	set(&t.Silence, 20*time.Second)
	set(&t.Command, 2*time.Minute)
	set(&t.Mail, 5*time.Minute)
	set(&t.Rcpt, 5*time.Minute)
	set(&t.DataInit, 2*time.Minute)
	set(&t.DataBlock, 3*time.Minute)
	set(&t.DataDone, 10*time.Minute)
	set(&t.Quit, 5*time.Second)
	set(&t.Drain, 10*time.Second)
	return t
}

func (c Config) withDefaults() (Config, error) {
	switch c.TLS {
	case "":
		c.TLS = TLSStartTLS
	case TLSStartTLS, TLSImplicit, TLSNone:
	default:
		return c, fmt.Errorf("upstream %s: tls is %q, not starttls, implicit or none", c.Name, c.TLS)
	}
	if c.Host == "" || strings.ContainsAny(c.Host, " \t\r\n<>") {
		return c, fmt.Errorf("upstream %s: host %q is no host name", c.Name, c.Host)
	}
	if c.Port == 0 {
		c.Port = 587
		if c.TLS == TLSImplicit {
			c.Port = 465
		}
	}
	if c.Port < 0 || c.Port > 65535 {
		return c, fmt.Errorf("upstream %s: port %d is out of range", c.Name, c.Port)
	}
	if c.LocalName == "" {
		c.LocalName = "localhost"
	}
	if strings.ContainsAny(c.LocalName, " \t\r\n") {
		return c, fmt.Errorf("upstream %s: local name %q is no host name", c.Name, c.LocalName)
	}
	if len(c.Mechanisms) == 0 {
		c.Mechanisms = DefaultMechanisms
	}
	for _, m := range c.Mechanisms {
		if !knownMechanism(m) {
			return c, fmt.Errorf("upstream %s: unknown mechanism %q; known are %s", c.Name, m, strings.Join(slices.Concat(DefaultMechanisms, OAuthMechanisms), ", "))
		}
	}
	if err := c.oauthConfig(); err != nil {
		return c, err
	}
	positive := func(n *int, def int) {
		if *n <= 0 {
			*n = def
		}
	}
	positive(&c.MaxConnections, 10)
	positive(&c.MessagesPerConnection, 100)
	positive(&c.MaxRecipients, 100)
	if c.IdleClose <= 0 {
		c.IdleClose = 30 * time.Second
	}
	if c.MaxAge <= 0 {
		c.MaxAge = 15 * time.Minute
	}
	for _, r := range c.Rates {
		if err := r.Check(); err != nil {
			return c, fmt.Errorf("upstream %s: %w", c.Name, err)
		}
	}
	if err := CheckExtensions(c.AssumeExtensions, c.DenyExtensions); err != nil {
		return c, fmt.Errorf("upstream %s: %w", c.Name, err)
	}
	c.Timeouts = c.Timeouts.withDefaults()
	if c.Jitter == nil {
		c.Jitter = rand.Float64
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// Upstream is one configured provider. All methods are safe for concurrent use.
type Upstream struct {
	cfg    Config
	tls    *tls.Config // nil without TLS
	rules  *Rules
	quotas []time.Duration // windows that the rules tell of
	scram  scramKeys
	habits habits
	log    *slog.Logger

	mu         sync.Mutex // guards what follows, and every identity
	identities map[string]*identity
	conns      map[*conn]struct{} // every connection from dial to close
	places     int                // of all identities: in use, idle, closing
	reaper     *time.Timer        // fires when an idle connection may be due; nil: not armed
	onChange   func()
	closed     bool
	drained    chan struct{} // closed when closed and places is 0
	saver      *time.Timer   // fires when quotas are to be saved; nil: nothing new
	inherited  bool          // another Upstream counts from here on
	saved      bool          // for good

	saving sync.Mutex // held while quotas are saved; taken before mu
}

// New checks the configuration and prepares an Upstream. It opens no connection.
func New(cfg Config) (*Upstream, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	rules, err := CompileRules(cfg.Rules)
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", cfg.Name, err)
	}
	u := &Upstream{
		cfg:        cfg,
		rules:      rules,
		log:        cfg.Logger.With("upstream", cfg.Name),
		identities: make(map[string]*identity),
		conns:      make(map[*conn]struct{}),
		drained:    make(chan struct{}),
	}
	u.quotas = rules.windows()
	if cfg.TLS != TLSNone {
		u.tls = &tls.Config{
			ServerName:         cfg.Host,
			RootCAs:            cfg.RootCAs,
			Certificates:       cfg.Certificates,
			InsecureSkipVerify: cfg.InsecureSkipVerify, //nolint:gosec // set by the administrator only
			MinVersion:         tls.VersionTLS12,
			ClientSessionCache: tls.NewLRUClientSessionCache(16),
			// A flight of up to 16 KiB shall be one record and so one write; the gradual sizes that Go starts
			// with serve browsers that render before the record is complete.
			DynamicRecordSizingDisabled: true,
		}
	}
	u.loadQuotas()
	return u, nil
}

// Roots returns the system's trust anchors with those of a PEM file appended.
func Roots(pem []byte) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a container without certificates: the file has to do
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate found")
	}
	return pool, nil
}

// Name returns the configured name.
func (u *Upstream) Name() string { return u.cfg.Name }

// OnChange sets the function that is called, never under a lock, when a place gets free and when an identity starts or ends
// to wait. It must not block.
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

// Close ends the Upstream: nothing can be reserved any more, idle connections are closed with QUIT, sends that run are waited
// for. When ctx ends first, what is left is cut off and ctx's error is returned.
func (u *Upstream) Close(ctx context.Context) error {
	u.mu.Lock()
	if !u.closed {
		u.closed = true
		if u.places == 0 {
			close(u.drained)
		}
	}
	if u.reaper != nil {
		u.reaper.Stop()
		u.reaper = nil
	}
	if u.saver != nil {
		u.saver.Stop()
		u.saver = nil
	}
	for _, id := range u.identities {
		id.stopAlarmLocked()
		id.stopPacedLocked()
		for len(id.idle) > 0 {
			u.retireLocked(id, id.popIdleLocked())
		}
	}
	u.mu.Unlock()

	select {
	case <-u.drained:
		u.save(context.WithoutCancel(ctx))
		return nil
	case <-ctx.Done():
	}
	u.save(context.WithoutCancel(ctx))
	u.mu.Lock()
	for c := range u.conns {
		c.nc.Close()
	}
	u.mu.Unlock()
	return ctx.Err()
}
