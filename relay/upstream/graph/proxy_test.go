package graph

import (
	"context"
	"errors"
	"io"
	"net"

	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/fakeprovider"
	"postern/relay/upstream"
	"postern/relay/upstream/via"
)

// byProxy makes an upstream whose way out is a proxy.
func byProxy(t *testing.T, scheme string, proxy *testkit.Proxy, fake *fakeprovider.Graph) *Upstream {
	t.Helper()
	base, ca := listening(t, fake, soon, "graph.example.com")
	proxy.To = strings.TrimSuffix(strings.TrimPrefix(base, "https://"), "/v1.0")
	at, err := proxy.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	p, err := via.Parse(scheme + at)
	if err != nil {
		t.Fatal(err)
	}
	u, _ := connected(t, fake, func(o *Options) {
		o.Transport, o.BaseURL, o.RootCAs, o.Dial = nil, "https://graph.example.com/v1.0", ca.Pool, p.Dial
	})
	return u
}

func TestThroughAProxy(t *testing.T) {
	for _, scheme := range []string{"http://scott:tiger@", "socks5://scott:tiger@"} {
		fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
		proxy := &testkit.Proxy{User: "scott", Password: "tiger"}
		u := byProxy(t, scheme, proxy, fake)
		if r := only(t, send(t, u, to(t, "", "a@example.org"))); r.Class != mail.Delivered || len(proxy.Asked()) != 1 ||
			!strings.HasPrefix(proxy.Asked()[0], "graph.example.com") {
			t.Errorf("%s: %s; tunnels to %v", scheme, r.Reply, proxy.Asked())
		}
	}
}

// A proxy that does not let us through is a fault of the way there: the mailbox backs off, its mail goes another way or
// waits, and nothing is uncertain.
func TestProxyThatRefuses(t *testing.T) {
	for name, proxy := range map[string]*testkit.Proxy{
		"407":     {User: "scott", Password: "tiger"},
		"403":     {Answer: "HTTP/1.1 403 Forbidden\r\n\r\n<html>no</html>"},
		"502":     {Answer: "HTTP/1.1 502 Bad Gateway\r\n\r\n"},
		"503":     {Answer: "HTTP/1.1 503 Service Unavailable\r\n\r\n"},
		"nothing": {Answer: "\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
			u := byProxy(t, "http://", proxy, fake)
			r := only(t, send(t, u, to(t, "", "a@example.org")))
			if r.Class != mail.BackPressure || r.Stage != mail.StageConnect || r.Uncertain ||
				status(u) != upstreamBackingOff || fake.Requests() != 0 {
				t.Errorf("%s at %s, uncertain %v, the mailbox is %s: %s", r.Class, r.Stage, r.Uncertain, status(u),
					r.Reply)
			}
			if !strings.Contains(r.Reply.Text, "graph.example.com cannot be reached: the proxy http://127.0.0.1:") ||
				!strings.Contains(r.Reply.Text, "key proxy") {
				t.Errorf("it says %s", r.Reply)
			}
			steps := u.TestSenders(t.Context(), upstream.Trial{})
			if last := steps[len(steps)-1]; last.OK || last.Name != "proxy" ||
				!strings.Contains(last.Cause, "the proxy http://") {
				t.Errorf("%+v", steps)
			}
		})
	}
}

// dialing is a transport that cannot connect, or only late.
func dialing(dial func(context.Context) error) func(*Options) {
	return func(o *Options) {
		o.Transport, o.Dial = nil, func(ctx context.Context, _, _ string) (net.Conn, error) { return nil, dial(ctx) }
	}
}

// What fails before there is a connection is judged by that, whatever type the error has.
func TestErrorsOnTheWay(t *testing.T) {
	for name, dial := range map[string]func(context.Context) error{
		"a type of nobody's": func(context.Context) error { return errors.New("Proxy Authentication Required") },
		"an end of file":     func(context.Context) error { return io.ErrUnexpectedEOF },
		"reset": func(context.Context) error {
			return &net.OpError{Op: "read", Err: errors.New("connection reset by peer")}
		},
		"no end": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"no such host": func(context.Context) error {
			return &net.DNSError{Err: "no such host", Name: "x",
				IsNotFound: true}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u, _ := connected(t, fakeprovider.NewGraph(fakeprovider.GraphOptions{}), dialing(dial))
				r := only(t, send(t, u, to(t, "", "a@example.org")))
				if r.Class != mail.BackPressure || r.Uncertain ||
					r.Stage != mail.StageConnect && r.Stage != mail.StageResolve ||
					!strings.Contains(r.Reply.Text, "graph.microsoft.com") {
					t.Errorf("%s at %s, uncertain %v: %s", r.Class, r.Stage, r.Uncertain, r.Reply)
				}
				_ = u.Close(t.Context())
			})
		})
	}
}

// The time of a request that is spent on the way is the way's.
func TestTimeOnTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, _ := connected(t, fakeprovider.NewGraph(fakeprovider.GraphOptions{}), func(o *Options) {
			dialing(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })(o)
			o.Timeouts.Request, o.Timeouts.Connect = time.Second, time.Minute
		})
		if r := only(t, send(t, u, to(t, "", "a@example.org"))); r.Class != mail.BackPressure || r.Uncertain ||
			!strings.Contains(r.Reply.Text, "in time") {
			t.Errorf("%s: %s", r.Class, r.Reply)
		}
		_ = u.Close(t.Context())
	})
}
