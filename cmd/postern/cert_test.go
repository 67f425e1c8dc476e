package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"postern/internal/testkit"
	"postern/operate"
	"postern/relay/dnscheck/dnstest"
)

// A person inside a LAN gets a certificate as docs/certificates.md says: print the record, publish it, ask.
func TestCertificateByStaticRecord(t *testing.T) {
	t.Parallel()
	zone := dnstest.Zone("example.com") + "relay.example.com 300 A 127.0.0.1\n"
	world := dnstest.Start(t, zone)
	ca := testkit.NewPebble(t, testkit.PebbleOptions{DNS: world.Resolver.String()})
	l := newCommandLine(t)
	l.config = l.file("relay.toml", fmt.Sprintf("hostname = \"relay.example.com\"\ndata_dir = \"data\"\n"+
		"[admin]\naddress = \"\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n"+
		"[[upstream]]\nname = \"provider\"\nhost = \"127.0.0.1\"\n"+
		"[tls.acme]\nchallenges = [\"dns-persist-01\"]\ndirectory_url = %q\nca_file = %q\n", ca.Directory, ca.CAFile))
	if out := l.ok("cert", "list"); !strings.Contains(out, "relay.example.com  ECDSA  acme  none yet") {
		t.Errorf("%s", out)
	}
	if _, _, err := l.run("cert", "show", "mail.example.com"); err == nil || isUsage(err) {
		t.Errorf("%v", err)
	}
	if _, _, err := l.run("cert", "renew", "mail.example.com"); err == nil ||
		!strings.Contains(err.Error(), "not among the names of [tls.acme], which are relay.example.com") {
		t.Errorf("%v", err)
	}
	if _, _, err := l.run("cert", "renew"); err == nil || !strings.Contains(err.Error(), "postern does not run") {
		t.Errorf("%v", err)
	}
	out := l.ok("cert", "dns")
	line := regexp.MustCompile(`(?m)^_validation-persist\.relay\.example\.com\. 3600 IN TXT ` +
		`"pebble\.letsencrypt\.org; accounturi=.*"$`).FindString(out)
	if line == "" {
		t.Fatalf("%s", out)
	}
	if again := l.ok("cert", "dns"); again != out {
		t.Errorf("another account:\n%s", again)
	}

	if err := world.Set(zone + strings.Replace(line, ". 3600 IN", " 3600", 1)); err != nil {
		t.Fatal(err)
	}
	daemon := testkit.Postern(t, "serve", "--config", l.config)
	daemon.WaitLog("certificate obtained from the CA")
	if out := l.ok("cert", "renew"); !strings.Contains(out, "89 days") {
		t.Errorf("%s", out)
	}
	if out := l.ok("cert", "show", "Relay.Example.com."); !strings.Contains(out, "Pebble Intermediate CA") ||
		!strings.Contains(out, "89 days left") {
		t.Errorf("%s", out)
	}
	var list []operate.Certificate
	if err := json.Unmarshal([]byte(l.ok("cert", "list", "--json")), &list); err != nil || len(list) != 1 ||
		list[0].Source != operate.FromACME || list[0].Failures != 0 || list[0].Key != "ECDSA P-256" {
		t.Errorf("%+v, %v", list, err)
	}
	if out, _, _ := l.run("status"); !strings.Contains(out, "acme:relay.example.com (ECDSA P-256)") {
		t.Errorf("%s", out)
	}
	daemon.Stop()
	if out, _, _ := l.run("status"); !strings.Contains(out, "acme:relay.example.com (ECDSA P-256)") {
		t.Errorf("without the daemon:\n%s", out)
	}
	ca.Process.Kill()
	daemon = testkit.Postern(t, "serve", "--config", l.config) // a renewal that fails says so, and leaves what there is
	daemon.WaitLog("msg=ready")
	if out, _, err := l.run("cert", "renew"); err == nil || !strings.Contains(out, "connection refused") ||
		!strings.Contains(out, "89 days") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestCertificateFromFile(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	if out := l.ok("cert", "list"); !strings.Contains(out, "There is none yet") {
		t.Errorf("%s", out)
	}
	cert := testkit.NewCA(t).Leaf(testkit.LeafOptions{Names: []string{"relay.example.com"}, Key: testkit.RSA})
	text, err := os.ReadFile(l.config)
	if err != nil {
		t.Fatal(err)
	}
	l.config = l.file("relay.toml", fmt.Sprintf("tls.cert_file = %q\ntls.key_file = %q\n%s", cert.CertFile,
		cert.KeyFile, text))
	if out := l.ok("cert", "list"); !strings.Contains(out, "relay.example.com  RSA 2048  file  179 days") {
		t.Errorf("%s", out)
	}
	for _, verb := range []string{"renew", "dns"} {
		if _, _, err := l.run("cert", verb); err == nil || !strings.Contains(err.Error(), "there is no [tls.acme]") {
			t.Errorf("%v", err)
		}
	}
}
