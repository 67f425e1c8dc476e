package via

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"slices"

	"postern/internal/errno"
	"postern/mail"
)

// Error is why there is no way through the proxy. Its text is for people: it names the proxy without credentials, and
// the key that it stands under.
type Error struct {
	Proxy  string // scheme, host and port
	Target string // host and port that were asked for
	Code   int    // of the proxy's HTTP answer; 0: there was none
	// Login: the proxy wants another login than it got. Only a person can mend that; everything else may pass by
	// itself.
	Login bool
	Err   error // may be nil

	text string
}

func (e *Error) Error() string { return e.text }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Ways in which a proxy is none.
var (
	errTLS      = errors.New("no TLS with the proxy")
	errNoHTTP   = errors.New("the proxy's answer is no HTTP")
	errNoSOCKS  = errors.New("the proxy's answer is no SOCKS5")
	errLongHead = errors.New("the proxy's answer has no end")
	errLongName = errors.New("the host name is too long for SOCKS5")
)

// fromKey is where a proxy of relay.toml is named.
const fromKey = "key proxy of this upstream"

func (p *Proxy) fail(target string, err error, text string) *Error {
	from := p.from
	from = cmp.Or(from, fromKey)
	text = "the proxy " + p.String() + " " + text + " (" + from + ")"
	return &Error{Proxy: p.String(), Target: target, Err: err, text: text}
}

// unreachable is for a proxy that cannot be connected to.
func (p *Proxy) unreachable(target string, err error) *Error {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return p.fail(target, err, "has a name that does not exist")
	case errors.As(err, &dns):
		return p.fail(target, err, "has a name that cannot be looked up now")
	case errors.Is(err, errno.Refused):
		return p.fail(target, err, "refuses connections")
	case errors.Is(err, errno.HostUnreachable), errors.Is(err, errno.NetworkUnreachable),
		errors.Is(err, errno.AddressUnavailable):
		return p.fail(target, err, "cannot be reached from here")
	case errors.Is(err, context.Canceled):
		return p.fail(target, err, "was left because we are shutting down or out of time")
	case timedOut(err):
		return p.fail(target, err, "does not answer")
	}
	return p.fail(target, err, "cannot be connected to: "+mail.Printable(err.Error()))
}

// explain is for what goes wrong between the connection to the proxy and the tunnel.
func (p *Proxy) explain(target string, err error) *Error {
	if known, ok := errors.AsType[*Error](err); ok {
		return known
	}
	var (
		certificate *tls.CertificateVerificationError
		name        x509.HostnameError
		record      tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &record):
		return p.fail(target, err, "does not speak TLS on this port; write http:// if it is spoken to in clear")
	case errors.As(err, &name):
		return p.fail(target, err, "shows a certificate of another name")
	case errors.As(err, &certificate):
		return p.fail(target, err, "shows a certificate that we do not trust; ca_file holds for the proxy too")
	case errors.Is(err, errNoHTTP), errors.Is(err, errLongHead):
		return p.fail(target, err, "answers CONNECT with something that is no HTTP; check scheme and port")
	case errors.Is(err, errNoSOCKS):
		return p.fail(target, err, "answers with something that is no SOCKS5; check scheme and port")
	case errors.Is(err, errLongName):
		return p.fail(target, err, "cannot be asked for "+target+": the name is too long for SOCKS5")
	case errors.Is(err, context.Canceled):
		return p.fail(target, err, "was left because we are shutting down or out of time")
	case timedOut(err):
		return p.fail(target, err, "did not connect us to "+target+" in time")
	case hungUp(err):
		return p.fail(target, err, "closed the connection when asked for "+target)
	}
	return p.fail(target, err, "does not connect us to "+target+": "+mail.Printable(err.Error()))
}

func timedOut(err error) bool {
	var netErr net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &netErr) && netErr.Timeout()
}

func hungUp(err error) bool {
	ends := []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, errno.Reset, errno.BrokenPipe}
	return slices.ContainsFunc(ends, func(end error) bool { return errors.Is(err, end) })
}
