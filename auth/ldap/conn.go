package ldap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/go-ldap/ldap/v3"

	"postern/auth"
	"postern/mail"
)

// maxAnswer bounds what is read for one operation, in octets: 1000 groups with long names are a tenth of it.
const maxAnswer = 4 << 20

// server is one that a directory is asked at.
type server struct {
	host     string // for TLS
	address  string // host:port
	startTLS bool
	failed   time.Time // guarded by the pool
}

// parseURL reads ldaps://host[:port] or ldap://host[:port].
func parseURL(text string) (*server, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil ||
		u.Fragment != "" || u.Opaque != "" {
		return nil, fmt.Errorf(`%q is no address of a directory, write one such as "ldaps://dc1.example.com"`, text)
	}
	s := &server{host: u.Hostname()}
	port := u.Port()
	switch u.Scheme {
	case "ldaps":
		if port == "" {
			port = "636"
		}
	case "ldap":
		s.startTLS = true
		if port == "" {
			port = "389"
		}
	default:
		return nil, fmt.Errorf(`%q is no address of a directory, write ldaps:// before the host, or ldap:// for `+
			`StartTLS`, text)
	}
	s.address = net.JoinHostPort(s.host, port)
	return s, nil
}

// conn is a connection. One goroutine uses it at a time.
type conn struct {
	*ldap.Conn
	wire    *wire
	server  *server
	timeout time.Duration
	ctx     context.Context // of its user
	bound   role
	used    time.Time
	dead    bool // it is not to be used again
}

// wire is what a connection reads from, and bounds how much and how long.
type wire struct {
	net.Conn
	left atomic.Int64 // octets that may still be read
}

var errTooMuch = errors.New("the directory answers with too much")

func (w *wire) Read(b []byte) (int, error) {
	if w.left.Load() <= 0 {
		return 0, errTooMuch
	}
	n, err := w.Conn.Read(b)
	w.left.Add(-int64(n))
	return n, err
}

// arm begins an operation.
func (c *conn) arm() {
	c.wire.left.Store(maxAnswer)
	end := time.Now().Add(c.timeout)
	if d, ok := c.ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	c.wire.SetDeadline(end)
}

// disarm leaves a connection unused: what comes then, such as the notice of a server that closes, is little.
func (c *conn) disarm() {
	c.wire.left.Store(64 << 10)
	c.wire.SetDeadline(time.Time{})
}

// abort makes the operation under way fail.
func (c *conn) abort() { c.wire.SetDeadline(time.Unix(1, 0)) }

// dialer connects to servers.
type dialer struct {
	roots   *x509.CertPool
	timeout time.Duration
}

// dial connects, with TLS that verifies.
func (d *dialer) dial(ctx context.Context, s *server) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.address, err)
	}
	c := &conn{wire: &wire{Conn: raw}, server: s, timeout: d.timeout, ctx: ctx}
	c.arm()
	stop := context.AfterFunc(ctx, c.abort)
	defer stop()
	settings := &tls.Config{ServerName: s.host, RootCAs: d.roots, MinVersion: tls.VersionTLS12}
	if s.startTLS {
		c.Conn = ldap.NewConn(c.wire, false)
		c.Start()
		err = c.StartTLS(settings)
	} else {
		secure := tls.Client(c.wire, settings)
		if err = secure.HandshakeContext(ctx); err == nil {
			c.Conn = ldap.NewConn(secure, true)
			c.Start()
		}
	}
	if err != nil {
		raw.Close()
		if c.Conn != nil {
			c.Conn.Close()
		}
		return nil, fmt.Errorf("%s: TLS: %w", s.address, err)
	}
	if _, ok := c.TLSConnectionState(); !ok { // nothing of ours ever travels in clear
		c.Close()
		return nil, fmt.Errorf("%s: there is no TLS", s.address)
	}
	return c, nil
}

// bind binds as the relay's own account.
func (c *conn) bind(name, password string) error {
	c.bound = asUser
	c.arm()
	_, err := c.SimpleBind(ldap.NewSimpleBindRequest(name, password, nil))
	return err
}

func (c *conn) simpleBind(name, password string, control ldap.Control) (*ldap.SimpleBindResult, error) {
	c.arm()
	return c.SimpleBind(ldap.NewSimpleBindRequest(name, password, []ldap.Control{control}))
}

// search returns entries. What the server refers to elsewhere is left out.
func (c *conn) search(base string, scope int, filter string, most int, attributes ...string) ([]*ldap.Entry, error) {
	c.arm()
	limit := max(int(c.timeout/time.Second), 1)
	r, err := c.Search(&ldap.SearchRequest{BaseDN: base, Scope: scope, DerefAliases: ldap.NeverDerefAliases,
		SizeLimit: most, TimeLimit: limit, Filter: filter, Attributes: attributes, EnforceSizeLimit: true})
	switch {
	case errors.Is(err, ldap.ErrSizeLimitExceeded): // a server that does not keep to it
		return nil, ldap.NewError(ldap.LDAPResultSizeLimitExceeded, err)
	case err != nil:
		return nil, err
	}
	return r.Entries, nil
}

// broken reports that an error is one of the connection, or of this server alone.
func (c *conn) broken(err error) bool {
	if err == nil {
		return false
	}
	e, ok := errors.AsType[*ldap.Error](err)
	switch {
	case c.IsClosing():
		return true
	case !ok:
		for _, answer := range []error{auth.ErrUnknownLogin, auth.ErrWrongPassword, auth.ErrLocked, auth.ErrUndecided} {
			if errors.Is(err, answer) {
				return false
			}
		}
		return true
	}
	switch e.ResultCode {
	case ldap.ErrorNetwork, ldap.ErrorUnexpectedMessage, ldap.ErrorUnexpectedResponse, ldap.LDAPResultBusy,
		ldap.LDAPResultUnavailable, ldap.LDAPResultServerDown, ldap.LDAPResultTimeLimitExceeded:
		return true
	}
	return false
}

// inWords is what a server said, for the log.
func inWords(err error) string { return mail.Printable(mail.Cut(err.Error(), 400)) }
