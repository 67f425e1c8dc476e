package via

import (
	"context"
	"net"
	"net/http"
	"net/url"
)

// Dialer makes connections.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

// inEnvironment is where an Environment's proxies are named, for people.
const inEnvironment = "HTTPS_PROXY in the environment"

// Environment dials for HTTPS as HTTPS_PROXY and NO_PROXY say (golang.org/x/net/http/httpproxy has the forms): through
// that proxy, or directly with forward. The environment is read once in the life of a process.
func Environment(forward Dialer) Dialer { return environment(forward, http.ProxyFromEnvironment) }

func environment(forward Dialer, proxyFor func(*http.Request) (*url.URL, error)) Dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		at, err := proxyFor(&http.Request{URL: &url.URL{Scheme: "https", Host: address}})
		if err == nil && at == nil {
			return forward(ctx, network, address)
		}
		if err != nil { // its text may have a password in it
			return nil, &Error{Target: address, text: "the proxy's address cannot be read (" + inEnvironment + ")"}
		}
		p, err := Parse(complete(at).String())
		if err != nil {
			return nil, &Error{Target: address, Err: err, text: "the proxy's address " + err.Error() + " (" +
				inEnvironment + ")"}
		}
		p.Forward, p.from = forward, inEnvironment
		return p.Dial(ctx, network, address)
	}
}

// complete adds the port that net/http would take, and drops what it would ignore.
func complete(u *url.URL) *url.URL {
	c := &url.URL{Scheme: u.Scheme, User: u.User, Host: u.Host}
	if c.Port() == "" {
		port := map[string]string{schemeHTTP: "80", schemeHTTPS: "443", schemeSOCKS: "1080",
			schemeSOCKSh: "1080"}[u.Scheme]
		c.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return c
}
