package acme

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	protocol "github.com/mholt/acmez/v3/acme"
	"golang.org/x/net/netutil"

	"postern/internal/listen"
)

// solve makes a challenge's answer visible. cleanUp, never nil, takes it back.
type solve func(ctx context.Context) (cleanUp func(), err error)

// nothing is a cleanUp with nothing to do.
func nothing() {}

// cleanUpTime bounds taking an answer back, for which a shutdown waits.
const cleanUpTime = 20 * time.Second

// solver returns how to answer a challenge.
func (i *issuer) solver(c protocol.Challenge, account protocol.Account) (solve, error) {
	switch c.Type {
	case HTTP01, TLSALPN01:
		return func(ctx context.Context) (func(), error) { return i.o.giveAtAll(ctx, c) }, nil
	case DNS01:
		return func(ctx context.Context) (func(), error) { return i.publish(ctx, c) }, nil
	case Persist01:
		return func(ctx context.Context) (func(), error) {
			return nothing, i.o.rememberIssuers(ctx, c.IssuerDomainNames)
		}, nil
	}
	return nil, fmt.Errorf("the challenge %q is not known", c.Type)
}

// publish answers dns-01.
func (i *issuer) publish(ctx context.Context, c protocol.Challenge) (func(), error) {
	if i.o.DNS == nil {
		return nothing, errors.New("dns-01 has no way to publish records: write [tls.acme.rfc2136], " +
			"[tls.acme.acmedns] or [tls.acme.exec]")
	}
	name, value := c.DNS01TXTRecordName(), c.DNS01KeyAuthorization()
	cleanUp := func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
		defer cancel()
		if err := i.o.DNS.CleanUp(late, name, value); err != nil {
			i.o.Logger.Warn("a record for the CA could not be taken back; it does no harm", "name", name, "err", err)
		}
	}
	if err := i.o.DNS.Present(ctx, name, value); err != nil {
		return cleanUp, fmt.Errorf("publish the record: %w", err)
	}
	return cleanUp, nil
}

// Bounds of the listeners for challenges, which are open only while the CA looks.
const (
	challengeConns  = 64 // connections at once
	challengeTime   = 10 * time.Second
	challengeHeader = 8 << 10 // octets of a request
)

// listenFor opens a listener for a challenge.
func listenFor(ctx context.Context, address, challenge string) (net.Listener, error) {
	l, err := listen.TCP(ctx, address)
	if err != nil {
		return nil, &hint{fmt.Sprintf("%s needs %s on this machine: free it and let postern bind it "+
			"(CAP_NET_BIND_SERVICE), or choose another challenge", challenge, address), err}
	}
	return netutil.LimitListener(l, challengeConns), nil
}

// serveHTTP answers http-01 until cleanUp. It is no general server: one path, one name, one answer.
func serveHTTP(ctx context.Context, address string, c protocol.Challenge) (func(), error) {
	l, err := listenFor(ctx, address, HTTP01)
	if err != nil {
		return nothing, err
	}
	s := &http.Server{
		Handler:           httpAnswer(c),
		ReadHeaderTimeout: challengeTime, ReadTimeout: challengeTime, WriteTimeout: challengeTime,
		IdleTimeout: challengeTime, MaxHeaderBytes: challengeHeader,
		ErrorLog: log.New(io.Discard, "", 0), // what strangers send
	}
	s.SetKeepAlivesEnabled(false)
	var done sync.WaitGroup
	done.Go(func() { _ = s.Serve(l) }) // until Close; the CA says if it was not served
	return func() { s.Close(); done.Wait() }, nil
}

// httpAnswer answers exactly what the CA asks for (RFC 8555 §8.3); everything else is not found.
func httpAnswer(c protocol.Challenge) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead || r.URL.EscapedPath() != c.HTTP01ResourcePath() ||
			!strings.EqualFold(strings.TrimSuffix(host, "."), c.Identifier.Value) {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = io.WriteString(w, c.KeyAuthorization) // the CA says if it was not enough
	})
}
