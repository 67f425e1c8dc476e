package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"postern/internal/textfile"
	"postern/relay/config"
	"postern/relay/upstream"
	"postern/relay/upstream/via"
)

// UpstreamConfig turns a block of relay.toml into what the upstream client needs.
func UpstreamConfig(hostname string, block config.Upstream) (upstream.Config, error) {
	conf := upstream.Config{
		Name:                  block.Name,
		Host:                  block.Host,
		Port:                  block.Port,
		TLS:                   block.TLS,
		InsecureSkipVerify:    block.InsecureSkipVerify,
		LocalName:             hostname,
		Username:              block.Username,
		Password:              block.Password.Value(),
		Mechanisms:            block.Mechanisms,
		MaxConnections:        block.MaxConnections,
		MessagesPerConnection: block.MessagesPerConnection,
		IdleClose:             block.IdleClose.Std(),
		MaxMessageSize:        int64(block.MaxMessageSize),
		MaxRecipients:         block.MaxRecipients,
		AssumeExtensions:      block.AssumeExtensions,
		DenyExtensions:        block.DenyExtensions,
		Rules:                 block.ReplyRules(),
	}
	var err error
	if conf.Rates, err = block.Rates(); err != nil {
		return conf, fmt.Errorf("upstream %s: rate: %w", block.Name, err)
	}
	if block.TLS == config.NoTLS {
		conf.Dial = plainDialer(block.MayDialPlain)
	}
	proxy, err := proxyOf(block)
	if err != nil {
		return conf, err
	}
	if proxy != nil {
		proxy.Forward = conf.Dial // where tls is none, the proxy too must stand in networks
		conf.Dial = proxy.Dial
	}
	if block.CertFile != "" {
		pair, err := textfile.KeyPair(block.CertFile, block.KeyFile)
		if err != nil {
			return conf, fmt.Errorf("upstream %s: cert_file: %w", block.Name, err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	conf.RootCAs, err = roots(block)
	return conf, err
}

// proxyOf is the proxy that an upstream and its token endpoint are reached through; nil: none is configured.
func proxyOf(block config.Upstream) (*via.Proxy, error) {
	proxy, err := block.Via()
	if err != nil {
		return nil, fmt.Errorf("upstream %s: proxy: %w", block.Name, err)
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
		return nil, fmt.Errorf("upstream %s: ca_file: %w", block.Name, err)
	}
	pool, err := upstream.Roots(pem)
	if err != nil {
		return nil, fmt.Errorf("upstream %s: ca_file %s: %w", block.Name, block.CAFile, err)
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
