package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Nodes whose settings are alike have one digest, wherever each has its files and listens; any other difference shows.
func TestDigest(t *testing.T) {
	const text = `hostname = "relay.example.com"
data_dir = "data"
[[listener]]
name = "submission"
address = "127.0.0.1:0"
tls = "starttls"
max_connections = 100
[[policy]]
logins = ["anna"]
recipients = ["*@example.net"]
[[upstream]]
name = "provider"
host = "smtp.example.net"
username = "relay"
password = "secret"
`
	digest := func(change ...string) []byte {
		t.Helper()
		path := filepath.Join(t.TempDir(), "relay.toml")
		changed := strings.NewReplacer(change...).Replace(text)
		if len(change) > 0 && changed == text {
			t.Fatalf("%q changes nothing", change)
		}
		if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		return Digest(c)
	}
	first := digest()
	for _, change := range [][]string{
		{`"data"`, `"elsewhere"`}, {"127.0.0.1:0", "127.0.0.2:0"}, {`"secret"`, `"another"`},
		{"[[listener]]", "[log]\nlevel = \"debug\"\n[[listener]]"}, {"[[listener]]", "# a word\n[[listener]]"},
		{"[[listener]]", "[admin]\naddress = \"127.0.0.2:9090\"\n[[listener]]"},
	} {
		if !bytes.Equal(digest(change...), first) {
			t.Errorf("%q is another digest", change)
		}
	}
	for _, change := range [][]string{
		{"relay.example.com", "b.example.com"}, {"= 100", "= 200"}, {`["anna"]`, `["ben"]`},
		{"smtp.example.net", "smtp.example.org"}, {"[[listener]]", "[delivery]\nexpire = \"3d\"\n[[listener]]"},
		{`username = "relay"`, `username = "other"`},
	} {
		if bytes.Equal(digest(change...), first) {
			t.Errorf("%q is the same digest", change)
		}
	}
}
