package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSources: a broken password file is a problem with its line; what cannot be reached, and what cannot be locked,
// are warnings.
func TestSources(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const head = "hostname = \"relay.example.com\"\ndata_dir = \"data\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n" +
		"[[upstream]]\nname = \"office\"\nhost = \"smtp.example.net\"\n"
	path := file("relay.toml", head+"[[auth.source]]\n[[auth.source]]\ntype = \"file\"\npath = \"users\"\n")
	users := file("users", "anna:$apr1$C.VrQkat$uGjwvCCYqUIhI.EZQ4B3B/\n")
	_, problems := Config(t.Context(), path)
	if len(problems) != 1 || problems[0].Key != "auth.source[2].path" ||
		!strings.Contains(problems[0].Message, users+":1: ") || !strings.Contains(problems[0].Message, "htpasswd -B") {
		t.Errorf("%v", problems)
	}
	file("users", "anna:$2y$05$I1tTl9PUPKtibRbIBZzBSOzj2.tvjQ.NrAPWcHmSQQQBIGeli7Lqm\n")
	if err := os.Chmod(users, 0o620); err != nil {
		t.Fatal(err)
	}
	c, problems := Config(t.Context(), path)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if w := Unwise(t.Context(), c); len(w) != 1 || !strings.Contains(w[0].Message, "chmod go-w "+users) {
		t.Errorf("%v", w)
	}
	path = file("relay.toml", head+"[[auth.source]]\n[[auth.source]]\ntype = \"ldap\"\n"+
		"urls = [\"ldaps://127.0.0.1:1\"]\nbind_dn = \"cn=x\"\nbind_password = \"x\"\nbase_dn = \"dc=x\"\n"+
		"[[policy]]\nlimits = [\"5 messages/day\"]\nover_limit = \"lock\"\n")
	c, problems = Config(t.Context(), path)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if w := Unwise(t.Context(), c); len(w) != 0 { // over_limit = "lock" locks whatever source has the account
		t.Errorf("%v", w)
	}
	w := Unreachable(t.Context(), c)
	if len(w) != 1 || w[0].Key != "auth.source[2]" || !strings.Contains(w[0].Message, "connection refused") {
		t.Errorf("%v", w)
	}
}

// TestEntraEmail: at Entra ID the claim email is whatever stands in the directory, which nobody has verified.
func TestEntraEmail(t *testing.T) {
	const head = "hostname = \"relay.example.com\"\ndata_dir = \"data\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n" +
		"mechanisms = [\"PLAIN\", \"LOGIN\", \"XOAUTH2\"]\n[[upstream]]\nname = \"office\"\nhost = " +
		"\"smtp.example.net\"\n[[auth.source]]\n[[auth.source]]\ntype = \"oidc\"\naudience = [\"x\"]\n"
	for issuer, unsafe := range map[string]bool{
		"https://login.microsoftonline.com/8c6d/v2.0":                        true,
		"https://sts.windows.net/8c6d/":                                      true,
		"https://login.example.com/realms/office":                            false,
		"https://login.microsoftonline.com/8c6d/v2.0\"\nlogin_claim = \"azp": false,
	} {
		path := filepath.Join(t.TempDir(), "relay.toml")
		if err := os.WriteFile(path, []byte(head+"issuer = \""+issuer+"\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c, problems := Config(t.Context(), path)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		found := false
		for _, w := range Unwise(t.Context(), c) {
			found = found || w.Key == "auth.source[2].login_claim" && strings.Contains(w.Message, "preferred_username")
		}
		if found != unsafe {
			t.Errorf("%s: %v", issuer, found)
		}
	}
}
