package alert

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
)

// Reach connects to a hook, proves its certificate and says nothing to it: nobody is told of anything. Behind a proxy
// of the environment only the proxy is reached. The error does not contain the URL.
func Reach(ctx context.Context, h Hook) error {
	if err := CheckURL(h.URL); err != nil {
		return err
	}
	u, err := url.Parse(h.URL)
	if err != nil {
		return errURL
	}
	ctx, cancel := context.WithTimeout(ctx, postTime)
	defer cancel()
	t := h.transport(u)
	dial := t.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	target, secure := u, u.Scheme == "https"
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u}); err == nil && proxy != nil {
		target, secure = proxy, false
	}
	ports := map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}
	address := net.JoinHostPort(target.Hostname(), cmp.Or(target.Port(), ports[target.Scheme]))
	conn, err := dial(ctx, "tcp", address)
	if err != nil {
		return reachError(ctx, u, err)
	}
	defer conn.Close()
	if !secure {
		return nil
	}
	conf := t.TLSClientConfig.Clone()
	conf.ServerName = u.Hostname()
	return reachError(ctx, u, tls.Client(conn, conf).HandshakeContext(ctx))
}

func reachError(ctx context.Context, u *url.URL, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("no answer within %s", postTime)
	}
	return errors.New(shown(scrub(u, err.Error())))
}
