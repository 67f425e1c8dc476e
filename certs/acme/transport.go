package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	protocol "github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Bounds of what a CA may say.
const (
	maxAnswer    = 1 << 20         // octets of an answer; a chain of certificates has 10 KB
	maxHeader    = 64 << 10        // octets of its header
	maxRequests  = 500             // of one attempt; an order takes about 15
	answerTime   = time.Minute     // for one answer
	pollTime     = 5 * time.Minute // for a validation, and for a finalization
	pollInterval = 2 * time.Second // between two looks, unless the CA says
)

// attempt is what became of one attempt for a name. certmagic works for it in one goroutine.
type attempt struct {
	ordered bool         // an order was begun
	err     error        // of the order
	begin   func() error // before an order

	mu         sync.Mutex // guards what follows
	reached    bool       // the CA has answered
	retryAfter time.Time  // it said to wait until then
	requests   int
}

// client is a client of the CA that remembers in at what happened.
func (o *Options) client(at *attempt) *protocol.Client {
	transport := o.Transport
	if transport == nil {
		transport = o.network()
	}
	return &protocol.Client{
		Directory: o.Directory, UserAgent: "postern", PollInterval: pollInterval, PollTimeout: pollTime,
		HTTPClient: &http.Client{Transport: &guarded{transport, at, strings.HasPrefix(o.Directory, "https:")},
			Timeout: answerTime, CheckRedirect: sameScheme},
		Logger: slog.New(quiet{o.Logger.Handler()}),
	}
}

// network is a transport for one attempt: nothing stays open.
func (o *Options) network() *http.Transport {
	return &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: 30 * time.Second}).DialContext, TLSHandshakeTimeout: 30 * time.Second,
		ResponseHeaderTimeout: answerTime, MaxResponseHeaderBytes: maxHeader, ForceAttemptHTTP2: true,
		IdleConnTimeout: 10 * time.Second, TLSClientConfig: &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
	}
}

func sameScheme(r *http.Request, via []*http.Request) error {
	if len(via) >= 5 || r.URL.Scheme != via[0].URL.Scheme {
		return errors.New("the CA redirects in circles, or to another scheme")
	}
	return nil
}

// guarded bounds the CA's answers and hears when it says to wait.
type guarded struct {
	next   http.RoundTripper
	at     *attempt
	secure bool // it is asked by HTTPS alone, wherever its answers lead
}

// RoundTrip implements http.RoundTripper.
func (g *guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	g.at.mu.Lock()
	g.at.requests++
	many := g.at.requests > maxRequests
	g.at.mu.Unlock()
	if many {
		return nil, fmt.Errorf("the CA made us ask %d times for one certificate: given up", maxRequests)
	}
	if g.secure && r.URL.Scheme != "https" {
		return nil, fmt.Errorf("the CA sends us to %.100q, which is not https", r.URL)
	}
	resp, err := g.next.RoundTrip(r)
	if err != nil {
		return resp, err
	}
	g.at.heard(resp, time.Now())
	if wait, ok := retryAfter(resp, time.Now()); ok && wait <= 0 {
		resp.Header.Del("Retry-After") // it would be asked again without a pause
	}
	resp.Body = &bounded{resp.Body, maxAnswer}
	return resp, nil
}

// heard takes note of an answer.
func (at *attempt) heard(resp *http.Response, now time.Time) {
	at.mu.Lock()
	defer at.mu.Unlock()
	if resp.StatusCode < 500 {
		at.reached = true
	}
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return
	}
	if wait, ok := retryAfter(resp, now); ok {
		at.retryAfter = now.Add(wait)
	}
}

// retryAfter is how long an answer says to wait (RFC 9110 §10.2.3), not ok if it does not say.
func retryAfter(resp *http.Response, now time.Time) (wait time.Duration, ok bool) {
	field := resp.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(field, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	t, err := http.ParseTime(field)
	return t.Sub(now), err == nil
}

// bounded is a body that ends with an error when it is too long.
type bounded struct {
	io.ReadCloser
	left int
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the CA's answer is longer than %d octets", maxAnswer)
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// quiet makes everything that libraries log a matter of debugging: what an operator must know, we say.
type quiet struct{ slog.Handler }

// Enabled implements slog.Handler.
func (q quiet) Enabled(ctx context.Context, _ slog.Level) bool {
	return q.Handler.Enabled(ctx, slog.LevelDebug)
}

// Handle implements slog.Handler.
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return q.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (q quiet) WithAttrs(as []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(as)} }

// WithGroup implements slog.Handler.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }

// zapTo is certmagic's logger: its messages come out as a matter of debugging.
func zapTo(log *slog.Logger) *zap.Logger { return zap.New(&core{log: log}) }

// core is a zapcore.Core that writes to a slog.Logger.
type core struct {
	log    *slog.Logger
	fields []zapcore.Field
}

// Enabled implements zapcore.Core.
func (c *core) Enabled(zapcore.Level) bool {
	return c.log.Enabled(context.Background(), slog.LevelDebug)
}

// With implements zapcore.Core.
func (c *core) With(fields []zapcore.Field) zapcore.Core {
	return &core{c.log, append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

// Check implements zapcore.Core.
func (c *core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	values := zapcore.NewMapObjectEncoder()
	for _, f := range append(c.fields[:len(c.fields):len(c.fields)], fields...) {
		f.AddTo(values)
	}
	c.log.Debug("certmagic: "+e.Message, "fields", values.Fields)
	return nil
}

// Sync implements zapcore.Core.
func (*core) Sync() error { return nil }
