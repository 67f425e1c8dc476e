package sign

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"postern/mail"
)

// Key signs for a domain under a selector. Signer is an RSA or Ed25519 key. It never appears in logs, since a Key
// prints as its record name.
type Key struct {
	Domain   string // lower case, A-labels
	Selector string
	Signer   crypto.Signer
}

// String returns the record name.
func (k Key) String() string { return k.RecordName() }

// GoString keeps %#v from printing the private part.
func (k Key) GoString() string { return k.RecordName() }

// RecordName returns the DNS name under which the public key is published (RFC 6376 §3.6.2.1).
func (k Key) RecordName() string { return k.Selector + "._domainkey." + k.Domain }

// The algorithms of Generate.
const (
	RSA2048 = "rsa-2048"
	Ed25519 = "ed25519"
)

// Algorithm names the kind of a key, "rsa-2048" or "ed25519".
func (k Key) Algorithm() string {
	if public, ok := k.Signer.Public().(*rsa.PublicKey); ok {
		return fmt.Sprintf("rsa-%d", public.N.BitLen())
	}
	return Ed25519
}

// Bounds of RSA keys, in bits. Gmail's minimum is 1024; RFC 8301 §3.2 wants 2048 for signing. Larger ones do not fit
// every DNS answer, and some receivers do not verify them.
const (
	leastBits = 1024
	goodBits  = 2048
	mostBits  = 4096
)

// ParseKey parses a private key in PEM: PKCS#8 or PKCS#1, RSA from 1024 to 4096 bits or Ed25519. The error says what
// was found instead.
func ParseKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("no PEM block: expected a line -----BEGIN PRIVATE KEY-----")
	}
	if strings.Contains(block.Type, "ENCRYPTED") || block.Headers["DEK-Info"] != "" {
		return nil, errors.New("the key is encrypted: store it without a passphrase")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("a PEM block of type %q is not a private key for DKIM: "+
			"expected PRIVATE KEY or RSA PRIVATE KEY", mail.Printable(mail.Cut(block.Type, 40)))
	}
	if err != nil {
		return nil, fmt.Errorf("damaged key: %w", err)
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if err := checkBits(k.N.BitLen()); err != nil {
			return nil, err
		}
		return newSigner(k)
	case ed25519.PrivateKey:
		return k, nil
	}
	return nil, fmt.Errorf("keys of type %T cannot sign with DKIM: use RSA or Ed25519", key)
}

func checkBits(n int) error {
	if n < leastBits {
		return fmt.Errorf("RSA key of %d bits: receivers refuse less than %d, use %d", n, leastBits, goodBits)
	}
	if n > mostBits {
		return fmt.Errorf("RSA key of %d bits: too slow to sign and too large for DNS, use %d", n, goodBits)
	}
	return nil
}

