package testkit

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"postern/internal/testkit/pki"
)

// The kinds of certificate keys.
const (
	ECDSA = pki.ECDSA
	RSA   = pki.RSA
)

// LeafOptions describe a server certificate. The zero value is a valid ECDSA certificate for
// localhost and the loopback addresses.
type LeafOptions = pki.Options

// CA is a certificate authority that exists for one test.
type CA struct {
	t testing.TB
	*pki.CA
	File string // its certificate, for ca_file and clients
}

// Cert is a server certificate with its key, in memory and as files.
type Cert struct {
	pki.Cert
	CertFile, KeyFile string
}

// NewCA makes a certificate authority.
func NewCA(t testing.TB) *CA {
	t.Helper()
	ca, err := pki.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	return &CA{t: t, CA: ca, File: writeFile(t, "ca.pem", ca.PEM)}
}

// Leaf makes a server certificate.
func (ca *CA) Leaf(o LeafOptions) Cert {
	ca.t.Helper()
	c, err := ca.CA.Leaf(o)
	if err != nil {
		ca.t.Fatal(err)
	}
	certFile, keyFile, err := c.Write(ca.t.TempDir())
	if err != nil {
		ca.t.Fatal(err)
	}
	return Cert{Cert: c, CertFile: certFile, KeyFile: keyFile}
}

// Expired makes a certificate that ended an hour ago.
func (ca *CA) Expired() Cert {
	return ca.Leaf(LeafOptions{NotAfter: time.Now().Add(-time.Hour)})
}

// WrongName makes a valid certificate for a host nobody asks for.
func (ca *CA) WrongName() Cert {
	return ca.Leaf(LeafOptions{Names: []string{"other.example.net"}})
}

func writeFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
