package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

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

// Connections beyond the bound are closed at once, and a place that gets free is used again.
func TestConnectionsAreBounded(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := bound(inner, 2)
	defer l.Close()
	accepted := make(chan net.Conn, 4)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	dial()
	first := <-accepted
	dial()
	<-accepted
	if _, err := dial().Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a third is not closed: %v", err)
	}
	first.Close()
	first.Close()
	dial()
	<-accepted
	if len(l.free) != 2 {
		t.Errorf("%d places are taken", len(l.free))
	}
}
