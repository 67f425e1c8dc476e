// Package admin is the HTTP side of Postern: whether it lives, whether it can take mail, and its
// metrics. It serves nothing that a stranger on the address could use against anybody, and reads
// nothing but its own small interfaces.
//
// Failure semantics: when its address cannot be bound, Listen says so and the daemon refuses to start;
// trouble later is logged and never touches mail.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options are what the server needs.
type Options struct {
	// Ready returns nil when every listener accepts and the store is writable, else the reason in
	// plain words.
	Ready func(ctx context.Context) error
	// Notes returns what is wrong though mail can be taken, a line each: it is told below the answer and changes nothing. May be nil.
	Notes    func() []string
	Gatherer prometheus.Gatherer
	// Names returns the host names, beside localhost and addresses, that clients may ask for.
	Names  func() []string
	Logger *slog.Logger
}

// maxConnections is how many clients may be connected at once; a scraper and a probe need one each.
const maxConnections = 100

// Handler returns the HTTP handler: /healthz, /readyz and /metrics.
func Handler(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := o.Ready(r.Context()); err != nil {
			http.Error(w, strings.Join(append([]string{err.Error()}, o.notes()...), "\n"), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, strings.Join(append([]string{"ready"}, o.notes()...), "\n"))
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn),
	}))
	return checkHost(o.Names, mux)
}

func (o *Options) notes() []string {
	if o.Notes == nil {
		return nil
	}
	return o.Notes()
}

// checkHost refuses names that are not ours: a page somewhere in the web can let its own name point to this address, and its
// visitors' browsers would read for it what is here (DNS rebinding). Nobody can do that to an address.
func checkHost(names func() []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostOf(r.Host)
		_, err := netip.ParseAddr(strings.Trim(host, "[]"))
		own := func(name string) bool { return strings.EqualFold(strings.TrimSuffix(name, "."), host) }
		if err != nil && host != "localhost" && !slices.ContainsFunc(names(), own) {
			http.Error(w, fmt.Sprintf("this is not %q; ask by address, or list the name in [admin] names", host), http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostOf is the name in a Host field, in lower case, without port and final dot.
func hostOf(field string) string {
	if host, _, err := net.SplitHostPort(field); err == nil {
		field = host
	}
	return strings.TrimSuffix(strings.ToLower(field), ".")
}

// bounded closes connections beyond a number at once.
type bounded struct {
	net.Listener
	free chan struct{}
}

func bound(l net.Listener, n int) *bounded { return &bounded{l, make(chan struct{}, n)} }

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.free <- struct{}{}:
			return &counted{Conn: c, release: sync.OnceFunc(func() { <-b.free })}, nil
		default:
			c.Close()
		}
	}
}

// counted is a connection that gives its place back when it closes.
type counted struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// Serve answers requests on l until ctx ends, then waits up to two seconds for those under way.
func Serve(ctx context.Context, l net.Listener, o Options) error {
	srv := &http.Server{
		Handler:           Handler(o),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn),
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if srv.Shutdown(bounded) != nil {
			srv.Close()
		}
	}()
	err := srv.Serve(bound(l, maxConnections))
	if errors.Is(err, http.ErrServerClosed) {
		<-stopped
		return nil
	}
	return fmt.Errorf("admin on %s: %w", l.Addr(), err)
}
