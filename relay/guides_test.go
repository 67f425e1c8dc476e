package relay

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"postern/relay/check"

	"postern/internal/testkit/pki"
)

const guides = "../docs/upstreams"

// tomlBlock is a file of relay.toml in a guide.
var tomlBlock = regexp.MustCompile("(?s)```toml\n(.*?)```")

// What the guides write is what postern check takes.
func TestGuidesAreRight(t *testing.T) {
	t.Setenv("PROVIDER_PASSWORD", "secret")
	files, err := filepath.Glob(filepath.Join(guides, "*.md"))
	if err != nil || len(files) < 6 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		blocks := tomlBlock.FindAllSubmatch(text, -1)
		if len(blocks) == 0 && filepath.Base(file) != "README.md" {
			t.Errorf("%s has no relay.toml", file)
		}
		for i, b := range blocks {
			checkGuide(t, file, i+1, string(b[1]))
		}
		if len(blocks) > 0 && !strings.Contains(string(text), "\npostern upstream test ") {
			t.Errorf("%s does not say how to prove it", file)
		}
	}
}

// What the guide for mail programs writes is what postern check takes.
func TestGuideForMailProgramsIsRight(t *testing.T) {
	const file = "../docs/clients/README.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	blocks := tomlBlock.FindAllSubmatch(text, -1)
	if len(blocks) == 0 {
		t.Errorf("%s has no relay.toml", file)
	}
	for i, b := range blocks { // on ports that this machine gives
		free := strings.NewReplacer(`":443"`, `"127.0.0.1:0"`, `":80"`, `"127.0.0.1:0"`)
		checkGuide(t, file, i+1, free.Replace(string(b[1])))
	}
}

// checkGuide runs postern check on a block. A guide may show a part of a file: what is not its subject is filled in.
func checkGuide(t *testing.T, file string, n int, block string) {
	t.Helper()
	dir := secretsOfGuides(t)
	if !strings.Contains(block, "hostname =") {
		block = "hostname = \"relay.example.com\"\n" + block
	}
	path := filepath.Join(dir, "relay.toml")
	if err := os.WriteFile(path, []byte(block), 0o600); err != nil {
		t.Fatal(err)
	}
	c, problems := check.Config(context.Background(), path)
	for _, p := range problems {
		t.Errorf("%s, block %d: %s", filepath.Base(file), n, p)
	}
	if c != nil && len(problems) == 0 && len(c.Upstreams) == 0 {
		t.Errorf("%s, block %d has no upstream", filepath.Base(file), n)
	}
}

// secretsOfGuides makes a directory with the files that the guides name.
func secretsOfGuides(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cert, key := guidePair()
	account := `{"type":"service_account",` +
		`"client_email":"postern@project.iam.gserviceaccount.com","client_id":"1","private_key_id":"k",` +
		`"token_uri":"https://oauth2.googleapis.com/token","private_key":` + jsonString(key) + `}`
	for name, content := range map[string]string{
		"m365.crt": cert, "m365.key": key, "graph.crt": cert, "graph.key": key, "m365-secret": "s",
		"google.json":         account,
		"google-app-password": "abcdefghijklmnop", "ses-password": "s", "provider-password": "s", "graph-secret": "s",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func jsonString(s string) string {
	b, _ := json.Marshal(s) // a string never fails
	return string(b)
}

// guidePair is a certificate and its key as PEM. Making keys costs time, so there is one.
var guidePair = sync.OnceValues(func() (cert, key string) {
	made, err := pki.SelfSigned(pki.Options{Names: []string{"postern"}, Key: pki.RSA})
	if err != nil {
		panic(err)
	}
	return string(made.CertPEM), string(made.KeyPEM)
})
