package sign

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// samePublic compares public keys of any kind.
func samePublic(a, b crypto.PublicKey) bool {
	return a.(interface{ Equal(crypto.PublicKey) bool }).Equal(b)
}

func TestParseKey(t *testing.T) {
	for name, want := range map[string]string{"rsa": "rsa-2048", "rsa-pkcs1": "rsa-2048", "ed25519": "ed25519"} {
		if got := key(t, name, "s").Algorithm(); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if a, b := key(t, "rsa", "s"), key(t, "rsa-pkcs1", "s"); !samePublic(a.Signer.Public(), b.Signer.Public()) {
		t.Error("PKCS#1 and PKCS#8 of one key differ")
	}
}

func TestParseKeyRefuses(t *testing.T) {
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", name+".pem"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	block := func(kind, der string) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte(der)}) }
	for _, c := range []struct {
		name, reason string
		pem          []byte
	}{
		{"empty file", "no PEM block", nil},
		{"text", "no PEM block", []byte("r202611._domainkey IN TXT")},
		{"encrypted", "without a passphrase", read("encrypted")},
		{"encrypted the old way", "without a passphrase", []byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: " +
			"4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n")},
		{"certificate", `type "CERTIFICATE"`, block("CERTIFICATE", "x")},
		{"public key", `type "PUBLIC KEY"`, block("PUBLIC KEY", "x")},
		{"strange type", `type "A?B"`, []byte("-----BEGIN A\x1bB-----\n-----END A\x1bB-----\n")},
		{"damaged", "damaged key", block("PRIVATE KEY", "x")},
		{"damaged PKCS#1", "damaged key", block("RSA PRIVATE KEY", "x")},
		{"elliptic curve", "use RSA or Ed25519", read("ec")},
		{"short", "512 bits", read("rsa-512")},
	} {
		signer, err := ParseKey(c.pem)
		if err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: %v, want %q", c.name, err, c.reason)
		}
		if signer != nil {
			t.Errorf("%s: a key comes with the error", c.name)
		}
	}
}

func TestGenerate(t *testing.T) {
	for _, algorithm := range []string{RSA2048, Ed25519} {
		signer, text, err := Generate(algorithm)
		if err != nil {
			t.Fatal(err)
		}
		k := Key{Domain: "example.com", Selector: "s", Signer: signer}
		if warning, err := CheckKey(k); warning != "" || err != nil || k.Algorithm() != algorithm {
			t.Errorf("%s: %q, %v, %s", algorithm, warning, err, k.Algorithm())
		}
		again, err := ParseKey(text)
		if err != nil || !samePublic(again.Public(), signer.Public()) {
			t.Errorf("%s: its PEM does not read back: %v", algorithm, err)
		}
	}
	if _, _, err := Generate("rsa-512"); err == nil {
		t.Error("rsa-512 was generated")
	}
}

// mismatched claims another public key than it signs with.
type mismatched struct {
	crypto.Signer
	public crypto.PublicKey
}

func (m mismatched) Public() crypto.PublicKey { return m.public }

