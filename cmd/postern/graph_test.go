package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testkit"
	"postern/relay/fakeprovider"
	"postern/relay/trial"
)

// graphOffice is a configuration with Microsoft Graph as its upstream, and the command that reads it.
type graphOffice struct {
	graph  *fakeprovider.Graph
	port   string
	config string
	// what a token is good for: by mailbox, for anybody else, and for drafts
	access  map[string]fakeprovider.Access
	others  fakeprovider.Access
	drafts  fakeprovider.Access
	command func(args ...string) (string, error)
}

// newGraphOffice makes one. upstream is added to [[upstream]], oauth to [upstream.oauth], rest to the file.
func newGraphOffice(t *testing.T, upstream, oauth, rest string) *graphOffice {
	t.Helper()
	o := &graphOffice{access: map[string]fakeprovider.Access{}, others: fakeprovider.AccessGranted,
		drafts: fakeprovider.AccessGranted}
	ca := testkit.NewCA(t)
	tls := ca.Leaf(testkit.LeafOptions{}).Server()
	login := fakeprovider.NewOAuth(fakeprovider.OAuthOptions{Microsoft: true})
	login.AddClient(fakeprovider.Client{ID: "postern", Secret: "a secret"})
	web, err := login.Listen(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { web.Close() })
	judge := func(token, mailbox string) fakeprovider.Access {
		if _, _, ok := login.Valid(token); !ok {
			return fakeprovider.AccessInvalid
		}
		if a, ok := o.access[mailbox]; ok {
			return a
		}
		return o.others
	}
	o.graph = fakeprovider.NewGraph(fakeprovider.GraphOptions{Token: judge,
		ReadWrite: func(string, string) fakeprovider.Access { return o.drafts }})
	running, err := o.graph.Listen(tls)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { running.Close() })
	base, err := url.Parse(running.URL)
	if err != nil {
		t.Fatal(err)
	}
	o.port = base.Port()
	o.config = filepath.Join(t.TempDir(), "relay.toml")
	text := fmt.Sprintf(`hostname = "relay.example.com"
data_dir = "data"
[[upstream]]
name = "office"
provider = "microsoft-graph"
host = "localhost"
port = %s
ca_file = %q
username = "office@contoso.example"
%s
[upstream.oauth]
flow = "client-credentials"
tenant = "contoso.example"
client_id = "postern"
client_secret = "a secret"
token_url = "%s/contoso.example/oauth2/v2.0/token"
%s
%s`, o.port, ca.File, upstream, web.URL, oauth, rest)
	if err := os.WriteFile(o.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o.command = onConfig(o.config)
	return o
}

// What a person asks of an upstream that is Microsoft Graph, before the daemon runs.
func TestGraphOnTheCommandLine(t *testing.T) {
	t.Parallel()
	o := newGraphOffice(t, "", "", "[[policy]]\nsenders = [\"scans@contoso.example\", \"office@contoso.example\"]\n")
	for _, c := range []struct {
		args, want string
	}{
		{"check", "is right"},
		{"upstream list", "microsoft-graph  localhost:" + o.port},
		{"upstream test office", "would take mail for office@contoso.example"},
		{"upstream test office", "Senders that were not tried: scans@contoso.example. Graph checks the sender only " +
			"with a message."},
	} {
		if out, err := o.command(strings.Fields(c.args)...); err != nil || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v\n%s", c.args, err, out)
		}
	}
	o.others = fakeprovider.AccessDenied
	out, err := o.command("upstream", "test", "office")
	for _, want := range []string{"give the application Mail.Send", `-Role "Application Mail.Send"`,
		"-Resource office@contoso.example", "It said: 454"} {
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if n := len(o.graph.Arrivals()); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
}

// With identity = "sender" the mailbox of each sender that policies name is tried, and one that fails keeps no other
// from it.
func TestUpstreamTestOfEachMailboxByGraph(t *testing.T) {
	t.Parallel()
	o := newGraphOffice(t, "", `identity = "sender"`, `[[policy]]
senders = ["scans@contoso.example", "boss@contoso.example", "*@contoso.example"]
`)
	o.access["scans@contoso.example"] = fakeprovider.AccessDenied
	out, err := o.command("upstream", "test", "office", "--sender", "new@contoso.example")
	for _, want := range []string{
		"mail of new@contoso.example, logged in as new@contoso.example", "would take mail for new@contoso.example",
		"would take mail for boss@contoso.example",
		"mail of scans@contoso.example, logged in as scans@contoso.example", "may not send as scans@contoso.example",
		"-Resource scans@contoso.example",
		"Senders that were not tried: *@contoso.example. They are patterns",
	} {
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%v: %q is not in\n%s", err, want, out)
		}
	}
	delete(o.access, "scans@contoso.example")
	out, err = o.command("upstream", "test", "office", "--json")
	var got trial.Report
	if json.Unmarshal([]byte(out), &got) != nil || err != nil || !got.OK {
		t.Fatalf("%v\n%s", err, out)
	}
	tried := map[string]int{}
	for _, s := range got.Steps {
		if s.Name == "permission" && s.OK && s.Took > 0 {
			tried[s.Sender]++
		}
	}
	if want := map[string]int{"": 1, "scans@contoso.example": 1, "boss@contoso.example": 1}; !maps.Equal(tried, want) {
		t.Errorf("%v", tried)
	}
	if n := len(o.graph.Arrivals()) + len(o.graph.Drafts()); n != 0 {
		t.Errorf("%d messages were made", n)
	}
}

// Where large mail is rebuilt, its own permission is tried.
func TestUpstreamTestOfLargeMailByGraph(t *testing.T) {
	t.Parallel()
	o := newGraphOffice(t, `large_mail = "upload"`, "", "")
	if out, err := o.command("upstream", "test", "office"); err != nil || !strings.Contains(out, "large-mail") ||
		!strings.Contains(out, "would make drafts for office@contoso.example") {
		t.Errorf("%v\n%s", err, out)
	}
	o.drafts = fakeprovider.AccessDenied
	out, err := o.command("upstream", "test", "office")
	for _, want := range []string{"FAIL  large-mail", "Mail.ReadWrite is missing",
		`-Role "Application Mail.ReadWrite"`} {
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%v: %q is not in\n%s", err, want, out)
		}
	}
}
