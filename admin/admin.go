// Package admin serves HTTP: whether Postern is alive, whether it can accept mail, and its metrics, which reveal
// nothing that an attacker could use and need no login; and the console and API of package door, if there are any.
//
// Failure semantics: if its address cannot be bound, the daemon refuses to start; later trouble is logged and never
// affects mail.
package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
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

// Options configures the server.
type Options struct {
	// Ready returns nil if every listener accepts and the store is writable, else the reason in plain words.
	Ready func(ctx context.Context) error
	// Notes, unless nil, returns problems that do not stop mail, a line each, to be shown below the answer.
	Notes    func() []string
	Gatherer prometheus.Gatherer
	// Names returns the host names that clients may use, besides localhost and addresses.
	Names  func() []string
	Logger *slog.Logger
	// TLS, unless nil, serves everything by HTTPS alone.
	TLS *tls.Config
	// Rest, unless nil, answers whatever is not served here. It knows who asks.
	Rest http.Handler
	// Before, unless nil, stands before everything, the check of names too: for what is public under names of others.
	Before func(http.Handler) http.Handler
}

// maxConnections bounds the open connections; a scraper and a probe need one each, a browser up to six.
const maxConnections = 100

// Handler returns the HTTP handler: /healthz, /readyz, /metrics, and Options.Rest. Names that are not ours are refused
// before any of them.
func Handler(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := o.Ready(r.Context()); err != nil {
			http.Error(w, o.withNotes(err.Error()), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, o.withNotes("ready"))
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn),
	}))
	if o.Rest != nil {
		mux.Handle("/", o.Rest)
	}
	checked := CheckHost(o.Names, mux)
	if o.Before != nil {
		return o.Before(checked)
	}
	return checked
}

func (o *Options) withNotes(answer string) string {
	if o.Notes == nil {
		return answer
	}
	return strings.Join(append([]string{answer}, o.Notes()...), "\n")
}

// CheckHost refuses names that are not ours, against DNS rebinding: a web page can point its own name to this address
// and let its visitors' browsers read what is here. It cannot do that to an address.
func CheckHost(names func() []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostOf(r.Host)
		_, err := netip.ParseAddr(strings.Trim(host, "[]"))
		own := func(name string) bool { return strings.EqualFold(strings.TrimSuffix(name, "."), host) }
		if err != nil && host != "localhost" && !slices.ContainsFunc(names(), own) {
			why := fmt.Sprintf("this is not %q; ask by address, or list the name in [admin] names", host)
			http.Error(w, why, http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostOf is the name in a Host field, in lower case, without port and trailing dot.
func hostOf(field string) string {
	if host, _, err := net.SplitHostPort(field); err == nil {
		field = host
	}
	return strings.TrimSuffix(strings.ToLower(field), ".")
}

// bounded bounds the connections that are open at once. Whoever comes beyond the bound gets in all the same, and the
// oldest connection of whoever has most is closed: nobody keeps probes and scrapers out by holding all of them.
type bounded struct {
	net.Listener
	most int
	mu   sync.Mutex
	open []*counted // oldest first; guarded by mu
}

func bound(l net.Listener, n int) *bounded { return &bounded{Listener: l, most: n} }

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	conn, err := b.Listener.Accept()
	if err != nil {
		return nil, err
	}
	from, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
	c := &counted{Conn: conn, from: from, in: b}
	if displaced := b.add(c); displaced != nil {
		displaced.Close()
	}
	return c, nil
}

// add returns the connection that has to go for this one, or nil.
func (b *bounded) add(c *counted) *counted {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open = append(b.open, c)
	if len(b.open) <= b.most {
		return nil
	}
	has, most := map[string]int{}, 0
	for _, o := range b.open {
		has[o.from]++
		most = max(most, has[o.from])
	}
	return b.open[slices.IndexFunc(b.open, func(o *counted) bool { return has[o.from] == most })]
}

func (b *bounded) remove(c *counted) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open = slices.DeleteFunc(b.open, func(o *counted) bool { return o == c })
}

// counted is a connection that counts until it closes.
type counted struct {
	net.Conn
	from string // the client's address
	in   *bounded
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.in.remove(c)
	return c.Conn.Close()
}

// serve is Serve or ServeTLS.
func serve(srv *http.Server, l net.Listener, config *tls.Config) error {
	if config == nil {
		return srv.Serve(l)
	}
	srv.TLSConfig = config
	return srv.ServeTLS(l, "", "") // the certificate is the config's
}

// Serve answers requests on l until ctx ends, then waits up to two seconds for those in progress.
func Serve(ctx context.Context, l net.Listener, o Options) error {
	return ServeHandler(ctx, l, Handler(o), ServeOptions{Name: "admin", TLS: o.TLS, Idle: 2 * time.Minute,
		Troubles: slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn)})
}

// ServeOptions configures ServeHandler.
type ServeOptions struct {
	Name     string        // for errors
	TLS      *tls.Config   // nil: plain HTTP
	Idle     time.Duration // a connection without a request is closed after this
	Troubles *log.Logger   // is told of clients that cannot be served
}

// ServeHandler is Serve for another handler.
func ServeHandler(ctx context.Context, l net.Listener, h http.Handler, o ServeOptions) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       o.Idle,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          o.Troubles,
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
	err := serve(srv, bound(l, maxConnections), o.TLS)
	if errors.Is(err, http.ErrServerClosed) {
		<-stopped
		return nil
	}
	return fmt.Errorf("%s on %s: %w", o.Name, l.Addr(), err)
}
