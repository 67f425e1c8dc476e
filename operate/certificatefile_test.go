package operate

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/certs"
	"postern/internal/testkit/pki"
)

// relayCertificate is one for a relay, and whose it is.
func relayCertificate(t *testing.T) (*pki.CA, pki.Cert) {
	t.Helper()
	ca, err := pki.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Leaf(pki.Options{Names: []string{"relay.example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	return ca, leaf
}

// TestCertificateFile: the public part in both forms, by name and by fingerprint, and never a key.
func TestCertificateFile(t *testing.T) {
	ca, leaf := relayCertificate(t)
	file := filepath.Join(t.TempDir(), "all.pem")
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Cert.Raw})
	all := append(append(append([]byte{}, leaf.CertPEM...), root...), leaf.KeyPEM...)
	if err := os.WriteFile(file, all, 0o600); err != nil {
		t.Fatal(err)
	}
	c, _ := bureau(t, "[tls]\ncert_file = \""+file+"\"\nkey_file = \""+file+"\"\n")
	list, err := c.List(t.Context(), operator)
	if err != nil || len(list) != 1 || list[0].Source != FromFile {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, which := range []string{"", "Relay.example.com.", list[0].Fingerprint,
		strings.ToLower(strings.ReplaceAll(list[0].Fingerprint, ":", ""))} {
		f, err := c.File(t.Context(), operator, which, PEM)
		if err != nil || f.Name != "relay.example.com.pem" || bytes.Contains(f.Data, []byte("PRIVATE")) ||
			!bytes.HasPrefix(f.Data, leaf.CertPEM) || !bytes.Contains(f.Data, root) {
			t.Errorf("%s: %s %s, %v", which, f.Name, f.Data, err)
		}
		f, err = c.File(t.Context(), operator, which, DER)
		if err != nil || f.Name != "relay.example.com.der" || !bytes.Equal(f.Data, ca.Cert.Raw) {
			t.Errorf("%s: %s, %v", which, f.Name, err)
		}
		if _, err := x509.ParseCertificate(f.Data); err != nil {
			t.Error(err)
		}
	}
	for which, want := range map[string]Kind{"other.example.com": NotFound, "\x1b[31m": NotFound} {
		_, err := c.File(t.Context(), operator, which, PEM)
		if kind, _ := KindOf(err); kind != want || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q: %v", which, err)
		}
	}
	if _, err := c.File(t.Context(), operator, "", "p12"); err == nil {
		t.Error("any form is made")
	}
	if _, err := c.File(t.Context(), Actor{Name: "n", Channel: Console}, "", PEM); err == nil {
		t.Error("everybody gets it")
	}
	if got := fileName("*.exämple.com"); strings.Trim(got, "._-abcdefghijklmnopqrstuvwxyz") != "" {
		t.Errorf("%q", got)
	}
}

// TestCompanionCertificate: the RSA certificate that old devices are shown beside the other is listed, and handed out.
func TestCompanionCertificate(t *testing.T) {
	_, leaf := relayCertificate(t)
	file := filepath.Join(t.TempDir(), "all.pem")
	if err := os.WriteFile(file, append(leaf.CertPEM, leaf.KeyPEM...), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _ := bureau(t, "[tls]\ncert_file = \""+file+"\"\nkey_file = \""+file+"\"\n[[listener]]\n"+
		"profile = \"appliance\"\nnetworks = [\"10.0.0.0/24\"]\n")
	options, wanted := c.Config().CompanionOptions(slog.New(slog.DiscardHandler))
	if _, err := certs.NewCompanion(options, wanted); err != nil { // as the daemon does
		t.Fatal(err)
	}
	list, err := c.List(t.Context(), operator)
	if err != nil || len(list) != 2 || list[0].ForDevices || !list[1].ForDevices || list[1].Source != SelfSigned ||
		!strings.HasPrefix(list[1].Key, "RSA") {
		t.Fatalf("%+v, %v", list, err)
	}
	f, err := c.File(t.Context(), operator, list[1].Fingerprint, DER)
	if err != nil {
		t.Fatal(err)
	}
	if one, err := x509.ParseCertificate(f.Data); err != nil || one.PublicKeyAlgorithm != x509.RSA {
		t.Errorf("%+v, %v", one, err)
	}
}

func FuzzPin(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"))
	f.Add([]byte(strings.Repeat("1a:", 32)))
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, subject, err := keyIn(text); err == nil && subject == "" {
			t.Error("a key without a name")
		}
	})
}
