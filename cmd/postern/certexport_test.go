package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testkit"
)

// TestCertExport: what is written has the certificate and never the key.
func TestCertExport(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	leaf := testkit.NewCA(t).Leaf(testkit.LeafOptions{})
	text, err := os.ReadFile(l.config)
	if err != nil {
		t.Fatal(err)
	}
	l.file("relay.toml", string(text)+"[tls]\ncert_file = \""+leaf.CertFile+"\"\nkey_file = \""+leaf.KeyFile+"\"\n")
	out := l.ok("cert", "export", "localhost")
	if !strings.Contains(out, "BEGIN CERTIFICATE") || strings.Contains(out, "PRIVATE") {
		t.Error(out)
	}
	file := filepath.Join(l.dir, "relay.der")
	l.ok("cert", "export", "--der", "--out", file)
	der, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x509.ParseCertificate(der); err != nil || bytes.Contains(der, []byte("-----")) {
		t.Error(err)
	}
	var both struct {
		PEM string
		DER []byte
	}
	if err := json.Unmarshal([]byte(l.ok("cert", "export", "--json")), &both); err != nil || both.PEM != out ||
		!bytes.Equal(both.DER, der) {
		t.Errorf("%+v, %v", both, err)
	}
	if _, _, err := l.run("cert", "export", "other.example.com"); err == nil {
		t.Error("any name is covered")
	}
}
