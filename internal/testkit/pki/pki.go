// Package pki makes certificate authorities and server certificates for tests and
// measurements. Nothing here is fit for anything that lasts.
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
	"math/big"
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

// CA is a certificate authority that lives for a year.
type CA struct {
	cert *x509.Certificate
	key  crypto.Signer
	PEM  []byte
	Pool *x509.CertPool // it alone, as trust anchor
}

// Options describe a server certificate. The zero value is a valid ECDSA certificate for localhost
// and the loopback addresses.
type Options struct {
	Names     []string // host names and addresses; empty: localhost, 127.0.0.1, ::1
	Key       KeyType  // "": ECDSA
	NotBefore time.Time
	NotAfter  time.Time
}

// Cert is a server certificate with its key.
type Cert struct {
	TLS             tls.Certificate
	CertPEM, KeyPEM []byte
}

// NewCA makes a certificate authority.
func NewCA() (*CA, error) {
	key, err := newKey(ECDSA)
	if err != nil {
		return nil, err
	}
	template, err := newTemplate("Test authority", time.Now().Add(-time.Hour), time.Now().Add(365*24*time.Hour))
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	ca := &CA{cert: cert, key: key, PEM: block("CERTIFICATE", der), Pool: x509.NewCertPool()}
	ca.Pool.AddCert(cert)
	return ca, nil
}

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
	template, err := newTemplate(o.Names[0], o.NotBefore, o.NotAfter)
	if err != nil {
		return Cert{}, err
	}
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, name := range o.Names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		template.DNSNames = append(template.DNSNames, name)
	}
	key, err := newKey(o.Key)
	if err != nil {
		return Cert{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return Cert{}, err
	}
	return pack(der, key)
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

func newTemplate(name string, from, to time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: to}, err
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
