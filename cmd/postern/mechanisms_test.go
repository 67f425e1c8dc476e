package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/auth/oidc/oidctest"
	"postern/internal/testkit"
	"postern/operate"
)

// TestUserMechanisms: a password brings its keys for SCRAM where that is offered, a certificate can be pinned and taken
// away, and user show says what a login can use.
func TestUserMechanisms(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	text, err := os.ReadFile(l.config)
	if err != nil {
		t.Fatal(err)
	}
	shown := func() (v operate.Detailed, can map[string]bool) {
		t.Helper()
		if err := json.Unmarshal([]byte(l.ok("user", "show", "anna", "--json")), &v); err != nil {
			t.Fatal(err)
		}
		can = map[string]bool{}
		for _, m := range v.Mechanisms {
			can[m.Name] = m.Can
		}
		return v, can
	}
	l.ok("user", "add", "anna", "--sender", "anna@example.com")
	if _, can := shown(); len(can) != 2 || !can["PLAIN"] || !can["LOGIN"] {
		t.Errorf("%v", can)
	}
	l.file("relay.toml", string(text)+"[auth]\nmechanisms = [\"SCRAM-SHA-256\", \"PLAIN\", \"LOGIN\", \"EXTERNAL\"]\n")
	if v, can := shown(); can["SCRAM-SHA-256"] || can["SCRAM-SHA-256-PLUS"] || can["EXTERNAL"] || len(can) != 5 {
		t.Errorf("%+v", v)
	}
	if out := l.ok("user", "show", "anna"); !strings.Contains(out, "the next login with PLAIN or LOGIN makes them") {
		t.Error(out)
	}
	l.ok("user", "password", "anna")
	if _, can := shown(); !can["SCRAM-SHA-256"] || !can["SCRAM-SHA-256-PLUS"] {
		t.Errorf("%v", can)
	}
	leaf := testkit.NewCA(t).Leaf(testkit.LeafOptions{})
	out := l.ok("user", "set", "anna", "--certificate", leaf.CertFile, "--note", "with a key")
	if !strings.Contains(out, "proves it") || !strings.Contains(out, "note: with a key") {
		t.Error(out)
	}
	if v, can := shown(); !can["EXTERNAL"] || len(v.Certificates) != 1 || len(v.Certificates[0].Key) != 64 {
		t.Errorf("%+v", v)
	}
	l.ok("user", "add", "bob", "--sender", "bob@example.com")
	if _, errs, err := l.run("user", "set", "bob", "--certificate", leaf.CertFile); err == nil ||
		!strings.Contains(err.Error()+errs, "anna") {
		t.Errorf("one key proves two logins: %v", err)
	}
	for _, bad := range [][]string{{"--certificate", l.config}, {"--certificate", filepath.Join(l.dir, "none")},
		{"--certificate", leaf.CertFile, "--no-certificate"}} {
		if _, _, err := l.run(append([]string{"user", "set", "bob"}, bad...)...); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
	if out := l.ok("user", "set", "anna", "--no-certificate"); !strings.Contains(out, "1 removed") {
		t.Error(out)
	}
	if v, can := shown(); can["EXTERNAL"] || len(v.Certificates) != 0 {
		t.Errorf("%+v", v)
	}
	key := strings.Repeat("1a", 32)
	l.ok("user", "set", "anna", "--key", key)
	if _, _, err := l.run("user", "set", "anna", "--key", key, "--remove-key", key); err == nil {
		t.Error("two of the flags are taken")
	}
	if out := l.ok("user", "set", "anna", "--remove-key", key); !strings.Contains(out, "proves it no more") {
		t.Error(out)
	}
	if v, _ := shown(); len(v.Certificates) != 0 {
		t.Errorf("%+v", v)
	}
}

// TestDeviceMayCram: device show says whether a device may use CRAM-MD5, in words and in JSON, and what to do if not.
func TestDeviceMayCram(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	text, err := os.ReadFile(l.config)
	if err != nil {
		t.Fatal(err)
	}
	l.ok("device", "add", "scanner", "--sender", "scans@example.com")
	if out := l.ok("device", "show", "scanner"); strings.Contains(out, "CRAM-MD5") {
		t.Errorf("no listener has it:\n%s", out)
	}
	l.file("relay.toml", string(text)+"[auth]\nmechanisms = [\"PLAIN\", \"LOGIN\", \"CRAM-MD5\"]\n")
	may := func(kind, login string, can bool, why string) {
		t.Helper()
		var v operate.Detailed
		if err := json.Unmarshal([]byte(l.ok(kind, "show", login, "--json")), &v); err != nil {
			t.Fatal(err)
		}
		out := l.ok(kind, "show", login)
		for _, m := range v.Mechanisms {
			if m.Name != "CRAM-MD5" {
				continue
			}
			if m.Can != can || !strings.Contains(m.Why, why) || !strings.Contains(out, why) {
				t.Errorf("%s: %+v\n%s", login, m, out)
			}
			return
		}
		t.Errorf("%s: CRAM-MD5 is not in %+v", login, v.Mechanisms)
	}
	may("device", "scanner", false, "no CRAM-MD5 keys yet")
	l.ok("device", "password", "scanner")
	may("device", "scanner", true, "")
	l.ok("device", "add", "copier", "--sender", "copier@example.com")
	may("device", "copier", true, "")
	l.ok("user", "add", "anna", "--sender", "anna@example.com")
	may("user", "anna", false, "for devices alone")
}

// TestAuthTestToken: postern auth test --token says whose a token is, and why one is not accepted, and never shows it.
func TestAuthTestToken(t *testing.T) {
	t.Parallel()
	i := oidctest.New(t)
	l := newCommandLine(t)
	text, err := os.ReadFile(l.config)
	if err != nil {
		t.Fatal(err)
	}
	l.file("relay.toml", string(text)+fmt.Sprintf("[auth]\nmechanisms = [\"PLAIN\", \"LOGIN\", \"OAUTHBEARER\"]\n"+
		"[[auth.source]]\n[[auth.source]]\ntype = \"oidc\"\nissuer = %q\naudience = [\"relay\"]\n", i.URL))
	token := i.Token(nil)
	out, errs, err := l.runWith(token+"\n", "auth", "test", "app@example.com", "--token")
	if err != nil || !strings.Contains(out, "right") || strings.Contains(out+errs, token) {
		t.Errorf("%v %s%s", err, out, errs)
	}
	out, errs, err = l.runWith(i.Token(map[string]any{"aud": "other"}), "auth", "test", "app@example.com", "--token")
	if err == nil || !strings.Contains(out, "it is for other, and audience has relay") {
		t.Errorf("%v %s%s", err, out, errs)
	}
}
