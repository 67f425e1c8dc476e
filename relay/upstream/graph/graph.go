// Package graph sends mail through Microsoft Graph, for tenants where SMTP AUTH is off: one HTTPS request for each
// message, POST {base}/users/{mailbox}/sendMail with the message as MIME in base64. Like the smart host client it is an
// upstream.Transport: slots, states, transactions, one mail.Result for each recipient.
//
// Graph has no envelope. It sends to everybody in the header, so the package compares header and envelope first:
// recipients missing from the header get a Bcc field, which Exchange removes again; a header that names somebody
// outside the envelope is refused, because that person would get the mail. Graph carries neither the reverse-path
// (Exchange sends from the mailbox) nor the DSN parameters. Bodies are never re-encoded: a message too large for one
// request is refused, unless Options.LargeMail allows splitting it into a draft and its files (see large.go).
//
// Failure semantics:
//   - Only 202 is Delivered. Any other 2xx has been seen for mail that was not sent: it defers and is Uncertain.
//   - Trouble of our own (token, permission, mailbox, quota, throttling, network) is AccountFault or BackPressure; the
//     mailbox waits (see account), the mail does not fail.
//   - ErrorSendAsDenied is an account fault of one header author; the mailbox goes on with others.
//   - Silence, or 500, 502 or 504, after the last octet of a request defers and is Uncertain: Graph has been seen to
//     send such mail. A request cut before its last octet is certain: Graph does not have it.
//   - An unsent draft has reached nobody: a failure before it is sent is certain, and the draft is deleted. If the
//     right to make drafts is missing, only large mail is held back.
//   - 429 and 503 count as not accepted, although a few such messages have been seen to go out.
//   - What Graph says is bounded, made printable, and recorded with its request id. Redirects are not followed.
package graph

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"postern/relay/upstream"
	"postern/relay/upstream/account"
	"postern/relay/upstream/graph/large"
	"postern/relay/upstream/via"
)

// GlobalURL is the service root of Microsoft's worldwide cloud.
const GlobalURL = "https://graph.microsoft.com/v1.0"

// The service roots of the clouds, by the names that [upstream.oauth] has for them
// (learn.microsoft.com/graph/deployments).
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

// Options describe one upstream. They are not changed after New. Username is the mailbox, by its address or an object
// id; the error of a Token is shown to people. Without Dial the proxy of the environment is used.
type Options struct {
	upstream.Settings
	Sharing *account.Sharing // with other nodes; nil: there are none

	BaseURL string // service root with its version; https only

	// Delegated: tokens are of a person who has logged in. Advice differs.
	Delegated bool

	Timeouts Timeouts

	// LargeMail says what becomes of a message over DefaultMessageSize: RefuseLarge or UploadLarge.
	LargeMail string

	Transport http.RoundTripper // nil: one of our own, with Dial
}

// Timeouts bound each wait.
type Timeouts struct {
	Connect time.Duration // for the name and each address
	TLS     time.Duration // the handshake
	Token   time.Duration
	Request time.Duration // from the first octet to the last of the answer
	Drain   time.Duration // how long a cancelled Send still waits for the answer to a whole request
}

// Standard are the usual timeouts. That of a request is as for the final dot of SMTP.
var Standard = Timeouts{Connect: 15 * time.Second, TLS: 30 * time.Second, Token: time.Minute, Request: 10 * time.Minute,
	Drain: 10 * time.Second}

func (o *Options) check() error {
	if err := o.Settings.Check(); err != nil {
		return err
	}
	switch t := o.Timeouts; {
	case o.Token == nil:
		return errors.New("microsoft-graph needs an [upstream.oauth] table: Graph takes no password")
	case o.Username == "" || strings.ContainsAny(o.Username, " \t\r\n<>/?#"):
		return fmt.Errorf("username %q is no mailbox; write its address", o.Username)
	case o.LargeMail != RefuseLarge && o.LargeMail != UploadLarge:
		return fmt.Errorf("large_mail is %q, not %s or %s", o.LargeMail, RefuseLarge, UploadLarge)
	case o.MaxMessageSize < 1 || min(t.Connect, t.TLS, t.Token, t.Request, t.Drain) <= 0:
		return fmt.Errorf("%d octets at most, or one of the waits %v, are too few", o.MaxMessageSize, t)
	}
	return nil
}

// Upstream is Graph as one configured provider. All methods are safe for concurrent use.
type Upstream struct {
	*account.Table[*mailbox]

	o      Options
	host   string // of BaseURL
	client *http.Client
	log    *slog.Logger

	ctx  context.Context // ends when what still runs is to be cut off
	stop context.CancelFunc

	large *large.Rebuilder
}

// New checks the options, reads what Quotas has kept and prepares an Upstream. It opens no connection.
func New(o Options) (*Upstream, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	base, err := url.Parse(o.BaseURL)
	if err != nil || base.Scheme != "https" || base.Host == "" || base.User != nil || base.RawQuery != "" ||
		base.Fragment != "" {
		return nil, fmt.Errorf("base URL %q is not like %s", o.BaseURL, GlobalURL)
	}
	u := &Upstream{
		o: o, host: base.Host, client: newClient(&o), log: o.Logger.With("upstream", o.Name),
		large: large.New(),
	}
	u.ctx, u.stop = context.WithCancel(context.Background())
	// Exchange does not tell Office@example.com from office@example.com, nor may its limits here.
	u.Table = account.New(&u.o.Settings, account.Options{Spent: upstream.Paused, FoldCase: true,
		Sharing: o.Sharing, Log: u.log},
		func() *mailbox { return new(mailbox) })
	return u, nil
}

// newClient follows no redirect: the token is for the configured host only.
func newClient(o *Options) *http.Client {
	rt := o.Transport
	if rt == nil {
		rt = newTransport(o)
	}
	return &http.Client{Transport: rt, CheckRedirect: func(*http.Request,
		[]*http.Request) error {
		return http.ErrUseLastResponse
	}}
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
			RootCAs:    o.RootCAs,
			MinVersion: tls.VersionTLS12,
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

// TryAgain implements upstream.Transport. Large mail of every mailbox may be tried again too.
func (u *Upstream) TryAgain() {
	now := time.Now()
	u.Each(func(m *mailbox) {
		if b := &m.large; !b.Ready() && now.Before(b.Until) {
			b.Until = now
		}
	})
	u.Table.TryAgain()
}

// Close implements upstream.Transport.
func (u *Upstream) Close(ctx context.Context) error {
	defer u.client.CloseIdleConnections()
	defer u.stop()
	u.Shut()
	return u.Wait(ctx)
}

var (
	errStopped = errors.New("we are shutting down")
	errTimeout = errors.New("no answer in time")
)
