package certs

import (
	"crypto/tls"
	"log/slog"
	"time"
)

// Signer returns the first certificate in use that an authority has issued, nil if there is none.
func (m *Manager) Signer() *tls.Certificate { return m.current.Load().signer() }

// Signer is that of the files that o names, without a Manager. Nothing is made or changed.
func Signer(o Options, now time.Time) *tls.Certificate {
	o.Logger = slog.New(slog.DiscardHandler)
	s, err := load(&o, now)
	if err != nil || s == nil {
		return nil
	}
	return s.signer()
}

func (s *set) signer() *tls.Certificate {
	for i, info := range s.info {
		if !info.SelfSigned {
			return s.certificates[i]
		}
	}
	return nil
}
