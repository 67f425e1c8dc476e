package store

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/relay/keyring"
	"postern/relay/seal"
)

const testPEM = "-----BEGIN PRIVATE KEY-----\nbm8ga2V5IGF0IGFsbCwgYnV0IGl0IHNlcnZlcw==\n-----END PRIVATE KEY-----\n"

// A copy of the store without seal.key holds no private key and no pepper, also where an earlier version had them in
// clear.
func TestSecretsAreSealed(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Daemon: true})
	if err := s.AddKeys(t.Context(), Key{Domain: "example.com", Selector: "new", Algorithm: "rsa",
		PEM: testPEM, State: keyring.State{Stage: keyring.Signing}}); err != nil {
		t.Fatal(err)
	}
	pepper, err := s.Secret(t.Context(), "auth-pepper", 32)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	old := bytes.Repeat([]byte{0x5a}, 32)
	fileOnly(t)
	raw(t, filepath.Join(dir, FileName), fmt.Sprintf(
		`INSERT INTO dkim_key (domain, selector, algorithm, pem, created) VALUES ('example.com', 'old', 'rsa', '%s', 0);
		INSERT INTO secret VALUES ('old', x'%s')`, testPEM, hex.EncodeToString(old)))

	s = open(t, Options{Dir: dir, Daemon: true})
	keys, err := s.Keys(t.Context())
	if err != nil || len(keys) != 2 || keys[0].PEM != testPEM || keys[1].PEM != testPEM {
		t.Fatalf("%+v, %v", keys, err)
	}
	for name, want := range map[string][]byte{"auth-pepper": pepper, "old": old} {
		for range 2 {
			if got, err := s.Secret(t.Context(), name, 32); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %x, %v; want %x", name, got, err, want)
			}
		}
	}
	if _, err := s.Secret(t.Context(), "old", 16); err == nil {
		t.Error("a secret of another length is given")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fileOnly(t)
	b, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string][]byte{"private key": []byte("bm8ga2V5"), "pepper": pepper,
		"old pepper": old} {
		if bytes.Contains(b, secret) {
			t.Errorf("the file has the %s in clear", name)
		}
	}

	if err := os.Remove(filepath.Join(dir, seal.KeyFile)); err != nil {
		t.Fatal(err)
	}
	s = open(t, Options{Dir: dir, Daemon: true})
	if _, err := s.Keys(t.Context()); err == nil || !strings.Contains(err.Error(), seal.KeyFile) {
		t.Errorf("keys without their seal: %v", err)
	}
	if _, err := s.Secret(t.Context(), "auth-pepper", 32); err == nil || !strings.Contains(err.Error(), seal.KeyFile) {
		t.Errorf("the pepper without its seal: %v", err)
	}
}
