package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
)

// files writes what a person took for a certificate and its key, and returns what is said of them.
func files(t *testing.T, cert, key []byte) (faults Faults, certFile, keyFile string) {
	t.Helper()
	dir := t.TempDir()
	certFile = put(t, filepath.Join(dir, "cert.pem"), cert, 0o644)
	keyFile = put(t, filepath.Join(dir, "key.pem"), key, 0o600)
	_, err := Check(Options{CertFile: certFile, KeyFile: keyFile, Hostname: "localhost"}, time.Now())
	if faults, _ = errors.AsType[Faults](err); err != nil && faults == nil {
		t.Fatalf("%T %v", err, err)
	}
	return faults, certFile, keyFile
}

func der(t *testing.T, text []byte) []byte {
	t.Helper()
	b, _ := pem.Decode(text)
	if b == nil {
		t.Fatal("no PEM")
	}
	return b.Bytes
}

func pemOf(kind string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}) }

// TestForms: whatever stands in the files is named, with how to make the right thing of it.
func TestForms(t *testing.T) {
	good := testkit.NewCA(t).Leaf(testkit.LeafOptions{})
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader,
		&x509.CertificateRequest{Subject: pkix.Name{CommonName: "localhost"}}, k)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	serial := negativeSerial(t, der(t, good.CertPEM))
	for _, c := range []struct {
		what      string
		cert, key []byte
		want      []string // one for each fault; {cert} and {key} are the files
	}{
		{"right", good.CertPEM, good.KeyPEM, nil},
		{"swapped", good.KeyPEM, good.CertPEM,
			[]string{"cert_file ({cert}) has the key and key_file ({key}) the certificate: swap them"}},
		{"swapped, key in SEC 1 form", pemOf("EC PRIVATE KEY", sec1), good.CertPEM, []string{"swap them"}},
		{"the key twice", good.KeyPEM, good.KeyPEM, []string{"{cert} has a private key and no certificate"}},
		{"a request", pemOf("CERTIFICATE REQUEST", request), good.KeyPEM,
			[]string{"{cert} has no certificate in PEM form, but a certificate request"}},
		{"a request of old Microsoft tools", pemOf("NEW CERTIFICATE REQUEST", request), good.KeyPEM,
			[]string{"a certificate request"}},
		{"a request in DER", request, good.KeyPEM, []string{"a certificate request"}},
		{"DER", der(t, good.CertPEM), good.KeyPEM, []string{"openssl x509 -inform der -in {cert}"}},
		{"both DER", der(t, good.CertPEM), sec1,
			[]string{"openssl x509 -inform der -in {cert}", "openssl pkey -inform der -in {key}"}},
		{"PKCS#7", pemOf("PKCS7", []byte{0x30, 0}), good.KeyPEM, []string{"openssl pkcs7 -print_certs -in {cert}"}},
		{"a key for SSH", good.CertPEM, pemOf("OPENSSH PRIVATE KEY", []byte("x")), []string{"a key for SSH"}},
		{"a public key", good.CertPEM, pemOf("PUBLIC KEY", public), []string{"a public key"}},
		{"a Java keystore", []byte("\xfe\xed\xfe\xed\x00\x00\x00\x02"), good.KeyPEM, []string{"keytool"}},
		{"OpenSSL's form", pemOf("TRUSTED CERTIFICATE", der(t, good.CertPEM)), good.KeyPEM,
			[]string{"openssl x509 -in {cert}"}},
		{"passphrase of old", good.CertPEM,
			pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY",
				Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"},
				Bytes:   []byte("x")}),
			[]string{"protected by a passphrase"}},
		{"negative serial number", pemOf("CERTIFICATE", serial), good.KeyPEM,
			[]string{"the certificate in {cert} cannot be read: its serial number is negative"}},
		{"a chain with one that cannot be read",
			append(append([]byte(nil), good.CertPEM...), pemOf("CERTIFICATE", serial)...), good.KeyPEM,
			[]string{"certificate 2 of the chain in {cert} cannot be read: its serial number is negative"}},
		{"everything at once", append(pemOf("CERTIFICATE", serial), pemOf("CERTIFICATE", []byte("x"))...),
			[]byte("hello"),
			[]string{"the certificate in {cert}", "certificate 2 of the chain",
				"{key} has no private key in PEM form"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			faults, certFile, keyFile := files(t, c.cert, c.key)
			if len(faults) != len(c.want) {
				t.Fatalf("%d faults, want %d: %v", len(faults), len(c.want), faults)
			}
			for i, want := range c.want {
				want = strings.NewReplacer("{cert}", certFile, "{key}", keyFile).Replace(want)
				if !strings.Contains(faults[i].Text, want) {
					t.Errorf("%q lacks %q", faults[i].Text, want)
				}
			}
		})
	}
}

// negativeSerial changes the sign of a certificate's serial number, which Go does not make.
func negativeSerial(t *testing.T, cert []byte) []byte {
	t.Helper()
	parsed, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	serial := parsed.SerialNumber.Bytes()
	at := strings.Index(string(cert), string(serial))
	changed := append([]byte(nil), cert...)
	if changed[at-1] == 0 { // a leading zero that keeps it positive: make its first octet part of a number below zero
		at--
	}
	changed[at] |= 0x80
	return changed
}

// TestPKCS12: as OpenSSL makes it.
func TestPKCS12(t *testing.T) {
	openssl := testkit.Need(t, "openssl")
	good := testkit.NewCA(t).Leaf(testkit.LeafOptions{})
	dir := t.TempDir()
	both := put(t, filepath.Join(dir, "both.pem"), append(append([]byte(nil), good.CertPEM...), good.KeyPEM...), 0o600)
	out := filepath.Join(dir, "both.p12")
	if said, err := exec.Command(openssl, "pkcs12", "-export", "-in", both, "-out", out, "-passout",
		"pass:x").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	faults, certFile, _ := files(t, data, good.KeyPEM)
	if len(faults) != 1 || !strings.Contains(faults[0].Text, "openssl pkcs12 -nodes -in "+certFile) {
		t.Errorf("%v", faults)
	}
}

// A mode that is too open and a content that is wrong are told in one round.
func TestModeAndContent(t *testing.T) {
	good := testkit.NewCA(t).Leaf(testkit.LeafOptions{})
	dir := t.TempDir()
	o := Options{CertFile: put(t, filepath.Join(dir, "cert.pem"), good.CertPEM, 0o644),
		KeyFile: put(t, filepath.Join(dir, "key.pem"), []byte("hello"), 0o644)}
	_, err := Check(o, time.Now())
	if faults, _ := errors.AsType[Faults](err); len(faults) != 2 || !faults[0].InKey ||
		!strings.Contains(faults[0].Text, "chmod o-rwx") || !strings.Contains(faults[1].Text, "no private key") {
		t.Errorf("%v", err)
	}
}
