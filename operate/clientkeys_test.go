package operate_test

import (
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"postern/auth"
	"postern/internal/testkit/pki"
	"postern/operate"
)

// TestPin: a certificate, a public key and a fingerprint mean the same key; what is none of these is refused in words.
func TestPin(t *testing.T) {
	o := newOffice(t)
	ca, err := pki.NewCA()
	o.must(err)
	leaf, err := ca.Leaf(pki.Options{})
	o.must(err)
	block := func(kind string, data []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}))
	}
	parsed, err := x509.ParseCertificate(leaf.TLS.Certificate[0])
	o.must(err)
	key := auth.DigestOf(parsed).String()
	pretty := ""
	for i := 0; i < len(key); i += 2 {
		pretty += strings.ToUpper(key[i:i+2]) + ":"
	}
	for name, text := range map[string]string{
		"certificate": block("PRIVATE KEY", []byte("x")) + block("CERTIFICATE", parsed.Raw) + "junk",
		"public key":  block("PUBLIC KEY", parsed.RawSubjectPublicKeyInfo),
		"digits":      key, "colons": " " + strings.TrimSuffix(pretty, ":") + "\r\n",
	} {
		c, err := o.ClientCertificates.Pin(t.Context(), root, operate.Everybody, "ben", []byte(text))
		if err != nil || c.Digest.String() != key || c.Subject == "" {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	v, err := o.Accounts.Show(t.Context(), root, operate.Everybody, "ben")
	if err != nil || len(v.Certificates) != 1 {
		t.Fatalf("%+v, %v", v.Certificates, err)
	}
	for text, want := range map[string]string{
		"": "neither a certificate", "hello": "neither a certificate", key[2:]: "neither a certificate",
		strings.Repeat("g", 64):                    "neither a certificate",
		block("CERTIFICATE", []byte("x")):          "damaged",
		block("PUBLIC KEY", []byte("x")):           "damaged",
		strings.Repeat("a", operate.MaxPin+1):      "more than",
		block("PRIVATE KEY", []byte("no matter")):  "neither a certificate",
		block("CERTIFICATE REQUEST", []byte("no")): "neither a certificate",
	} {
		_, err := o.ClientCertificates.Pin(t.Context(), root, operate.Everybody, "ben", []byte(text))
		if kind, _ := operate.KindOf(err); kind != operate.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v", text, err)
		}
	}
}

// TestUnpinOne: the one that is named goes, and no other.
func TestUnpinOne(t *testing.T) {
	o := newOffice(t)
	one, two := strings.Repeat("1a", 32), strings.Repeat("2b", 32)
	for _, key := range []string{one, two} {
		_, err := o.ClientCertificates.Pin(t.Context(), root, operate.Everybody, "ben", []byte(key))
		o.must(err)
	}
	for key, want := range map[string]operate.Kind{"\x1b": operate.Invalid, one[2:]: operate.Invalid,
		strings.Repeat("3c", 32): operate.NotFound} {
		err := o.ClientCertificates.UnpinKey(t.Context(), root, operate.Everybody, "ben", key)
		if kind, is := operate.KindOf(err); !is || kind != want || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q: %v", key, err)
		}
	}
	if err := o.ClientCertificates.UnpinKey(t.Context(), root, operate.Everybody, "cleo", one); err == nil {
		t.Error("of nobody")
	}
	o.must(o.ClientCertificates.UnpinKey(t.Context(), root, operate.Everybody, "ben", strings.ToUpper(one)))
	v, err := o.Accounts.Show(t.Context(), root, operate.Everybody, "ben")
	if err != nil || len(v.Certificates) != 1 || v.Certificates[0].Key != two {
		t.Errorf("%+v, %v", v.Certificates, err)
	}
	var all []string
	for _, outcome := range o.outcomes() {
		if strings.HasSuffix(outcome, ": done") {
			all = append(all, outcome)
		}
	}
	if len(all) != 3 {
		t.Errorf("the audit has %q", o.outcomes())
	}
}