// Generate makes a key, RSA2048 or Ed25519, and its PEM (PKCS#8).
func Generate(algorithm string) (crypto.Signer, []byte, error) {
	var key crypto.Signer
	var err error
	switch algorithm {
	case RSA2048:
		key, err = rsa.GenerateKey(rand.Reader, goodBits)
	case Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		return nil, nil, fmt.Errorf("unknown key algorithm %q: use %s or %s", algorithm, RSA2048, Ed25519)
	}
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	if k, isRSA := key.(*rsa.PrivateKey); isRSA {
		if key, err = newSigner(k); err != nil {
			return nil, nil, err
		}
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// CheckKey refuses a key that cannot make a valid signature: names that DNS cannot hold, a bad size, a first signature
// that does not verify by the key's own record. The warning, "" if none, is for the operator.
func CheckKey(k Key) (warning string, err error) {
	if k.Signer == nil {
		return "", errors.New("no private key")
	}
	if err := checkNames(k); err != nil {
		return "", err
	}
	public, isRSA := k.Signer.Public().(*rsa.PublicKey)
	if isRSA {
		if err := checkBits(public.N.BitLen()); err != nil {
			return "", err
		}
		warning = sizeWarning(public.N.BitLen())
	}
	return warning, trial(k)
}

func sizeWarning(bits int) string {
	switch {
	case bits > goodBits:
		return fmt.Sprintf("RSA key of %d bits: some receivers do not verify more than %d", bits, goodBits)
	case bits < goodBits:
		return fmt.Sprintf("RSA key of %d bits: weak, use %d", bits, goodBits)
	}
	return ""
}

func checkNames(k Key) error {
	for _, n := range []struct{ what, name string }{{"domain", k.Domain}, {"selector", k.Selector}} {
		parsed, err := mail.ParseDomain(n.name)
		if err != nil || strings.HasPrefix(n.name, "[") {
			return fmt.Errorf("%s %q is not a domain name", n.what, n.name)
		}
		if ascii := mail.ALabels(parsed); ascii != n.name {
			return fmt.Errorf("%s %q: write it in lower case and as DNS has it (xn--…): %q", n.what, n.name, ascii)
		}
	}
	if len(k.RecordName()) > 253 {
		return fmt.Errorf("the DNS name %s is too long", k.RecordName())
	}
	return nil
}

// firstMessage is what every key signs before it signs mail.
const firstMessage = "From: postmaster@example.com\r\nSubject: First signature\r\n\r\nSigned to be verified.\r\n"

// trial signs a message, and has it verified by the record that DNS is to have.
func trial(k Key) error {
	fields, err := k.signFirst()
	if err != nil {
		return err
	}
	record, err := k.Record()
	if err != nil {
		return err
	}
	if err := k.verifyFirst(fields, record); err != nil {
		return fmt.Errorf("the first signature does not verify, the private key may not belong to its public key: %w",
			err)
	}
	return nil
}

// Verify signs a message and has it verified by a published record. nil: receivers that read the record accept
// signatures of the key.
func (k Key) Verify(record string) error {
	fields, err := k.signFirst()
	if err != nil {
		return err
	}
	return k.verifyFirst(fields, record)
}

func (k Key) signFirst() ([]byte, error) {
	fields, err := Sign(mail.BytesContent(firstMessage), []Key{k}, time.Now(), Options{})
	if err != nil {
		return nil, fmt.Errorf("the key does not sign: %w", err)
	}
	return fields, nil
}

// verifyFirst has go-msgauth, which is not ours, verify the first message by a record.
func (k Key) verifyFirst(fields []byte, record string) error {
	lookup := func(name string) ([]string, error) {
		if name != k.RecordName() {
			return nil, fmt.Errorf("%s is not the name of its record", name)
		}
		return []string{record}, nil
	}
	found, err := dkim.VerifyWithOptions(io.MultiReader(bytes.NewReader(fields), strings.NewReader(firstMessage)),
		&dkim.VerifyOptions{LookupTXT: lookup})
	switch {
	case err != nil:
		return err
	case len(found) != 1:
		return fmt.Errorf("%d signatures are found", len(found))
	}
	return found[0].Err
}

// Ring finds the keys for a header author. It is immutable.
type Ring struct {
	keys map[string][]Key // by domain, at most one of each algorithm, RSA first
}

// NewRing returns a Ring of keys that CheckKey accepted. If a domain has several keys of one algorithm, the first one
// signs.
func NewRing(keys []Key) *Ring {
	r := &Ring{keys: make(map[string][]Key)}
	for _, algorithm := range []string{"rsa-sha256", "ed25519-sha256"} {
		taken := make(map[string]bool)
		for _, k := range keys {
			if a, _, err := k.algorithm(); err == nil && a == algorithm && !taken[k.Domain] {
				taken[k.Domain] = true
				r.keys[k.Domain] = append(r.keys[k.Domain], k)
			}
		}
	}
	return r
}

// For returns the keys of a domain, or of its nearest parent that has any, whose signatures are aligned for DMARC (RFC
// 9989, relaxed). RSA comes first; nil if there is no key. A nil Ring has none.
func (r *Ring) For(domain string) []Key {
	if r == nil || strings.HasPrefix(domain, "[") {
		return nil
	}
	domain = mail.ALabels(strings.ToLower(strings.TrimSuffix(domain, ".")))
	for domain != "" {
		if keys := r.keys[domain]; len(keys) > 0 {
			return keys
		}
		_, domain, _ = strings.Cut(domain, ".")
	}
	return nil
}
