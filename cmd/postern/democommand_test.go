package main

import (
	"bytes"
	"strings"
	"testing"

	"postern/internal/testkit"
)

func TestCommandOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ executable, typed, want string }{
		{"/tmp/go-build123/b001/exe/postern", "/tmp/go-build123/b001/exe/postern", "go run ./cmd/postern"},
		{"/root/.cache/go-build/ab/cd-d/postern", "/root/.cache/go-build/ab/cd-d/postern", "go run ./cmd/postern"},
		{"/usr/local/bin/postern", "postern", "postern"},
		{"/home/a b/postern", "/home/a b/postern", "'/home/a b/postern'"},
		{"/srv/postern", "./postern", "./postern"},
	} {
		if got := commandOf(c.executable, c.typed); got != c.want {
			t.Errorf("%s: %q, want %q", c.executable, got, c.want)
		}
	}
}

// What the demo prints names both ports and only commands that there are when it was started by go run.
func TestDemoSettings(t *testing.T) {
	var out bytes.Buffer
	d := &demo{out: &out, home: "/tmp/postern-demo-1", address: "127.0.0.1:2587", implicit: "127.0.0.1:2465",
		password: "pass-word"}
	d.printSettings()
	for _, want := range []string{
		"STARTTLS, port 2587, or SSL/TLS, port 2465", "swaks --server localhost:2587 --tls",
		`Subject: hello\r\n\r\nhello\r\n`,
		"--cacert /tmp/postern-demo-1/data/tls/self-signed.crt", " trace --config /tmp/postern-demo-1/relay.toml",
		" status --config /tmp/postern-demo-1/relay.toml",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it lacks %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(demoConfig, `"auto"`) {
		t.Error(`tls = "auto" makes STARTTLS wait for half a second`)
	}
}

// dkim add says when its key will sign nothing.
func TestDKIMAddWhereNothingIsSigned(t *testing.T) {
	t.Parallel()
	for provider, want := range map[string]bool{"microsoft365": true, "generic": false} {
		config := t.TempDir() + "/relay.toml"
		writeTo(t, config, "data_dir = \"data\"\n[[upstream]]\nname = \"office\"\nprovider = \""+provider+"\"\nhost "+
			"= \"smtp.example.net\"\nusername = \"relay@example.com\"\npassword = \"x y z\"\n")
		out := testkit.Run(t, "", "--config", config, "dkim", "add", "example.com", "--algorithm", "ed25519")
		if !out.OK || strings.Contains(out.Text, "Nothing is signed with it") != want || want &&
			!strings.Contains(out.Text, `office (provider "microsoft365"): dkim = "skip"`) {
			t.Errorf("%s: %s", provider, out.Text)
		}
	}
}
