package check

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/relay/config"
	"postern/relay/outbound"
)

// What ends soon is said before mail stops, by whoever asks whether the file is right.
func TestWarningsOfWhatEnds(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for expires, want := range map[string]string{
		"2026-12-30": "",
		"2026-12-10": "upstream[1].oauth: the client secret ends on 2026-12-10, in 17 days, and without it no mail " +
			"leaves there; make a new client secret for application",
		"2026-11-20": "upstream[1].oauth: the client secret ended on 2026-11-20, and without it no mail leaves " +
			"there; make a new client secret for application",
	} {
		path := filepath.Join(t.TempDir(), "relay.toml")
		text := fmt.Sprintf(`hostname = "relay.example.com"
data_dir = "data"
[[upstream]]
name = "office"
provider = "microsoft-graph"
username = "relay@example.com"
[upstream.oauth]
flow = "client-credentials"
tenant = "contoso.onmicrosoft.com"
client_id = "6731de76-14a6-49ae-97bc-6eba6914391e"
client_secret = "hunter2"
expires = %q
`, expires)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, problems := Config(t.Context(), path)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		said := linesOf(Warnings(c, now))
		if want == "" && said != "" || !strings.Contains(said, want) || strings.Contains(said, "hunter2") ||
			strings.Contains(said, "client_secret_expires") {
			t.Errorf("%s: %s", expires, said)
		}
	}
}

func TestWarningsOfCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Now()
	leaf := testkit.NewCA(t).Leaf(testkit.LeafOptions{Names: []string{"mail.example.com"},
		NotAfter: now.Add(40 * 24 * time.Hour)})
	path := filepath.Join(dir, "relay.toml")
	text := fmt.Sprintf(`hostname = "relay.example.com"
data_dir = "data"
[tls]
cert_file = %q
key_file = %q
[[upstream]]
name = "office"
host = "smtp.example.net"
cert_file = %q
key_file = %q
`, leaf.CertFile, leaf.KeyFile, leaf.CertFile, leaf.KeyFile)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, problems := Config(t.Context(), path)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	end, err := outbound.CertificateEnd(leaf.CertFile)
	if err != nil {
		t.Fatal(err)
	}
	soon := "upstream[1].cert_file: " + leaf.CertFile + " ends on " + end.UTC().Format(time.DateOnly) + ", in 47 hours"
	const name = "tls.cert_file: it covers mail.example.com but not the host name relay.example.com"
	if said := linesOf(Warnings(c, end.Add(-47*time.Hour))); !strings.Contains(said, soon) ||
		!strings.Contains(said, name) {
		t.Errorf("%s", said)
	}
	if said := linesOf(Warnings(c, now)); strings.Contains(said, "cert_file: "+leaf.CertFile) ||
		!strings.Contains(said, name) {
		t.Errorf("%s", said)
	}
}

func linesOf(problems []config.Problem) string {
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintln(&b, p)
	}
	return b.String()
}

// A data_dir that other users of the machine can look into is named.
func TestWarningOfAnOpenDataDir(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(t.TempDir(), "relay.toml")
	text := fmt.Sprintf("hostname = \"relay.example.com\"\ndata_dir = %q\n[[upstream]]\nname = \"office\"\nhost = "+
		"\"smtp.example.net\"\n", dir)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for mode, warned := range map[os.FileMode]bool{0o700: false, 0o750: true, 0o755: true, 0o711: true} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if said := linesOf(Warnings(c, time.Now())); strings.Contains(said, "chmod 700 "+dir) != warned {
			t.Errorf("%04o: %q", mode, said)
		}
	}
}

// Faults of certificates are told in the first round, each at its key, beside those of the configuration.
func TestCertificateFaultsInTheFirstRound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	leaf := testkit.NewCA(t).Leaf(testkit.LeafOptions{})
	for name, text := range map[string][]byte{"cert.pem": leaf.KeyPEM, "key.pem": leaf.CertPEM,
		"request.pem": []byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE " +
			"REQUEST-----\n"), "open.pem": []byte("hello")} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ tls, rest, want string }{
		{"cert_file = \"cert.pem\"\nkey_file = \"key.pem\"", "", "4: tls.cert_file: cert_file (" + dir +
			"/cert.pem) has the key and key_file (" + dir + "/key.pem) the certificate: swap them"},
		{"cert_file = \"request.pem\"\nkey_file = \"open.pem\"", "[log]\nlevel = \"loud\"\n",
			"log.level|tls.cert_file: " + dir + "/request.pem has no certificate in PEM form, but a certificate " +
				"request|tls.key_file: the private key in " + dir +
				"/open.pem can be read by every user|tls.key_file: " + dir + "/open.pem has no private key"},
	} {
		path := filepath.Join(dir, "relay.toml")
		text := "hostname = \"relay.example.com\"\ndata_dir = \"data\"\n[tls]\n" + c.tls +
			"\n[[upstream]]\nname = \"office\"\nhost = \"smtp.example.net\"\n" + c.rest
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, problems := Config(t.Context(), path)
		said := linesOf(problems)
		for want := range strings.SplitSeq(c.want, "|") {
			if !strings.Contains(said, want) {
				t.Errorf("it lacks %q:\n%s", want, said)
			}
		}
	}
}
