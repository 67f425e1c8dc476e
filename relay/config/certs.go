package config

import (
	"log/slog"
	"path/filepath"

	"postern/certs"
)

// CertOptions is what package certs needs for the listeners' certificate.
func (c *Config) CertOptions(log *slog.Logger) certs.Options {
	return certs.Options{
		CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile, Hostname: c.Hostname,
		Dir: filepath.Join(c.DataDir, "tls"), Names: c.TLS.SelfSignedNames, Logger: log,
		ACME: c.TLS.ACME != nil,
	}
}
