package clientsetup

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"time"

	"postern/certs"
)

// Covers returns whether the certificate of the listeners is one for a host name. Nothing is covered by a certificate
// that is self-signed, cannot be used, or is not made yet.
func Covers(o certs.Options, now time.Time) func(host string) bool {
	o.Logger = slog.New(slog.DiscardHandler)
	infos, err := certs.Check(o, now)
	return func(host string) bool {
		for _, info := range infos {
			if err == nil && !info.SelfSigned && len(info.Chain) > 0 && info.Chain[0].VerifyHostname(host) == nil {
				return true
			}
		}
		return false
	}
}

// chainOf are the certificates of a pair, its own first.
func chainOf(pair *tls.Certificate) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for _, der := range pair.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		chain = append(chain, cert)
	}
	if len(chain) == 0 {
		return nil, errors.New("there is no certificate")
	}
	return chain, nil
}
