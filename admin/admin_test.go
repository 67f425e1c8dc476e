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
			Handler(testOptions(test.ready)).ServeHTTP(rec, httptest.NewRequest(test.method, test.path, nil))
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
