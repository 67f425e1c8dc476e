package smtp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"

	"postern/internal/errno"
	"postern/mail"
	"postern/relay/upstream/replies"
	"postern/relay/upstream/via"
)

// maxAddresses bounds how many addresses of one name are tried for one connection.
const maxAddresses = 8

// resolve looks the host up. The order of the answer stays: the resolver sorts by RFC 6724.
func (u *Upstream) resolve(ctx context.Context) ([]netip.Addr, *fault) {
	if ip, err := netip.ParseAddr(strings.Trim(u.cfg.Host, "[]")); err == nil {
		return []netip.Addr{ip}, nil
	}
	lookup := u.cfg.Resolve
	if lookup == nil {
		lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, u.cfg.Timeouts.Resolve)
	defer cancel()
	addrs, err := lookup(ctx, u.cfg.Host)
	if err == nil && len(addrs) > 0 {
		return addrs[:min(len(addrs), maxAddresses)], nil
	}
	text := "the address of " + u.cfg.Host + " cannot be looked up"
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound || err == nil {
		text = "there is no address for the name " + u.cfg.Host
	}
	return nil, &fault{stage: mail.StageResolve, class: mail.BackPressure, reply: mail.R(451, "4.4.3", "%s", text),
		err: err}
}

// dial tries every address in order. The reply of its fault tells each with its trouble.
func (u *Upstream) dial(ctx context.Context) (net.Conn, *fault) {
	port := u.port()
	if u.cfg.Dial != nil && u.cfg.Resolve == nil {
		nc, err := u.dialOne(ctx, net.JoinHostPort(u.cfg.Host, port))
		if err != nil {
			return nil, u.dialFault(ctx, err)
		}
		return nc, nil
	}
	addrs, f := u.resolve(ctx)
	if f != nil {
		return nil, f
	}
	return u.dialAny(ctx, addrs, port)
}

func (u *Upstream) dialAny(ctx context.Context, addrs []netip.Addr, port string) (net.Conn, *fault) {
	var (
		last  error
		tried []string
	)
	for _, a := range addrs {
		address := net.JoinHostPort(a.Unmap().String(), port)
		nc, err := u.dialOne(ctx, address)
		if err == nil {
			return nc, nil
		}
		last = err
		tried = append(tried, address+" "+explainDial(err))
		if ctx.Err() != nil {
			break
		}
	}
	f := connectFault(last, u.cfg.Host+": "+strings.Join(tried, "; "))
	if ctx.Err() != nil {
		f.class = mail.Deferral // we gave up, which says nothing about the upstream
	}
	return nil, f
}

// dialFault is for a connection that Dial does not make. A proxy that wants another login needs a person; all else
// that a proxy does is a trouble of the way there, and no fault of the account.
func (u *Upstream) dialFault(ctx context.Context, err error) *fault {
	f := connectFault(err, u.cfg.Host+" "+explainDial(err))
	if refusal, ok := errors.AsType[*via.Error](err); ok {
		f = connectFault(err, u.cfg.Host+" cannot be reached: "+refusal.Error())
		if refusal.Login {
			f.class, f.reply.Code, f.reply.Enhanced = mail.AccountFault, 454, "4.7.0"
		}
	}
	if ctx.Err() != nil {
		f.class = mail.Deferral // we gave up, which says nothing about the upstream
	}
	return f
}

func connectFault(err error, text string) *fault {
	return &fault{stage: mail.StageConnect, class: mail.BackPressure,
		reply: mail.R(451, "4.4.1", "%s", mail.Cut(text, replies.MaxText)), err: err}
}

func (u *Upstream) dialOne(ctx context.Context, address string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, u.cfg.Timeouts.Connect)
	defer cancel()
	if u.cfg.Dial != nil {
		return u.cfg.Dial(ctx, "tcp", address)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

func isProxyFault(err error) bool {
	_, ok := errors.AsType[*via.Error](err)
	return ok
}

func explainDial(err error) string {
	var netErr net.Error
	switch {
	case errors.Is(err, errno.Refused):
		return "refuses connections"
	case errors.Is(err, errno.HostUnreachable), errors.Is(err, errno.NetworkUnreachable),
		errors.Is(err, errno.AddressUnavailable):
		return "cannot be reached from here"
	case errors.Is(err, context.Canceled):
		return "was left because we are shutting down or out of time"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &netErr) && netErr.Timeout():
		return "does not answer"
	}
	return "cannot be connected to: " + mail.Printable(err.Error())
}
