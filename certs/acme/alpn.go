package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3"
	protocol "github.com/mholt/acmez/v3/acme"
)

// errNotCA ends a handshake on the port of tls-alpn-01 that is not the CA's.
var errNotCA = errors.New("nothing is here for this name and protocol")

// byCA reports whether a handshake is a CA's: it offers this protocol and no other (RFC 8737 §3).
func byCA(hello *tls.ClientHelloInfo) bool {
	return slices.Equal(hello.SupportedProtos, []string{acmez.ACMETLS1Protocol})
}

// serveALPN answers tls-alpn-01 until cleanUp: a handshake for the name and protocol of the challenge, then the end
// (RFC 8737 §3). Other names and protocols get no certificate.
func serveALPN(ctx context.Context, address string, c protocol.Challenge) (func(), error) {
	certificate, err := acmez.TLSALPN01ChallengeCert(c)
	if err != nil {
		return nothing, err
	}
	l, err := listenFor(ctx, address, TLSALPN01)
	if err != nil {
		return nothing, err
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{acmez.ACMETLS1Protocol}, SessionTicketsDisabled: true,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if !strings.EqualFold(hello.ServerName, c.Identifier.Value) || !byCA(hello) {
				return nil, errNotCA
			}
			return certificate, nil
		},
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				select { // such as too many open files
				case <-ctx.Done():
					return
				case <-time.After(100 * time.Millisecond):
					continue
				}
			}
			conns.Go(func() {
				defer conn.Close()
				one, cancel := context.WithTimeout(ctx, challengeTime)
				defer cancel()
				_ = tls.Server(conn, config).HandshakeContext(one) // the CA says if it was not enough
			})
		}
	})
	return func() { stop(); l.Close(); conns.Wait() }, nil
}

// board has the answers to tls-alpn-01 for another listener of ours.
type board struct {
	mu      sync.Mutex // guards answers
	answers map[string]*tls.Certificate
}

// pin puts an answer up until cleanUp.
func (b *board) pin(c protocol.Challenge) (func(), error) {
	certificate, err := acmez.TLSALPN01ChallengeCert(c)
	if err != nil {
		return nothing, err
	}
	name := strings.ToLower(c.Identifier.Value)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers[name] = certificate
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.answers[name] == certificate {
			delete(b.answers, name)
		}
	}, nil
}

// Challenge is for tls.Config.GetConfigForClient of a listener of ours that is where the CA looks (ALPNShared). Who is
// not the CA gets nil: the listener's own configuration. The CA gets the answer, and an error if it asks for what was
// not ordered. After its handshake the listener has to close the connection, as net/http does.
func (k *Keeper) Challenge(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if !byCA(hello) {
		return nil, nil
	}
	k.mu.Lock()
	b := k.options.board
	k.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	certificate := b.answers[strings.ToLower(hello.ServerName)]
	if certificate == nil {
		return nil, errNotCA
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{acmez.ACMETLS1Protocol},
		SessionTicketsDisabled: true, Certificates: []tls.Certificate{*certificate}}, nil
}
