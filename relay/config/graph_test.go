package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/relay/upstream/graph"
)

// Where the size is not written, it is what the upstream takes with large_mail as it is.
func TestLargestMessageByGraph(t *testing.T) {
	t.Setenv("POSTERN_TEST_SECRET", "hunter2")
	b, err := os.ReadFile(filepath.Join("testdata", "good", "upstream-graph-upload.toml"))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]Size{
		string(b): graph.DefaultUploadSize,
		strings.Replace(string(b), `"upload"`, `"refuse"`, 1):                               graph.DefaultMessageSize,
		strings.Replace(string(b), `"upload"`, "\"upload\"\nmax_message_size = \"9MB\"", 1): 9_000_000,
		strings.Replace(string(b), `large_mail = "upload"`, "", 1):                          graph.DefaultMessageSize,
	} {
		path := filepath.Join(t.TempDir(), "relay.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Upstreams[0].MaxMessageSize; got != want {
			t.Errorf("%d octets, want %d, with\n%s", got, want, text)
		}
	}
}
