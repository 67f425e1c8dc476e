package check

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testkit"
)

// TestRSACertificate: what stands as the RSA certificate must be one, and there.
func TestRSACertificate(t *testing.T) {
	elliptic := testkit.NewCA(t).Leaf(testkit.LeafOptions{Names: []string{"relay.example.com"}})
	missing := filepath.Join(t.TempDir(), "rsa.pem")
	for want, files := range map[string][2]string{
		"tls.rsa_cert_file: the certificate in " + elliptic.CertFile + " has a key of kind ECDSA": {elliptic.CertFile,
			elliptic.KeyFile},
		"tls.rsa_cert_file: ": {missing, elliptic.KeyFile},
		"tls.rsa_key_file: ":  {elliptic.CertFile, missing},
	} {
		path := filepath.Join(t.TempDir(), "relay.toml")
		text := fmt.Sprintf("hostname = \"relay.example.com\"\ndata_dir = \"data\"\n[tls]\nrsa_cert_file = %q\n"+
			"rsa_key_file = %q\n[[listener]]\nprofile = \"appliance\"\nnetworks = [\"10.0.0.0/24\"]\n[[upstream]]\n"+
			"name = \"office\"\nhost = \"smtp.example.net\"\n", files[0], files[1])
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, problems := Config(t.Context(), path)
		if said := linesOf(problems); !strings.Contains(said, want) {
			t.Errorf("want %q, said %s", want, said)
		}
	}
}
