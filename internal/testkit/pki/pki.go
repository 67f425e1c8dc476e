// Package pki makes certificate authorities and server certificates for tests and measurements only.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// KeyType is the kind of a certificate's key.
type KeyType string

// The kinds of keys.
const (
	ECDSA KeyType = "ecdsa" // P-256
	RSA   KeyType = "rsa"   // 2048 bits
)

// CA is a certificate authority. It is valid from 1999, so that also a test's bubble is within its time.
type CA struct {
	Cert *x509.Certificate
	PEM  []byte
	Pool *x509.CertPool // it alone, as trust anchor
	key  crypto.Signer
}

// Options describe a server certificate. The zero value is a valid ECDSA certificate for localhost
// and the loopback addresses.
type Options struct {
	Names     []string // host names and addresses; empty: localhost, 127.0.0.1, ::1
	Key       KeyType  // "": ECDSA
	NotBefore time.Time
	NotAfter  time.Time
	Change    func(*x509.Certificate) // what else is different
}

// Cert is a server certificate with its key.
type Cert struct {
	TLS             tls.Certificate
	CertPEM, KeyPEM []byte
}

// NewCA makes a root.
func NewCA() (*CA, error) { return (*CA)(nil).Authority(nil) }

// Authority makes an authority under another one; under nil, a root. change may be nil.
func (ca *CA) Authority(change func(*x509.Certificate)) (*CA, error) {
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "Test authority"}}
	template.NotBefore = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	template.NotAfter = template.NotBefore.AddDate(100, 0, 0)
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	if change != nil {
		change(template)
	}
	key, err := newKey(ECDSA)
	if err != nil {
		return nil, err
	}
	made := &CA{key: key, Pool: x509.NewCertPool()}
	if made.Cert, err = ca.sign(template, key); err != nil {
		return nil, err
	}
	made.PEM = block("CERTIFICATE", made.Cert.Raw)
	made.Pool.AddCert(made.Cert)
	return made, nil
}

// SelfSigned makes a server certificate that nobody else vouches for.
func SelfSigned(o Options) (Cert, error) { return (*CA)(nil).Leaf(o) }

// Leaf makes a server certificate.
func (ca *CA) Leaf(o Options) (Cert, error) {
	if len(o.Names) == 0 {
		o.Names = []string{"localhost", "127.0.0.1", "::1"}
	}
	if o.NotBefore.IsZero() {
		o.NotBefore = time.Now().Add(-48 * time.Hour)
	}
	if o.NotAfter.IsZero() {
		o.NotAfter = time.Now().Add(180 * 24 * time.Hour)
	}
	template := newTemplate(o)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if o.Change != nil {
		o.Change(template)
	}
	key, err := newKey(o.Key)
	if err != nil {
		return Cert{}, err
	}
	cert, err := ca.sign(template, key)
	if err != nil {
		return Cert{}, err
	}
	return pack(cert.Raw, key)
}

func (ca *CA) sign(template *x509.Certificate, key crypto.Signer) (*x509.Certificate, error) {
	by := &CA{Cert: template, key: key}
	if ca != nil {
		by = ca
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.Cert, key.Public(), by.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Client returns a client configuration that trusts only this authority.
func (ca *CA) Client(name string) *tls.Config {
	return &tls.Config{RootCAs: ca.Pool, ServerName: name, MinVersion: tls.VersionTLS12}
}

// Server returns a server configuration that presents the certificate.
func (c Cert) Server() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{c.TLS}, MinVersion: tls.VersionTLS12}
}

// Write writes cert.pem and key.pem, the latter readable by the owner only.
func (c Cert) Write(dir string) (certFile, keyFile string, err error) {
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := os.WriteFile(certFile, c.CertPEM, 0o644); err != nil {
		return "", "", err
	}
	return certFile, keyFile, os.WriteFile(keyFile, c.KeyPEM, 0o600)
}

func newTemplate(o Options) *x509.Certificate {
	t := &x509.Certificate{Subject: pkix.Name{CommonName: o.Names[0]}, NotBefore: o.NotBefore, NotAfter: o.NotAfter}
	for _, name := range o.Names {
		if ip := net.ParseIP(name); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
			continue
		}
		t.DNSNames = append(t.DNSNames, name)
	}
	return t
}

func pack(der []byte, key crypto.Signer) (Cert, error) {
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Cert{}, err
	}
	c := Cert{CertPEM: block("CERTIFICATE", der), KeyPEM: block("PRIVATE KEY", pkcs8)}
	c.TLS, err = tls.X509KeyPair(c.CertPEM, c.KeyPEM)
	return c, err
}

func newKey(kind KeyType) (crypto.Signer, error) {
	if kind == RSA {
		return RSAKey()
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// RSAKey returns the RSA key of 2048 bits of this process. It is made once: that costs up to a second.
var RSAKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
