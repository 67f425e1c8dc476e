package sources

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"postern/auth"
	"postern/auth/authtest"
	"postern/mail"
	"postern/relay/config"
)

const (
	head   = "hostname = \"relay.example.com\"\n[[upstream]]\nname = \"a\"\nhost = \"smtp.example.net\"\n"
	bcrypt = "$2y$05$I1tTl9PUPKtibRbIBZzBSOzj2.tvjQ.NrAPWcHmSQQQBIGeli7Lqm"
)

func load(t *testing.T, dir, text string) *config.Config {
	t.Helper()
	path := filepath.Join(dir, "relay.toml")
	if err := os.WriteFile(path, []byte(head+text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const all = `[[auth.source]]
[[auth.source]]
type = "file"
path = "users"
[[auth.source]]
type = "http"
url = "http://127.0.0.1:1/"
[[auth.source]]
type = "ldap"
urls = ["ldaps://127.0.0.1:1"]
bind_dn = "cn=x"
bind_password = "x"
base_dn = "dc=x"
[[auth.source]]
type = "dovecot"
socket = "/nonexistent"
`

// TestNew: sources stand in the order of the file; a password file is taken over; a broken one makes none.
func TestNew(t *testing.T) {
	dir := t.TempDir()
	users := filepath.Join(dir, "users")
	if err := os.WriteFile(users, []byte("anna:"+bcrypt+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := load(t, dir, all)
	list, err := New(c, authtest.NewUsers(), []byte("pepper"), nil)
	if err != nil {
		t.Fatal(err)
	}
	names := ""
	for _, s := range list {
		_, remote := s.(auth.Remote)
		names += fmt.Sprint(s.Name(), " ", remote, ", ")
	}
	if names != "store false, file false, http true, ldap true, dovecot true, " {
		t.Error(names)
	}
	again, err := New(c, authtest.NewUsers(), []byte("pepper"), list)
	if err != nil || again[1] != list[1] || again[2] == list[2] || len(Files(again)) != 1 {
		t.Errorf("%v, %v", again, err)
	}
	if !Same(c, load(t, dir, all)) || Same(c, load(t, dir, all+"timeout = \"7s\"\n")) {
		t.Error("what has changed is not seen")
	}
	if err := os.WriteFile(users, []byte("anna:broken\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = New(c, authtest.NewUsers(), []byte("pepper"), nil)
	bad, ok := errors.AsType[*mail.KeyError](err)
	if !ok || bad.Key != "auth.source[2].path" {
		t.Errorf("%v", err)
	}
}
