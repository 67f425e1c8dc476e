// Package smtp is the smart host client: it owns the connections to one provider, from name lookup to QUIT, and turns
// the provider's replies into one mail.Result for each recipient.
//
// It is an upstream.Transport, whose table of accounts decides who may send now. Connections are reused, and closed
// with QUIT when they are idle, old, or have carried enough messages. If the provider offers PIPELINING and CHUNKING, a
// whole message costs one round trip.
//
// Failure semantics:
//   - A result is Delivered only for a 2yz reply after the last octet of the message.
//   - A failure before MAIL FROM is never the message's fault: it is AccountFault or BackPressure; the identity waits
//     (see account), and no mail fails.
//   - A connection lost before the last octet was written defers; one lost after it defers too and is Uncertain.
//   - If the content cannot be read to its end, the connection is closed. A message is never ended early.
//   - A pooled connection found dead before MAIL is answered is replaced at once and counts as no fault.
//   - What the upstream says is hostile until parsed: replies are bounded in lines, octets and time, and made
//     printable.
package smtp

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/relay/upstream"
	"postern/relay/upstream/account"
	"postern/relay/upstream/replies"
)

// Config describes one upstream. It is not changed after New.
//
// With Settings.Token only OAuthMechanisms are used, any identity may be reserved, and TLS must verify. Username ""
// means no AUTH at all. Envelopes over MaxRecipients are split. MaxMessageSize holds where EHLO says more or nothing.
type Config struct {
	upstream.Settings
	Sharing *account.Sharing // with other nodes; nil: there are none

	Host string // name or address; the certificate must be for it
	Port int
	TLS  string // upstream.TLSStartTLS, TLSImplicit or TLSNone

	Certificates       []tls.Certificate // shown where the upstream asks for one
	InsecureSkipVerify bool              // the caller answers for it, and says so aloud

	LocalName string // in EHLO

	Mechanisms []string // in order of preference
	Password   string

	MessagesPerConnection int
	IdleClose             time.Duration
	MaxAge                time.Duration // of a connection
	Timeouts              Timeouts

	AssumeExtensions []string // taken for offered, as EHLO would write them: "SIZE 10000000"
	DenyExtensions   []string // not used though offered; keywords

	// Rules come before the generic ones.
	Rules []replies.Rule

	// Resolve replaces the net package's, nil: does not. With Dial and without Resolve, Dial gets the host as
	// configured.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
}

// Timeouts bound each wait.
type Timeouts struct {
	Resolve   time.Duration
	Connect   time.Duration // for each address
	TLS       time.Duration // the handshake
	Greeting  time.Duration
	Silence   time.Duration // before a server that should greet is asked whether it waits for TLS
	Command   time.Duration // EHLO, STARTTLS, each step of AUTH, RSET
	Mail      time.Duration
	Rcpt      time.Duration
	DataInit  time.Duration // reply to DATA
	DataBlock time.Duration // each write of at most 64 KiB
	DataDone  time.Duration // reply after the final dot or the last chunk
	Quit      time.Duration
	Drain     time.Duration // how long a cancelled Send still waits for the reply after the final dot
}

// Standard are the timeouts of RFC 5321 §4.5.3.2 where it has one.
var Standard = Timeouts{
	Resolve: 15 * time.Second, Connect: 15 * time.Second, TLS: time.Minute, Greeting: 5 * time.Minute,
	Silence: 20 * time.Second, Command: 2 * time.Minute, Mail: 5 * time.Minute, Rcpt: 5 * time.Minute,
	DataInit: 2 * time.Minute, DataBlock: 3 * time.Minute, DataDone: 10 * time.Minute, Quit: 5 * time.Second,
	Drain: 10 * time.Second,
}

func (t Timeouts) least() time.Duration {
	return min(t.Resolve, t.Connect, t.TLS, t.Greeting, t.Silence, t.Command, t.Mail, t.Rcpt, t.DataInit, t.DataBlock,
		t.DataDone, t.Quit, t.Drain)
}

func (c *Config) check() error {
	if err := c.Settings.Check(); err != nil {
		return err
	}
	switch {
	case c.TLS != upstream.TLSStartTLS && c.TLS != upstream.TLSImplicit && c.TLS != upstream.TLSNone:
		return fmt.Errorf("tls is %q, not starttls, implicit or none", c.TLS)
	case c.Host == "" || strings.ContainsAny(c.Host, " \t\r\n<>"):
		return fmt.Errorf("host %q is no host name", c.Host)
	case c.Port < 1 || c.Port > 65535:
		return fmt.Errorf("port %d is out of range", c.Port)
	case c.LocalName == "" || strings.ContainsAny(c.LocalName, " \t\r\n"):
		return fmt.Errorf("local name %q is no host name", c.LocalName)
	case c.MessagesPerConnection < 1 || c.IdleClose <= 0 || c.MaxAge <= 0 || c.Timeouts.least() <= 0:
		return fmt.Errorf("%d messages, %v idle, %v at most and waits of %v are too few for a connection",
			c.MessagesPerConnection, c.IdleClose, c.MaxAge, c.Timeouts.least())
	}
	for _, m := range c.Mechanisms {
		if !knownMechanism(m) {
			return fmt.Errorf("unknown mechanism %q; known are %s", m,
				strings.Join(slices.Concat(DefaultMechanisms, OAuthMechanisms), ", "))
		}
	}
	if err := c.oauthConfig(); err != nil {
		return err
	}
	if c.Username != "" && len(c.Mechanisms) == 0 {
		return fmt.Errorf("no mechanism to log in as %q", c.Username)
	}
	return CheckExtensions(c.AssumeExtensions, c.DenyExtensions)
}

// Upstream is one configured provider. All methods are safe for concurrent use.
type Upstream struct {
	*account.Table[*pool]

	cfg    Config
	tls    *tls.Config // nil without TLS
	rules  *replies.Rules
	scram  scramKeys
	habits habits
	log    *slog.Logger

	mu     sync.Mutex         // guards what follows
	conns  map[*conn]struct{} // every connection from dial to close
	reaper *time.Timer        // fires when an idle connection may be due; nil: not armed
	closed bool
}

// New checks the configuration, reads what Quotas has kept and prepares an Upstream. It opens no connection.
func New(cfg Config) (*Upstream, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	rules, err := replies.Compile(cfg.Rules)
	if err != nil {
		return nil, err
	}
	u := &Upstream{cfg: cfg, rules: rules, log: cfg.Logger.With("upstream", cfg.Name), conns: make(map[*conn]struct{})}
	if cfg.TLS != upstream.TLSNone {
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
	o := account.Options{Windows: rules.Windows(), Spent: upstream.BackingOff, Sharing: cfg.Sharing, Log: u.log}
	u.Table = account.New(&u.cfg.Settings, o, func() *pool { return &pool{u: u} })
	return u, nil
}

// Close implements upstream.Transport. Idle connections are closed with QUIT.
func (u *Upstream) Close(ctx context.Context) error {
	u.Shut()
	u.mu.Lock()
	u.closed = true
	if u.reaper != nil {
		u.reaper.Stop()
	}
	u.mu.Unlock()
	u.Each(u.retireAll)
	err := u.Wait(ctx)
	if err != nil {
		u.mu.Lock()
		for c := range u.conns {
			c.nc.Close()
		}
		u.mu.Unlock()
	}
	return err
}