func TestCheckKey(t *testing.T) {
	good, ed := key(t, "rsa", "r202611"), key(t, "ed25519", "e202611")
	_, otherPEM, err := Generate(Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := ParseKey(otherPEM)
	with := func(domain, selector string, s crypto.Signer) Key { return Key{domain, selector, s} }
	for _, c := range []struct {
		name            string
		key             Key
		warning, reason string
	}{
		{"RSA", good, "", ""},
		{"Ed25519", ed, "", ""},
		{"selector of two labels", with("example.com", "a.b", ed.Signer), "", ""},
		{"A-label", with("xn--bcher-kva.example", "s", ed.Signer), "", ""},
		{"weak", with("example.com", "s", rsaKey(t, 1024)), "weak, use 2048", ""},
		{"none", with("example.com", "s", nil), "", "no private key"},
		{"no domain", with("", "s", ed.Signer), "", `domain ""`},
		{"no selector", with("example.com", "", ed.Signer), "", `selector ""`},
		{"literal", with("[192.0.2.1]", "s", ed.Signer), "", "not a domain name"},
		{"upper case", with("Example.com", "s", ed.Signer), "", `"example.com"`},
		{"U-label", with("bücher.example", "s", ed.Signer), "", "xn--bcher-kva.example"},
		{"injection", with("example.com", "s; d=evil", ed.Signer), "", "not a domain name"},
		{"too long", with(strings.Repeat("a.", 124)+"com", "selector", ed.Signer), "", "too long"},
		{"other private part", with("example.com", "s", mismatched{ed.Signer, other.Public()}), "", "may not belong"},
		{"other private part, RSA", with("example.com", "s", mismatched{good.Signer, rsaKey(t, 2048).Public()}), "",
			"may not belong"},
		{"broken", with("example.com", "s", brokenSigner{ed.Signer}), "", "does not sign"},
		{"other kind", with("example.com", "s", mismatched{ed.Signer, "x"}), "", "cannot sign"},
	} {
		warning, err := CheckKey(c.key)
		if c.reason == "" && err != nil || c.reason != "" && (err == nil || !strings.Contains(err.Error(), c.reason)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.reason)
		}
		if (warning == "") != (c.warning == "") || !strings.Contains(warning, c.warning) {
			t.Errorf("%s: warning %q, want %q", c.name, warning, c.warning)
		}
	}
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestTooLargeKey(t *testing.T) {
	if err := checkBits(8192); err == nil {
		t.Error("8192 bits are accepted")
	}
	if warning := sizeWarning(3072); !strings.Contains(warning, "some receivers") {
		t.Errorf("3072 bits: %q", warning)
	}
}

func TestKeyHidesItself(t *testing.T) {
	k := key(t, "ed25519", "e202611")
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(format, k); got != "e202611._domainkey.example.com" {
			t.Errorf("%s prints %s", format, got)
		}
	}
	if got := fmt.Sprint([]Key{k}); got != "[e202611._domainkey.example.com]" {
		t.Errorf("a list prints %s", got)
	}
}

func TestRing(t *testing.T) {
	rsa, ed := key(t, "rsa", "r"), key(t, "ed25519", "e")
	at := func(k Key, domain, selector string) Key { k.Domain, k.Selector = domain, selector; return k }
	ring := NewRing([]Key{
		at(ed, "example.com", "e1"), at(rsa, "example.com", "r1"), at(rsa, "example.com", "r2"),
		at(rsa, "mail.example.com", "m"), at(ed, "xn--bcher-kva.example", "b"),
	})
	for domain, want := range map[string]string{
		"example.com":          "[r1._domainkey.example.com e1._domainkey.example.com]",
		"EXAMPLE.com.":         "[r1._domainkey.example.com e1._domainkey.example.com]",
		"a.b.example.com":      "[r1._domainkey.example.com e1._domainkey.example.com]",
		"mail.example.com":     "[m._domainkey.mail.example.com]",
		"x.mail.example.com":   "[m._domainkey.mail.example.com]",
		"bücher.example":       "[b._domainkey.xn--bcher-kva.example]",
		"shop.bücher.example":  "[b._domainkey.xn--bcher-kva.example]",
		"badexample.com":       "[]",
		"com":                  "[]",
		"example.com.evil.net": "[]",
		"":                     "[]",
		"[192.0.2.1]":          "[]",
	} {
		if got := fmt.Sprint(ring.For(domain)); got != want {
			t.Errorf("For(%q) = %s, want %s", domain, got, want)
		}
	}
	var none *Ring
	if none.For("example.com") != nil {
		t.Error("a nil ring has keys")
	}
}

func TestRecord(t *testing.T) {
	for _, k := range bothKeys(t) {
		text, err := k.Record()
		if err != nil {
			t.Fatal(err)
		}
		parts := SplitRecord(text)
		for _, p := range parts {
			if len(p) > 255 {
				t.Errorf("a string of %d octets", len(p))
			}
		}
		if strings.Join(parts, "") != text {
			t.Errorf("%s: %q", k, parts)
		}
		line, err := k.ZoneLine()
		if err != nil || !strings.HasPrefix(line, k.RecordName()+". IN TXT ") ||
			strings.Count(line, `"`) != 2*len(parts) {
			t.Errorf("zone line %q, %v", line, err)
		}
	}
	const want = `e202611._domainkey.example.com. IN TXT "v=DKIM1; k=ed25519; p=`
	if line, _ := key(t, "ed25519", "e202611").ZoneLine(); !strings.HasPrefix(line, want) {
		t.Errorf("zone line %q", line)
	}
}

// TestToASCII has the examples of RFC 3492 §7.1 that DNS could hold, and domains in use.
