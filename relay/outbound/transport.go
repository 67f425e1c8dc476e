package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"postern/internal/textfile"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/upstream"
	"postern/relay/upstream/account"
	"postern/relay/upstream/graph"
	"postern/relay/upstream/oauth"
	"postern/relay/upstream/smtp"
	"postern/relay/upstream/via"
)

// memory is where a transport keeps what others are to know of its accounts: itself after a restart, and other nodes.
// The zero value is for one that nobody is to know anything of.
type memory struct {
	quotas  upstream.QuotaStore
	sharing *account.Sharing
}

// newTransport makes what an upstream block describes; source is nil without [upstream.oauth]. It opens no connection.
// What shares its accounts has to be closed, used or not.
func newTransport(hostname string, block config.Upstream, source *oauth.Source, kept memory,
	log *slog.Logger) (upstream.Transport, error) {
	set, err := settings(block)
	set.Quotas, set.Logger = kept.quotas, log
	useTokens(&set, source)
	var up upstream.Transport
	switch {
	case err != nil:
	case block.ByGraph():
		o := graphOptions(set, block)
		o.Sharing = kept.sharing
		up, err = graph.New(o)
	default:
		var conf smtp.Config
		if conf, err = smtpConfig(set, hostname, block); err == nil {
			conf.Sharing = kept.sharing
			up, err = smtp.New(conf)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", block.Name, err)
	}
	return up, nil
}

// TestUpstream goes the way of a delivery to the upstream of a block and sends nothing. source is what NewTokens made
// for it. By SMTP the way goes on to MAIL for each sender; by Graph it is gone for the mailbox of each, where senders
// have one. Whether senders are logged in as themselves is the block's to say.
func TestUpstream(ctx context.Context, hostname string, block config.Upstream, source *oauth.Source,
	t upstream.Trial) ([]upstream.Step, error) {
	up, err := newTransport(hostname, block, source, memory{}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	t.AsThemselves = block.SendsAsSender()
	return up.TestSenders(ctx, t), nil
}

// CheckUpstream says what newTransport would refuse, as far as files are concerned: a *mail.KeyError.
func CheckUpstream(hostname string, block config.Upstream) error {
	set, err := settings(block)
	if err == nil && !block.ByGraph() {
		_, err = smtpConfig(set, hostname, block)
	}
	return err
}

// settings turns a block of relay.toml into what every transport needs.
func settings(block config.Upstream) (set upstream.Settings, err error) {
	set = upstream.Settings{
		Name:           block.Name,
		Username:       block.Username,
		MaxConnections: block.MaxConnections,
		MaxRecipients:  block.MaxRecipients,
		MaxMessageSize: int64(block.MaxMessageSize),
	}
	if set.Rates, err = block.Rates(); err != nil {
		return set, mail.BadKey("rate", "%s", err)
	}
	if block.TLS == config.NoTLS {
		set.Dial = plainDialer(block.MayDialPlain)
	}
	proxy, err := proxyOf(block)
	if err != nil {
		return set, err
	}
	if proxy != nil {
		proxy.Forward = set.Dial // where tls is none, the proxy too must stand in networks
		set.Dial = proxy.Dial
	}
	set.RootCAs, err = roots(block)
	return set, err
}

// maxConnectionAge is how long a connection to a smart host is used.
const maxConnectionAge = 15 * time.Minute

func smtpConfig(set upstream.Settings, hostname string, block config.Upstream) (smtp.Config, error) {
	conf := smtp.Config{
		Settings:              set,
		Host:                  block.Host,
		Port:                  block.Port,
		TLS:                   block.TLS,
		InsecureSkipVerify:    block.InsecureSkipVerify,
		LocalName:             hostname,
		Password:              block.Password.Value(),
		Mechanisms:            block.Mechanisms,
		MessagesPerConnection: block.MessagesPerConnection,
		IdleClose:             block.IdleClose.Std(),
		MaxAge:                maxConnectionAge,
		Timeouts:              smtp.Standard,
		AssumeExtensions:      block.AssumeExtensions,
		DenyExtensions:        block.DenyExtensions,
		Rules:                 block.ReplyRules(),
	}
	if block.CertFile != "" {
		pair, err := textfile.KeyPair(block.CertFile, block.KeyFile)
		if err != nil {
			return conf, mail.BadKey("cert_file", "%s", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

func graphOptions(set upstream.Settings, block config.Upstream) graph.Options {
	host := block.Host
	if block.Port != 443 {
		host = net.JoinHostPort(host, strconv.Itoa(block.Port))
	}
	return graph.Options{
		Settings:  set,
		BaseURL:   "https://" + host + "/v1.0",
		Timeouts:  graph.Standard,
		LargeMail: block.LargeMail,
		Delegated: block.OAuth != nil && block.OAuth.Flow.Delegated(),
	}
}

// proxyOf is the proxy that an upstream and its token endpoint are reached through; nil: none is configured.
func proxyOf(block config.Upstream) (*via.Proxy, error) {
	proxy, err := block.Via()
	if err != nil {
		return nil, mail.BadKey("proxy", "%s", err)
	}
	if proxy != nil {
		proxy.RootCAs, err = roots(block)
	}
	return proxy, err
}

// roots are the trust anchors of an upstream; nil: the system's.
func roots(block config.Upstream) (*x509.CertPool, error) {
	if block.CAFile == "" {
		return nil, nil
	}
	pem, err := textfile.Read(block.CAFile)
	if err != nil {
		return nil, mail.BadKey("ca_file", "%s", err)
	}
	pool, err := upstream.Roots(pem)
	if err != nil {
		return nil, mail.BadKey("ca_file", "%s: %s", block.CAFile, err)
	}
	return pool, nil
}

// plainDialer dials addresses that may be reached without TLS, after the name was resolved: a name cannot
// lead outside.
func plainDialer(may func(netip.Addr) bool) func(context.Context, string, string) (net.Conn, error) {
	dialer := &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if !may(to.Addr()) {
			return fmt.Errorf("%s is neither loopback nor in this upstream's networks, and tls is none", to.Addr())
		}
		return nil
	}}
	return dialer.DialContext
}
