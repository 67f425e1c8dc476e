package certs

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"

	"postern/internal/testkit/pki"
)

// issued makes a certificate by an authority of a name; change may mark it.
func issued(t *testing.T, issuer string, change func(*x509.Certificate)) (leaf *x509.Certificate, authority []byte) {
	t.Helper()
	ca, err := (*pki.CA)(nil).Authority(func(c *x509.Certificate) { c.Subject.CommonName = issuer })
	if err != nil {
		t.Fatal(err)
	}
	made, err := ca.Leaf(pki.Options{Names: []string{"relay.example.com"}, Change: change})
	if err != nil {
		t.Fatal(err)
	}
	return made.TLS.Leaf, ca.Cert.Raw
}

// TestChain: an intermediate is missed where there is one, and a private root that issues by itself has none.
func TestChain(t *testing.T) {
	policy := func(numbers ...uint64) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			oid, err := x509.OIDFromInts(numbers)
			if err != nil {
				t.Fatal(err)
			}
			c.Policies = []x509.OID{oid}
		}
	}
	for _, c := range []struct {
		what, issuer string
		change       func(*x509.Certificate)
		want         string
	}{
		{"a private root", "Example Root CA", nil, ""},
		{"a private root with an address of its own", "Example CA",
			func(c *x509.Certificate) { c.IssuingCertificateURL = []string{"http://pki.example.com/ca.crt"} }, ""},
		{"a private root with a policy of its own", "Example CA", policy(1, 3, 6, 1, 4, 1, 99999, 1), ""},
		{"domain validation", "R13", policy(2, 23, 140, 1, 2, 1), "intermediate certificate"},
		{"extended validation", "Example EV", policy(2, 23, 140, 1, 1), "intermediate certificate"},
		{"in certificate logs", "E7", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: logTimestamps, Value: []byte{4, 0}}}
		}, "intermediate certificate"},
		{"a private intermediate", "Example Intermediate CA", nil, "intermediate certificate"},
		{"a private issuing authority", "Example Issuing CA 2", nil, "intermediate certificate"},
	} {
		t.Run(c.what, func(t *testing.T) {
			leaf, authority := issued(t, c.issuer, c.change)
			alone := chainWarning(&tls.Certificate{Certificate: [][]byte{leaf.Raw}, Leaf: leaf})
			if (c.want == "") != (alone == "") || !strings.Contains(alone, c.want) {
				t.Errorf("alone: %q, want %q", alone, c.want)
			}
			if w := chainWarning(&tls.Certificate{Certificate: [][]byte{leaf.Raw, authority}, Leaf: leaf}); w != "" {
				t.Errorf("with its issuer: %q", w)
			}
			_, other := issued(t, "Another CA", nil)
			if w := chainWarning(&tls.Certificate{Certificate: [][]byte{leaf.Raw, other},
				Leaf: leaf}); !strings.Contains(w, "not the certificate of its issuer (CN="+c.issuer) {
				t.Errorf("with another: %q", w)
			}
		})
	}
}
