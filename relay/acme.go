package relay

import (
	"context"
	"log/slog"
	"reflect"
	"slices"

	"postern/certs"
	"postern/certs/acme"
	"postern/relay/config"
	relaystore "postern/relay/store"
)

// newACME makes the keeper of certificates by ACME and presents those that are stored. The CA is not asked before Run,
// and nothing waits for it.
func (s *Server) newACME(ctx context.Context, c *config.Config) error {
	s.acmeStore = s.store.ACME()
	o, err := acmeOptions(c, s.acmeStore, s.log)
	if err != nil {
		return err
	}
	told := false
	o.Issued = func(all []acme.Certificate) {
		var issued []certs.Issued
		for _, c := range all {
			issued = append(issued, certs.Issued{Name: c.Name, Certificate: c.Certificate})
		}
		s.certs.Adopt(issued)
		told = true
	}
	s.acme = acme.New(*o)
	if err := s.acme.Load(ctx); err != nil {
		s.log.Error("a certificate by ACME cannot be used: another one is asked for", "err", err)
	}
	if !told && c.TLS.ACME != nil {
		s.certs.Adopt(nil)
	}
	return nil
}

// acmeOptions are those of a configuration; without [tls.acme], such by which there is nothing to do.
func acmeOptions(c *config.Config, s *relaystore.ACME, log *slog.Logger) (*acme.Options, error) {
	o, err := c.ACMEOptions(s, log)
	if o == nil {
		o = &acme.Options{Storage: s, Logger: log}
	}
	o.Shared = s.Shared()
	return o, err
}

// acmeChanged reports whether a reload changes which certificates are asked for, or how.
func acmeChanged(before, c *config.Config) bool {
	return !reflect.DeepEqual(before.TLS.ACME, c.TLS.ACME) || !slices.Equal(before.ACMEKeys(), c.ACMEKeys())
}
