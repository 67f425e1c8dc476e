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
		strings.Replace(string(b), `"upload"`, "\"refuse\"\nmax_message_size = \"0\"", 1):   graph.DefaultMessageSize,
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

// Mail goes from other addresses than the mailbox's own, unless the file says for everybody that it does not.
func TestSendsForOthers(t *testing.T) {
	u := &Upstream{Username: "Office@example.com"}
	everybody := func(senders ...string) Policy { return Policy{Senders: senders} }
	some := func(senders ...string) Policy { return Policy{Logins: []string{"scanner"}, Senders: senders} }
	for name, c := range map[string]struct {
		policies []Policy
		want     bool
	}{
		"no policy":                    {nil, true},
		"a policy without senders":     {[]Policy{{}}, true},
		"everybody as the mailbox":     {[]Policy{everybody("office@example.com")}, false},
		"everybody as himself":         {[]Policy{everybody("{login}")}, true},
		"everybody as one of two":      {[]Policy{everybody("office@example.com", "info@example.com")}, true},
		"some as the mailbox":          {[]Policy{some("office@example.com")}, true},
		"some as others":               {[]Policy{some("scan@example.com"), everybody("office@example.com")}, true},
		"some, then everybody, as one": {[]Policy{some("office@example.com"), everybody("OFFICE@example.com")}, false},
		"nobody may send":              {[]Policy{everybody()}, true},
	} {
		if got := (&Config{Policies: c.policies}).SendsForOthers(u); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
