package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/auth"
	relaystore "postern/relay/store"
)

// TestMechanisms: what is unsafe together, what nobody can use, and who has no keys for SCRAM or CRAM-MD5.
func TestMechanisms(t *testing.T) {
	const oidc = "[[auth.source]]\n[[auth.source]]\ntype = \"oidc\"\nissuer = \"https://login.example.com\"\n" +
		"audience = [\"relay\"]\n"
	for _, c := range []struct{ name, listener, rest, key, says string }{
		{"as it comes", ``, "", "", ""},
		{"SCRAM beside PLAIN", `mechanisms = ["SCRAM-SHA-256", "PLAIN", "LOGIN"]`, "", "auth.mechanisms", "anna"},
		{"SCRAM alone", `mechanisms = ["SCRAM-SHA-256"]`, "", "listener[1].mechanisms", "SCRAM alone"},
		{"no LOGIN", `mechanisms = ["PLAIN"]`, "", "listener[1].mechanisms", ".NET"},
		{"CRAM-MD5", `mechanisms = ["PLAIN", "LOGIN", "CRAM-MD5"]`, "", "auth.mechanisms",
			"TLS protects PLAIN better"},
		{"devices without keys", `mechanisms = ["PLAIN", "LOGIN", "CRAM-MD5"]`, "", "auth.mechanisms",
			"CRAM-MD5: newscanner, oldscanner;"},
		{"CRAM-MD5 alone", `mechanisms = ["CRAM-MD5"]`, "", "listener[1].mechanisms", "devices alone"},
		{"without TLS", "mechanisms = [\"SCRAM-SHA-256\", \"PLAIN\", \"LOGIN\"]\ntls = \"none\"\n" +
			"networks = [\"127.0.0.0/8\"]", "", "listener[1].mechanisms", "without TLS"},
		{"tokens of nobody", `mechanisms = ["PLAIN", "LOGIN"]`, oidc, "auth.source[2]", "is never asked"},
		{"tokens", `mechanisms = ["PLAIN", "LOGIN", "OAUTHBEARER"]`, oidc, "", ""},
		{"certificates of nobody", `mechanisms = ["PLAIN", "LOGIN", "EXTERNAL"]`,
			"[[auth.source]]\ntype = \"file\"\npath = \"users\"\n", "listener[1].mechanisms",
			"no certificate can log in"},
		{"a file without keys", `mechanisms = ["PLAIN", "LOGIN", "SCRAM-SHA-256"]`,
			"[[auth.source]]\n[[auth.source]]\ntype = \"file\"\npath = \"users\"\n", "auth.source[2].path", "bob"},
		{"a file with cheap keys", `mechanisms = ["PLAIN", "LOGIN", "SCRAM-SHA-256"]`,
			"[[auth.source]]\n[[auth.source]]\ntype = \"file\"\npath = \"cheap\"\n", "auth.source[2].path",
			"4096 iterations"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "relay.toml")
			const key = "BySGTwYACwgBCQoLDA0ODwABAgMEBQYHCAkKCwwNDg8="
			for name, text := range map[string]string{"relay.toml": "hostname = \"relay.example.com\"\n" +
				"data_dir = \"data\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n" + c.listener +
				"\n[[upstream]]\nname = \"office\"\nhost = \"smtp.example.net\"\n" + c.rest,
				"users": "bob:$2y$05$7Dx7nxcb2X3e1rZ5gQp0AeYQJ7o5cBqk5Yx0m5oR1m3b1m6nK7f5K\n",
				"cheap": "bob:{SCRAM-SHA-256}4096,AAAAAAAAAAAAAAAA," + key + "," + key + "\n"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s, err := relaystore.Open(t.Context(), relaystore.Options{Dir: filepath.Join(dir, "data")})
			if err != nil {
				t.Fatal(err)
			}
			now := time.Now()
			u := auth.User{Login: "anna", Hash: "hash", Created: now, Changed: now}
			for _, u := range []auth.User{u, {Login: "newscanner", Generated: true}, {Login: "oldscanner"},
				{Login: "scanner", Generated: true}} {
				u.Hash, u.Device = "hash", u.Login != "anna"
				if err := s.AddUser(t.Context(), u); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.SetCram(t.Context(), "scanner", "hash", auth.DeriveCram("secret")); err != nil {
				t.Fatal(err)
			}
			s.Close()
			conf, problems := Config(t.Context(), path)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			said := Unwise(t.Context(), conf)
			found := c.key == "" && len(said) == 0
			for _, w := range said {
				found = found || w.Key == c.key && strings.Contains(w.Message, c.says)
			}
			if !found {
				t.Errorf("%v", said)
			}
		})
	}
}
