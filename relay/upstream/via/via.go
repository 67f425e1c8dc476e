// Package via dials through a proxy: HTTP CONNECT (RFC 9110 §9.3.6), in clear or over TLS, or SOCKS5 (RFC 1928, RFC
// 1929).
//
// The proxy gets the host as configured and resolves it. The caller starts and verifies TLS to the upstream through the
// tunnel. Every failure is an *Error, which names the proxy without its credentials.
package via

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The schemes of a proxy's address.
const (
	schemeHTTP   = "http"
	schemeHTTPS  = "https"
	schemeSOCKS  = "socks5"
	schemeSOCKSh = "socks5h" // curl's name for SOCKS5 with the lookup at the proxy, which is how we do it anyway
)

// Proxy is one way out. It is not changed after its first Dial. However it is printed, its credentials are left out.
type Proxy struct {
	// RootCAs are the trust anchors for a proxy that is spoken to over TLS; nil: the system's.
	RootCAs *x509.CertPool
	// Forward makes the connection to the proxy; nil: a net.Dialer.
	Forward func(ctx context.Context, network, address string) (net.Conn, error)

	from               string // where it is named, for people; "": fromKey
	scheme, host, port string
	login              bool
	user, password     string
}

// What Parse says. None of it repeats what was written, which may hold a password.
var (
	errSyntax = errors.New(`is not the address of a proxy, write one such as "http://proxy.example.com:3128", ` +
		`"http://user:password@proxy.example.com:3128" or "socks5://proxy.example.com:1080"; ` +
		`signs such as @ : / % in user and password are written as %40 %3A %2F %25`)
	errScheme = errors.New("begins with none of http://, https:// and socks5://, write the one that the proxy speaks")
	errPort   = errors.New("has no port, write it behind the host, such as :3128")
	errHost   = errors.New("has no host name or IP address, write it before the port")
	errTail   = errors.New("has a path or a query behind the port, write scheme, host and port alone")
	errLong   = errors.New("has a user name or password that SOCKS5 cannot carry: each has 1 to 255 octets")
	errColon  = errors.New("has a colon in the user name or a control character, which HTTP cannot carry")
)

// Parse reads the address of a proxy: http://, https:// or socks5://, user and password if it wants them, host and
// port.
func Parse(text string) (*Proxy, error) {
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || u.Opaque != "" || u.Scheme == "" {
		return nil, errSyntax
	}
	p := &Proxy{scheme: strings.ToLower(u.Scheme), host: u.Hostname(), port: u.Port()}
	switch p.scheme {
	case schemeHTTP, schemeHTTPS, schemeSOCKS:
	case schemeSOCKSh:
		p.scheme = schemeSOCKS
	default:
		return nil, errScheme
	}
	if n, err := strconv.Atoi(p.port); err != nil || n < 1 || n > 65535 {
		return nil, errPort
	}
	switch {
	case !isHost(p.host):
		return nil, errHost
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.Fragment != "":
		return nil, errTail
	}
	if u.User != nil {
		p.login, p.user = true, u.User.Username()
		p.password, _ = u.User.Password()
	}
	return p, p.checkLogin()
}

func isHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host != "" && !strings.ContainsFunc(host, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && r != '-' && r != '.' && r != '_'
	})
}

func (p *Proxy) checkLogin() error {
	control := func(r rune) bool { return r < ' ' || r == 0x7f }
	switch {
	case !p.login:
		return nil
	case p.scheme == schemeSOCKS:
		if n, m := len(p.user), len(p.password); n < 1 || n > 255 || m < 1 || m > 255 {
			return errLong
		}
	case strings.Contains(p.user, ":"), strings.ContainsFunc(p.user+p.password, control):
		return errColon
	}
	return nil
}

// String is the address without credentials.
func (p *Proxy) String() string { return p.scheme + "://" + net.JoinHostPort(p.host, p.port) }

// Host is the proxy's name or address, without port.
func (p *Proxy) Host() string { return p.host }

// HasLogin reports whether user and password stand in the address.
func (p *Proxy) HasLogin() bool { return p.login }

// Format keeps the credentials out of whatever is printed.
func (p *Proxy) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(p.String())) }

// LogValue keeps them out of the log.
func (p *Proxy) LogValue() slog.Value { return slog.StringValue(p.String()) }

// Conn is a connection through a proxy.
type Conn struct {
	net.Conn
	proxy, target string
}

// Through says which way the connection goes, for people.
func (c *Conn) Through() string { return c.target + " through the proxy " + c.proxy }

// SyscallConn returns the socket to the proxy, where there is one.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := c.Conn.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// Dial connects to address through the proxy. The end of ctx, and its deadline, hold until the tunnel stands.
func (p *Proxy) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	forward := p.Forward
	if forward == nil {
		forward = new(net.Dialer).DialContext
	}
	nc, err := forward(ctx, network, net.JoinHostPort(p.host, p.port))
	if err != nil {
		return nil, p.unreachable(address, err)
	}
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(past) })
	open, err := p.tunnel(ctx, nc, address)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		nc.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, p.explain(address, err)
	}
	return &Conn{Conn: open, proxy: p.String(), target: address}, nil
}

// tunnel asks the proxy for the connection.
func (p *Proxy) tunnel(ctx context.Context, nc net.Conn, address string) (net.Conn, error) {
	if p.scheme == schemeHTTPS {
		t := tls.Client(nc, &tls.Config{ServerName: p.host, RootCAs: p.RootCAs, MinVersion: tls.VersionTLS12})
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("%w: %w", errTLS, err)
		}
		nc = t
	}
	if p.scheme == schemeSOCKS {
		return nc, p.socks(nc, address)
	}
	return nc, p.connect(nc, address)
}
