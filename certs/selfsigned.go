package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"postern/internal/disk"
	"postern/internal/rights"
)

// Self-signed certificates live for 825 days, the most that Apple's systems accept for a server certificate
// (support.apple.com/103769), and are renewed a month before the end.
const (
	lifetime      = 825 * 24 * time.Hour
	renewalBefore = 30 * 24 * time.Hour
)

// The files of self-signed certificates in Options.Dir. The first two hold a certificate and its key each (0600), so
// that a pair is replaced atomically; the third holds both certificates without keys, for clients to trust.
const (
	ecdsaFile = "self-signed-ecdsa.pem"
	rsaFile   = "self-signed-rsa.pem"
	trustName = "self-signed.crt"
)

// SelfSignedFiles are the names that self-signed certificates and their keys have in Options.Dir.
func SelfSignedFiles() []string { return []string{ecdsaFile, rsaFile, trustName} }

// files returns the two files to watch.
func (o *Options) files() []string {
	if !o.selfSigned() {
		return []string{o.CertFile, o.KeyFile}
	}
	return []string{filepath.Join(o.Dir, ecdsaFile), filepath.Join(o.Dir, rsaFile)}
}

func (o *Options) trustFile() string { return filepath.Join(o.Dir, trustName) }

// names returns the names in a self-signed certificate: the host name, configured ones, and loopback.
func (o *Options) names() []string {
	all := append(append([]string{o.Hostname}, o.Names...), "localhost", "127.0.0.1", "::1")
	var unique []string
	for _, n := range all {
		if n != "" && !slices.Contains(unique, n) {
			unique = append(unique, n)
		}
	}
	return unique
}

// loadSelfSigned returns nil, nil if a file is missing.
func loadSelfSigned(o *Options, now time.Time) (*set, error) {
	var all []*tls.Certificate
	files := o.files()
	for _, file := range files {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		c, err := readPair(file, file)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return newSet(o, now, files[:], all...)
}

// renewalDue reports whether a self-signed certificate expires soon or does not cover a name.
func renewalDue(o *Options, s *set, now time.Time) bool {
	for _, c := range s.certificates {
		if c.Leaf.NotAfter.Sub(now) < renewalBefore {
			return true
		}
		for _, name := range o.names() {
			if c.Leaf.VerifyHostname(name) != nil {
				return true
			}
		}
	}
	return false
}

// makeSelfSigned writes new certificates. Each file is complete on disk before it gets its name, and the trust file
// comes last: a crash in between leaves files that work and are renewed together at the next start.
func makeSelfSigned(o *Options, now time.Time) error {
	if err := rights.MkdirAll(o.Dir); err != nil {
		return fmt.Errorf("make the directory of the self-signed certificate: %w", err)
	}
	certificates, err := SelfSigned(o.names(), now)
	if err != nil {
		return fmt.Errorf("make a self-signed certificate: %w", err)
	}
	return o.write(certificates)
}

// write writes the files of both certificates.
func (o *Options) write(certificates [2]tls.Certificate) error {
	var trust bytes.Buffer
	for i, file := range o.files() {
		public, private, err := encode(&certificates[i])
		if err != nil {
			return fmt.Errorf("make a self-signed certificate: %w", err)
		}
		trust.Write(public)
		if err := writeFile(file, append(private, public...), 0o600); err != nil {
			return fmt.Errorf("write the self-signed certificate: %w", err)
		}
	}
	if err := writeFile(o.trustFile(), trust.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the self-signed certificate: %w", err)
	}
	return nil
}

// SelfSigned makes two certificates for names and addresses, in memory: ECDSA P-256 and RSA-2048, in this order.
func SelfSigned(names []string, now time.Time) ([2]tls.Certificate, error) {
	var both [2]tls.Certificate
	elliptic, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return both, err
	}
	classic, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return both, err
	}
	for i, key := range []crypto.Signer{elliptic, classic} {
		if both[i], err = sign(key, names, now); err != nil {
			return both, err
		}
	}
	return both, nil
}

func sign(key crypto.Signer, names []string, now time.Time) (tls.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial.Add(serial, big.NewInt(1)),
		Subject:               pkix.Name{Organization: []string{"Postern self-signed"}},
		NotBefore:             now.Add(-time.Hour), // for clients whose clock is behind
		NotAfter:              now.Add(lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if _, ok := key.(*rsa.PrivateKey); ok {
		template.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	if len(names) > 0 && len(names[0]) <= 64 { // the longest common name, RFC 5280 appendix A
		template.Subject.CommonName = names[0]
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// encode returns the certificate and its key in PEM form.
func encode(c *tls.Certificate) (public, private []byte, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, nil, err
	}
	public = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
	return public, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// writeFile replaces a file atomically: it writes a temporary one, syncs and renames it.
func writeFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails if renamed, as it should
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := disk.Rename(f.Name(), path); err != nil {
		return err
	}
	return disk.SyncDir(filepath.Dir(path))
}
