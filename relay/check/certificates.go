package check

import (
	"errors"
	"log/slog"
	"time"

	"postern/certs"
	"postern/relay/config"
)

// checkCertificates says what is wrong with the listeners' certificate and key, all of it.
func checkCertificates(c *config.Config) []config.Problem {
	_, err := certs.Check(c.CertOptions(slog.New(slog.DiscardHandler)), time.Now())
	if err == nil {
		return nil
	}
	faults, ok := errors.AsType[certs.Faults](err)
	if !ok {
		return []config.Problem{c.Problem("tls.cert_file", "%s", err)}
	}
	var problems []config.Problem
	for _, f := range faults {
		key := "tls.cert_file"
		if f.InKey {
			key = "tls.key_file"
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
