package relay

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testkit"
	"postern/relay/config"
)

const nodesGuide = "../docs/nodes.md"

// The relay.toml of the guide for several nodes is right as it stands, with nothing to be warned of. One that has the
// keys without the url is warned of.
func TestNodesGuideIsRight(t *testing.T) {
	text, err := os.ReadFile(nodesGuide)
	if err != nil {
		t.Fatal(err)
	}
	var all string
	for _, m := range tomlBlock.FindAllSubmatch(text, -1) {
		all += string(m[1]) + "\n"
	}
	ca, err := os.ReadFile(testkit.NewCA(t).File)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	load := func(text string) *config.Config {
		t.Helper()
		for name, content := range map[string]string{"db-ca.pem": string(ca), "postgres.pw": "password\n",
			"nodes.key":  "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n", // as openssl writes it
			"relay.toml": text + "[[upstream]]\nname = \"office\"\nhost = \"smtp.example.net\"\n"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c, err := config.Load(filepath.Join(dir, "relay.toml"))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := load(all)
	if w := c.Warnings(); len(w) > 0 {
		t.Error(w)
	}
	const place = "postgres://postern@db1.example.com,db2.example.com/postern"
	if c.Store.URL.Place() != place || c.Store.URL.SSLMode() != "verify-full" {
		t.Errorf("%s, %s", c.Store.URL, c.Store.URL.SSLMode())
	}
	if len(c.Listeners) != 2 || len(c.Listeners[0].ProxyProtocol) == 0 || !c.Admin.Console {
		t.Errorf("%+v, %+v", c.Listeners, c.Admin)
	}
	line := "url = \"" + c.Store.URL.String()
	line = line[:strings.Index(line, "?")]
	without := load(strings.Replace(all, all[strings.Index(all, line):strings.Index(all, "password =")], "", 1))
	if without.Store.URL.Server() || len(without.Warnings()) != 2 {
		t.Errorf("without url: %s, %v", without.Store.URL, without.Warnings())
	}
}
