package main

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testkit"
	"postern/relay/fakeprovider"
)

// What a person asks of an upstream that is Microsoft Graph, before the daemon runs.
func TestGraphOnTheCommandLine(t *testing.T) {
	ca := testkit.NewCA(t)
	tls := ca.Leaf(testkit.LeafOptions{}).Server()
	login := fakeprovider.NewOAuth(fakeprovider.OAuthOptions{Microsoft: true})
	login.AddClient(fakeprovider.Client{ID: "postern", Secret: "a secret"})
	web, err := login.Listen(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { web.Close() })
	access := fakeprovider.AccessGranted
	graph := fakeprovider.NewGraph(fakeprovider.GraphOptions{Token: func(token, _ string) fakeprovider.Access {
		if _, _, ok := login.Valid(token); !ok {
			return fakeprovider.AccessInvalid
		}
		return access
	}})
	running, err := graph.Listen(tls)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { running.Close() })
	base, err := url.Parse(running.URL)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "relay.toml")
	text := fmt.Sprintf(`hostname = "relay.example.com"
data_dir = "data"
[[upstream]]
name = "office"
provider = "microsoft-graph"
host = "localhost"
port = %s
ca_file = %q
username = "office@contoso.example"
[upstream.oauth]
flow = "client-credentials"
tenant = "contoso.example"
client_id = "postern"
client_secret = "a secret"
token_url = "%s/contoso.example/oauth2/v2.0/token"
`, base.Port(), ca.File, web.URL)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		root := rootCommand()
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetArgs(append(args, "--config", config))
		err := root.Execute()
		return out.String(), err
	}
	for _, c := range []struct {
		args, want string
	}{
		{"check", "is right"},
		{"upstream list", "microsoft-graph  localhost:" + base.Port()},
		{"upstream test office", "would take mail for office@contoso.example"},
	} {
		if out, err := run(strings.Fields(c.args)...); err != nil || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v\n%s", c.args, err, out)
		}
	}
	access = fakeprovider.AccessDenied
	if out, err := run("upstream", "test", "office"); err == nil || !strings.Contains(out, "give the application Mail.Send") {
		t.Errorf("%v\n%s", err, out)
	}
	if n := len(graph.Arrivals()); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
}
