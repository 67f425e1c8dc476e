package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func testOptions(ready error) Options {
	reg := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "postern_example_total", Help: "An example."})
	reg.MustRegister(c)
	c.Inc()
	return Options{
		Ready:    func(context.Context) error { return ready },
		Gatherer: reg,
		Names:    func() []string { return nil },
		Logger:   slog.New(slog.DiscardHandler),
	}
}

func TestHandler(t *testing.T) {
	for _, test := range []struct {
		name, method, path string
		ready              error
		status             int
		body               string
	}{
		{"alive", "GET", "/healthz", nil, 200, "ok"},
		{"alive though not ready", "GET", "/healthz", errors.New("no"), 200, "ok"},
		{"ready", "GET", "/readyz", nil, 200, "ready"},
		{"not ready says why", "GET", "/readyz", errors.New("store: disk full"), 503, "store: disk full"},
		{"metrics", "GET", "/metrics", nil, 200, "postern_example_total 1"},
		{"nothing else", "GET", "/debug/pprof/", nil, 404, ""},
		{"reading only", "POST", "/metrics", nil, 405, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			rec := httptest.NewRecorder()
			r := httptest.NewRequest(test.method, test.path, nil)
			r.Host = "127.0.0.1:8587"
			Handler(testOptions(test.ready)).ServeHTTP(rec, r)
			if rec.Code != test.status || !strings.Contains(rec.Body.String(), test.body) {
				t.Errorf("got %d %q, want %d with %q", rec.Code, rec.Body, test.status, test.body)
			}
		})
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, testOptions(nil)) }()
	resp, err := http.Get("http://" + l.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// A name that somebody else may have pointed here is refused.
func TestHost(t *testing.T) {
	o := testOptions(nil)
	o.Names = func() []string { return []string{"relay.example.com", "Prometheus.internal."} }
	for host, want := range map[string]int{
		"127.0.0.1:8587": 200, "192.0.2.7": 200, "[::1]:8587": 200, "[2001:db8::1]": 200, "localhost:8587": 200,
		"LOCALHOST":              200,
		"relay.example.com:8587": 200, "RELAY.example.com.": 200, "prometheus.internal": 200,
		"evil.example:8587": 421, "": 421, "127.0.0.1.evil.example": 421, "localhost.evil.example": 421,
		"relay.example.com.evil.example": 421,
	} {
		rec, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil)
		r.Host = host
		Handler(o).ServeHTTP(rec, r)
		if rec.Code != want {
			t.Errorf("%q: %d, want %d", host, rec.Code, want)
		}
		if rec.Code == 421 && !strings.Contains(rec.Body.String(), "[admin] names") {
			t.Errorf("%q: %s", host, rec.Body)
		}
	}
}

// calls is a listener whose connections come from the addresses that they are told.
type calls struct {
	net.Listener
	from chan string
}

func (l calls) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return calling{c, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(<-l.from + ":1024"))}, nil
}

type calling struct {
	net.Conn
	from net.Addr
}

func (c calling) RemoteAddr() net.Addr { return c.from }

// Nobody who holds all connections keeps others out: who comes beyond the bound displaces the oldest of whoever has
// most, and nobody else.
func TestConnectionsAreBounded(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	from := make(chan string, 1)
	l := bound(calls{inner, from}, 3)
	defer l.Close()
	dial := func(address string) (client, server net.Conn) {
		t.Helper()
		from <- address
		client, err := net.Dial("tcp", inner.Addr().String())
		if err == nil {
			t.Cleanup(func() { client.Close() })
			server, err = l.Accept()
		}
		if err != nil {
			t.Fatal(err)
		}
		return client, server
	}
	goes := func(c net.Conn, why string) {
		t.Helper()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%s: the connection that has to go is open: %v", why, err)
		}
	}
	scraper, scraped := dial("192.0.2.1")
	first, _ := dial("192.0.2.9")
	second, held := dial("192.0.2.9")
	probe, _ := dial("192.0.2.2")
	goes(first, "a probe comes while another has most")
	third, _ := dial("192.0.2.9")
	goes(second, "who has most comes again")
	held.Close() // once more, as the server does
	dial("192.0.2.3")
	goes(scraper, "all have one")
	scraped.Close()
	for _, c := range []net.Conn{probe, third} {
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection that may stay: %v", err)
		}
	}
	if len(l.open) != 3 {
		t.Errorf("%d are counted", len(l.open))
	}
}

// A probe is answered while one client holds as many connections as there may be, and more.
func TestProbeBesideAFlood(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := calls{inner, make(chan string, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, testOptions(nil)) }()
	for range maxConnections + 1 {
		l.from <- "192.0.2.9"
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	l.from <- "192.0.2.1"
	resp, err := http.Get("http://" + inner.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	cancel()
	if err := <-done; err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%s, %v", resp.Status, err)
	}
}
