package upstream

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
)

// The ways to use TLS.
const (
	TLSStartTLS = "starttls" // required: without it nothing is sent
	TLSImplicit = "implicit"
	TLSNone     = "none"
)

// Settings are what every Transport is told of its upstream, whatever is spoken there. Defaults are for the
// configuration: what is missing is refused.
type Settings struct {
	Name     string // as in relay.toml; in every result
	Username string // the identity where none is named; of a mailbox its address

	MaxConnections int    // for each identity, those being closed included
	MaxRecipients  int    // in one transaction
	MaxMessageSize int64  // octets; 0: as the provider says
	Rates          []Rate // for each identity; none: as fast as the provider takes

	Quotas QuotaStore // nil: a restart forgets what was sent

	RootCAs *x509.CertPool // nil: the system's; see Roots

	// Token gives the access token for a login as identity, which is a mailbox; its error may be a TokenError. It is
	// called before each use, at most twice, and must return soon after ctx ends. nil: logins are not made by token.
	Token func(ctx context.Context, identity string) (token string, err error)
	// DropToken takes back a token that the upstream has refused, so that the next is another. It stands beside Token.
	DropToken func(identity, token string)

	// Dial makes connections, through a proxy or not; nil: directly.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	Jitter func() float64 // in [0, 1); nil: math/rand
	Logger *slog.Logger
}

// Check reports what cannot be used.
func (s *Settings) Check() error {
	for _, r := range s.Rates {
		if err := r.Check(); err != nil {
			return err
		}
	}
	switch {
	case s.MaxConnections < 1 || s.MaxRecipients < 1:
		return fmt.Errorf("%d connections and %d recipients at most are too few", s.MaxConnections, s.MaxRecipients)
	case (s.Token == nil) != (s.DropToken == nil):
		return errors.New("tokens can be had and not dropped, or dropped and not had")
	case s.Logger == nil:
		return errors.New("there is no log")
	}
	if s.Jitter == nil {
		s.Jitter = rand.Float64
	}
	return nil
}

// Roots returns the system's trust anchors with those of a PEM file appended.
func Roots(pem []byte) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a container without certificates: the file has to do
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate found")
	}
	return pool, nil
}
