package config

import (
	"log/slog"
	"path/filepath"

	"postern/certs"
)

// TLSDir, in DataDir, has the self-signed certificate and its keys.
const TLSDir = "tls"

// CertOptions is what package certs needs for the listeners' certificate.
func (c *Config) CertOptions(log *slog.Logger) certs.Options {
	return certs.Options{
		CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile, Hostname: c.Hostname,
		Dir: filepath.Join(c.DataDir, TLSDir), Names: c.TLS.SelfSignedNames, Logger: log,
		ACME: c.TLS.ACME != nil,
	}
}
