package clientsetup

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"postern/internal/testkit"
	"postern/internal/testkit/pki"
	"postern/mail"
)

// plist reads a property list as Python does.
func plist(t *testing.T, profile []byte) map[string]any {
	t.Helper()
	cmd := exec.Command(testkit.Need(t, "python3"), "-c", "import plistlib, json, sys\n"+
		"json.dump(plistlib.loads(sys.stdin.buffer.read()), sys.stdout)")
	cmd.Stdin = bytes.NewReader(profile)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("no property list: %v\n%s", err, profile)
	}
	var read map[string]any
	if err := json.Unmarshal(out, &read); err != nil {
		t.Fatal(err)
	}
	return read
}

// required are the keys that Apple wants in a profile and in a mail account.
var required = map[string][]string{
	"profile": {"PayloadContent", "PayloadIdentifier", "PayloadType", "PayloadUUID", "PayloadVersion"},
	"account": {"EmailAccountType", "IncomingMailServerAuthentication", "IncomingMailServerHostName",
		"OutgoingMailServerAuthentication", "OutgoingMailServerHostName", "PayloadIdentifier", "PayloadType",
		"PayloadUUID", "PayloadVersion"},
}

func TestProfileIsAPropertyList(t *testing.T) {
	for _, name := range []string{"usual", "starttls", "idn"} {
		s := setupOf(t, name)
		profile, err := s.Apple(mail.Address{Local: "anna&co", Domain: s.Domains[0]})
		if err != nil {
			t.Fatal(err)
		}
		read := plist(t, profile)
		account, _ := read["PayloadContent"].([]any)[0].(map[string]any)
		for what, dict := range map[string]map[string]any{"profile": read, "account": account} {
			for _, key := range required[what] {
				if dict[key] == nil || dict[key] == "" {
					t.Errorf("%s: the %s has no %s", name, what, key)
				}
			}
		}
		if account["EmailAddress"] != "anna&co@"+s.Domains[0] || account["OutgoingMailServerPortNumber"] != float64(
			s.Outgoing[0].Port) || account["OutgoingPasswordSameAsIncomingPassword"] != false {
			t.Errorf("%s: %+v", name, account)
		}
	}
}

// OpenSSL verifies what we sign, with the content inside, and refuses a change.
func TestSignedProfile(t *testing.T) {
	openssl := testkit.Need(t, "openssl")
	s := setupOf(t, "usual")
	profile, err := s.Apple(mail.Address{Local: "anna", Domain: "example.com"})
	if err != nil {
		t.Fatal(err)
	}
	root, err := pki.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	between, err := root.Authority(func(c *x509.Certificate) { c.Subject.CommonName = "Between" })
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []pki.KeyType{"", pki.RSA} {
		cert, err := between.Leaf(pki.Options{Names: []string{"relay.example.com"}, Key: key})
		if err != nil {
			t.Fatal(err)
		}
		pair := cert.TLS
		pair.Certificate = [][]byte{pair.Certificate[0], between.Cert.Raw}
		signed, err := Sign(profile, &pair)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		rootFile, file := filepath.Join(dir, "root.pem"), filepath.Join(dir, "signed")
		write(t, rootFile, root.PEM)
		verify := func(signed []byte) (string, error) {
			write(t, file, signed)
			// -purpose any: it is the certificate of a server.
			out, err := exec.Command(openssl, "smime", "-verify", "-inform", "DER", "-in", file, "-CAfile", rootFile,
				"-purpose", "any").Output()
			return string(bytes.ReplaceAll(out, []byte("\r\n"), []byte("\n"))), err
		}
		if got, err := verify(signed); err != nil || got != string(profile) {
			t.Errorf("%q: openssl: %v\n%s", key, err, got)
		}
		forged := bytes.Replace(signed, []byte("relay.example.com</string>"), []byte("relay.example.org</string>"), 1)
		if _, err := verify(forged); err == nil || bytes.Equal(forged, signed) {
			t.Errorf("%q: a changed profile is taken", key)
		}
	}
}

func TestSignWithoutCertificate(t *testing.T) {
	root, err := pki.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := root.Leaf(pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pair := cert.TLS
	pair.Certificate = nil
	if _, err := Sign([]byte("profile"), &pair); err == nil {
		t.Error("it was signed by nobody")
	}
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
