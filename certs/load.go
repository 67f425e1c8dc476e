package certs

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/rights"
	"postern/internal/textfile"
)

// Info describes a certificate in use.
type Info struct {
	File        string // where it was read from
	Subject     string
	Names       []string  // host names and addresses that it covers
	Key         string    // "ECDSA P-256", "RSA 2048"
	NotBefore   time.Time // of issued ones
	NotAfter    time.Time
	SelfSigned  bool
	Issued      bool     // by ACME
	Fingerprint string   // SHA-256 in the notation of openssl and mail clients: "AB:CD:…"
	Warnings    []string // what is allowed but unwise, and what to do
	Kinds       []Kind   // of the Warnings, one for each
	Chain       []*x509.Certificate
}

// Kind is what a warning is about.
type Kind string

// The kinds of warnings.
const (
	WrongName  Kind = "name"  // it does not cover the host name
	Ending     Kind = "ends"  // it expires soon
	WrongUsage Kind = "usage" // it is not meant for servers
	WrongChain Kind = "chain" // its authority's certificate is missing, or another stands there
	WrongKey   Kind = "key"   // clients do not take its key
)

// expiryWarning is how long before expiry warnings begin.
const expiryWarning = 14 * 24 * time.Hour

// maxFile bounds a file, in octets: a certificate with a long chain has 10 KB.
const maxFile = 1 << 20

// load reads and checks the certificates that o names. It returns nil, nil if they are self-signed and not made yet.
func load(o *Options, now time.Time) (*set, error) {
	if o.selfSigned() {
		return loadSelfSigned(o, now)
	}
	c, err := readPair(o.CertFile, o.KeyFile)
	if err != nil {
		return nil, err
	}
	return newSet(o, now, []string{o.CertFile}, c)
}

func newSet(o *Options, now time.Time, files []string, certificates ...*tls.Certificate) (*set, error) {
	s := &set{certificates: certificates}
	for i, c := range certificates {
		if err := checkDates(files[i], c.Leaf, now); err != nil {
			return nil, Faults{{Text: err.Error()}}
		}
		s.info = append(s.info, describe(o, files[i], c, now))
	}
	return s, nil
}

// pairError says why certificate and key do not fit. The usual cause is a chain in the wrong order, with the key
// belonging to a certificate further down.
func pairError(certFile, keyFile string, certPEM, keyPEM []byte, err error) error {
	for rest := certPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		one := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes})
		if _, e := tls.X509KeyPair(one, keyPEM); e == nil {
			return fmt.Errorf("%s is in the wrong order: "+
				"put the server's own certificate first and the authorities' after it", certFile)
		}
	}
	if strings.Contains(err.Error(), "does not match") {
		return fmt.Errorf("the key in %s does not belong to the certificate in %s, put files of one pair there",
			keyFile, certFile)
	}
	return fmt.Errorf("certificate %s with key %s: %s", certFile, keyFile, strings.TrimPrefix(err.Error(), "tls: "))
}

// checkDates refuses a certificate that is expired or not yet valid.
func checkDates(file string, leaf *x509.Certificate, now time.Time) error {
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("the certificate in %s expired on %s, renew it", file, day(leaf.NotAfter))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the certificate in %s is not valid before %s, "+
			"use it then or set this machine's clock (it says %s)",
			file, leaf.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

func describe(o *Options, file string, c *tls.Certificate, now time.Time) Info {
	leaf := c.Leaf
	signedItself := string(leaf.RawIssuer) == string(leaf.RawSubject) && leaf.CheckSignatureFrom(leaf) == nil
	info := Info{
		File:        file,
		Subject:     leaf.Subject.String(),
		Names:       slices.Clone(leaf.DNSNames),
		Key:         keyName(leaf),
		NotAfter:    leaf.NotAfter,
		SelfSigned:  signedItself || o.selfSigned(),
		Fingerprint: fingerprint(leaf),
	}
	for _, ip := range leaf.IPAddresses {
		info.Names = append(info.Names, ip.String())
	}
	info.warn(o, c, now)
	for _, der := range c.Certificate {
		if cert, err := x509.ParseCertificate(der); err == nil {
			info.Chain = append(info.Chain, cert)
		}
	}
	return info
}

func (info *Info) warn(o *Options, c *tls.Certificate, now time.Time) {
	warn := func(kind Kind, format string, args ...any) {
		info.Warnings, info.Kinds = append(info.Warnings, fmt.Sprintf(format, args...)), append(info.Kinds, kind)
	}
	if len(info.Names) == 0 {
		warn(WrongName, "it covers no name at all (a common name alone does not count), get one for %s", o.Hostname)
	} else if o.Hostname != "" && c.Leaf.VerifyHostname(o.Hostname) != nil {
		warn(WrongName, "it covers %s but not the host name %s; clients that connect by that name will refuse it",
			strings.Join(info.Names, ", "), o.Hostname)
	}
	if w := expiry(info.NotAfter, now); w != "" && !o.selfSigned() {
		warn(Ending, "%s", w)
	}
	usage := c.Leaf.ExtKeyUsage
	if len(usage) > 0 && !slices.Contains(usage, x509.ExtKeyUsageServerAuth) &&
		!slices.Contains(usage, x509.ExtKeyUsageAny) {
		warn(WrongUsage, "it is not meant for servers (no TLS server authentication), get a server certificate")
	}
	if w := chainWarning(c); w != "" && !info.SelfSigned {
		warn(WrongChain, "%s", w)
	}
	switch key := c.Leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < 2048 {
			warn(WrongKey, "its RSA key of %d bits is too short for current clients, get one with 2048", key.N.BitLen())
		}
	case ed25519.PublicKey:
		warn(WrongKey, "many mail clients do not know Ed25519 certificates, get one with an ECDSA P-256 or RSA key")
	}
}

// expiry warns of a certificate that ends at notAfter, "" while there is time.
func expiry(notAfter, now time.Time) string {
	left := notAfter.Sub(now)
	switch {
	case left <= 0:
		return fmt.Sprintf("it expired on %s and clients refuse it, renew it now", day(notAfter))
	case left < expiryWarning:
		return fmt.Sprintf("it expires on %s, in %d days; renew it", day(notAfter), int(left.Hours()/24))
	}
	return ""
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }

func keyName(leaf *x509.Certificate) string {
	switch key := leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + key.Params().Name
	case *rsa.PublicKey:
		return "RSA " + strconv.Itoa(key.N.BitLen())
	}
	return leaf.PublicKeyAlgorithm.String()
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":")
}

// readPrivate reads a file that not everybody may be able to read. With that error it still returns the content, so
// that all faults are found at once.
func readPrivate(path string) ([]byte, error) {
	r, err := rights.Of(path)
	if err != nil {
		return nil, textfile.Unusable(path, err)
	}
	if r.AnyoneReads {
		data, _ := textfile.Bounded(path, maxFile)
		return data, fmt.Errorf("the private key in %s can be read by every user of this machine (%s), run: %s", path,
			r, r.Command("o-rwx", path))
	}
	return textfile.Bounded(path, maxFile)
}
