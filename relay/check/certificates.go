package check

import (
	"errors"
	"log/slog"
	"time"

	"postern/certs"
	"postern/relay/config"
)

// checkCertificates says what is wrong with the listeners' certificates and keys, all of it.
func checkCertificates(c *config.Config) []config.Problem {
	silent := slog.New(slog.DiscardHandler)
	_, err := certs.Check(c.CertOptions(silent), time.Now())
	problems := faultsOf(c, err, "tls.cert_file", "tls.key_file")
	if o, wanted := c.CompanionOptions(silent); wanted {
		err = certs.CheckCompanion(o, time.Now())
		problems = append(problems, faultsOf(c, err, "tls.rsa_cert_file", "tls.rsa_key_file")...)
	}
	return problems
}

// faultsOf are the faults of a pair at the keys that name its files.
func faultsOf(c *config.Config, err error, certKey, keyKey string) (problems []config.Problem) {
	faults, ok := errors.AsType[certs.Faults](err)
	if err != nil && !ok {
		return []config.Problem{c.Problem(certKey, "%s", err)}
	}
	for _, f := range faults {
		key := certKey
		if f.InKey {
			key = keyKey
		}
		problems = append(problems, c.Problem(key, "%s", f.Text))
	}
	return problems
}

// certificatesBeside checks the certificates of a configuration that is wrong elsewhere, so that a person mends both in
// one round.
func certificatesBeside(path string) []config.Problem {
	c, _ := config.Read(path)
	if c == nil || c.TLS.CertFile == "" || c.TLS.KeyFile == "" {
		return nil
	}
	return checkCertificates(c)
}
