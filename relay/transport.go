package relay

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/queue"
	"postern/relay/upstream"
	"postern/relay/upstream/graph"
	"postern/relay/upstream/oauth"
)

// transport is a way to a provider, whatever is spoken on it. Upstreams of package upstream and of package graph are ones.
type transport interface {
	// Reserve takes a place without waiting. Without one, until says when to ask again; zero: when one gets free.
	Reserve(now time.Time, identity string) (place place, until time.Time)
	States() []upstream.State
	// Denied lists senders that the provider does not let us use, and whose mail is not offered now.
	Denied(now time.Time) []upstream.Denied
	OnChange(func())
	TryAgain()
	// Inherit takes over what an earlier transport of the same upstream knows of rates and quotas.
	Inherit(old transport)
	// TestSenders goes the way of a delivery for each sender and sends nothing.
	TestSenders(ctx context.Context, t upstream.Trial) []upstream.Step
	Close(ctx context.Context) error
}

// place is used by at most one Send and given back by Release.
type place interface {
	Send(ctx context.Context, t upstream.Transaction) []mail.Result
	Release()
}

// smartHost is a transport by SMTP.
type smartHost struct{ *upstream.Upstream }

func (s smartHost) Reserve(now time.Time, identity string) (place, time.Time) {
	slot, until := s.Upstream.Reserve(now, identity)
	if slot == nil {
		return nil, until
	}
	return slot, until
}

func (s smartHost) Inherit(old transport) {
	if o, ok := old.(smartHost); ok {
		s.Upstream.Inherit(o.Upstream)
	}
}

// graphHost is a transport by Microsoft Graph.
type graphHost struct{ *graph.Upstream }

func (g graphHost) Reserve(now time.Time, identity string) (place, time.Time) {
	slot, until := g.Upstream.Reserve(now, identity)
	if slot == nil {
		return nil, until
	}
	return slot, until
}

func (g graphHost) Inherit(old transport) {
	if o, ok := old.(graphHost); ok {
		g.Upstream.Inherit(o.Upstream)
	}
}

// Denied implements transport. Graph judges each message: no sender's is kept back.
func (g graphHost) Denied(time.Time) []upstream.Denied { return nil }

// tellEnvelope tells a place of a provider that knows no envelope who the recipients of the whole message are.
func tellEnvelope(p place, m *queue.Message) {
	slot, ok := p.(*graph.Slot)
	if !ok {
		return
	}
	all := make([]mail.Address, len(m.Recipients))
	for i := range m.Recipients {
		all[i] = m.Recipients[i].To
	}
	slot.Envelope(all)
}

// newTransport makes what an upstream block describes; source is nil without [upstream.oauth], quotas is nil where nothing is
// to be remembered. It opens no connection.
func newTransport(hostname string, block config.Upstream, source *oauth.Source, quotas upstream.QuotaStore, log *slog.Logger) (transport, error) {
	if block.ByGraph() {
		o, err := graphOptions(block)
		if err != nil {
			return nil, err
		}
		useGraphTokens(&o, source)
		o.Quotas, o.Logger = quotas, log
		up, err := graph.New(o)
		if err != nil {
			return nil, err
		}
		return graphHost{up}, nil
	}
	conf, err := UpstreamConfig(hostname, block)
	if err != nil {
		return nil, err
	}
	useTokens(&conf, source)
	conf.Quotas, conf.Logger = quotas, log
	up, err := upstream.New(conf)
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", block.Name, err)
	}
	return smartHost{up}, nil
}

// TestUpstream goes the way of a delivery to the upstream of a block and sends nothing. source is what NewTokens made for it.
// By SMTP the way goes on to MAIL for each sender; by Graph it is gone for the mailbox of each, where senders have one. Whether
// senders are logged in as themselves is the block's to say.
func TestUpstream(ctx context.Context, hostname string, block config.Upstream, source *oauth.Source, t upstream.Trial) ([]upstream.Step, error) {
	up, err := newTransport(hostname, block, source, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	t.AsThemselves = block.SendsAsSender()
	return up.TestSenders(ctx, t), nil
}

// checkUpstream says what newTransport would refuse, as far as files are concerned.
func checkUpstream(hostname string, block config.Upstream) error {
	if block.ByGraph() {
		_, err := graphOptions(block)
		return err
	}
	_, err := UpstreamConfig(hostname, block)
	return err
}

// graphOptions turns a block of relay.toml into what package graph needs.
func graphOptions(block config.Upstream) (graph.Options, error) {
	host := block.Host
	if block.Port != 443 {
		host = net.JoinHostPort(host, strconv.Itoa(block.Port))
	}
	o := graph.Options{
		Name:           block.Name,
		Mailbox:        block.Username,
		BaseURL:        "https://" + host + "/v1.0",
		MaxConnections: block.MaxConnections,
		MaxMessageSize: int64(block.MaxMessageSize),
		LargeMail:      block.LargeMail,
		MaxRecipients:  block.MaxRecipients,
		Delegated:      block.OAuth != nil && block.OAuth.Flow.Delegated(),
	}
	var err error
	if o.Rates, err = block.Rates(); err != nil {
		return o, fmt.Errorf("upstream %s: rate: %w", block.Name, err)
	}
	if o.RootCAs, err = roots(block); err != nil {
		return o, err
	}
	proxy, err := proxyOf(block)
	if proxy != nil {
		o.Dial = proxy.Dial
	}
	return o, err
}

// useGraphTokens plugs a source into what package graph needs. nil changes nothing.
func useGraphTokens(o *graph.Options, source *oauth.Source) {
	if source == nil {
		return
	}
	o.Token = func(ctx context.Context, mailbox string) (string, error) {
		t, err := source.Token(ctx, mailbox)
		if err != nil {
			return "", graphTokenError{tokenError{err, o.Name}}
		}
		return t.AccessToken.Reveal(), nil
	}
	o.DropToken = func(mailbox, token string) { source.Drop(mailbox, oauth.NewSecret(token)) }
}

// graphTokenError tells package graph what tokenError tells package upstream.
type graphTokenError struct{ tokenError }

// Error is shown to people, and has no secret in it.
func (e graphTokenError) Error() string { return e.words() }

// Temporary reports whether waiting is enough.
func (e graphTokenError) Temporary() bool { return e.Class() != mail.AccountFault }
