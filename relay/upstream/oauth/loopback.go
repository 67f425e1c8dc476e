package oauth

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"postern/internal/listen"
)

// loopback awaits the browser on this machine (RFC 8252 §7.3), on both families where both are there: "localhost" is
// either.
type loopback struct {
	port   string
	server *http.Server
	wg     sync.WaitGroup
}

// page is what the browser shows in the end. It has nothing of the request in it.
var page = template.Must(template.New("page").Parse(`<!doctype html><meta charset="utf-8"><title>Postern</title>
<body style="font: 18px/1.5 sans-serif; max-width: 36em; margin: 4em auto"><h1>{{.Title}}</h1><p>{{.Text}}</p>
`))

type pageText struct{ Title, Text string }

func listenLoopback(take func(url.Values) error) (*loopback, error) {
	first, err := listen.TCP(context.Background(), "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(first.Addr().String())
	if err != nil {
		return nil, errors.Join(err, first.Close())
	}
	l := &loopback{port: port, server: &http.Server{
		Handler:           handleRedirect(take),
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		MaxHeaderBytes: 64 << 10, // codes of Microsoft are some 2 kB
		ErrorLog:       log.New(io.Discard, "", 0),
	}}
	l.server.SetKeepAlivesEnabled(false)
	listeners := []net.Listener{first}
	if second, err := listen.TCP(context.Background(), net.JoinHostPort("::1", port)); err == nil {
		listeners = append(listeners, second)
	}
	for _, ln := range listeners {
		l.wg.Go(func() { _ = l.server.Serve(ln) })
	}
	return l, nil
}

// close lets the page that the person is being shown go out, and waits.
func (l *loopback) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if l.server.Shutdown(ctx) != nil {
		_ = l.server.Close()
	}
	l.wg.Wait()
}

func handleRedirect(take func(url.Values) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		if r.Method != http.MethodGet || r.URL.Path != "/" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		text := pageText{"Postern may send now", "You may close this window. The command line goes on by itself."}
		if err := take(r.URL.Query()); err != nil {
			text = pageText{"That did not work", fmt.Sprint(err)}
			w.WriteHeader(http.StatusBadRequest)
		}
		_ = page.Execute(w, text)
	})
}
