package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Every command that shows something shows it to machines too.
func TestListingsHaveJSON(t *testing.T) {
	shows := []string{"list", "show", "dns", "profiles", "trace", "test", "status"}
	seen := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if slices.Contains(shows, c.Name()) {
			seen++
			if c.Flags().Lookup("json") == nil {
				t.Errorf("%s has no --json", c.CommandPath())
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(rootCommand())
	if seen < 9 {
		t.Errorf("only %d commands show something", seen)
	}
}

func TestDKIMRecordsAsJSON(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "relay.toml")
	if err := os.WriteFile(config, []byte("hostname = \"relay.example.com\"\ndata_dir = \"data\"\n[[upstream]]\nname = \"provider\"\nhost = \"smtp.example.net\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	postern := func(args ...string) (string, error) {
		var out bytes.Buffer
		root := rootCommand()
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetArgs(append(args, "--config", config))
		err := root.Execute()
		return out.String(), err
	}
	for _, domain := range []string{"example.com", "example.org"} {
		if out, err := postern("dkim", "add", domain, "--selector", "s1", "--algorithm", "ed25519"); err != nil {
			t.Fatal(err, out)
		}
	}
	out, err := postern("dkim", "dns", "Example.COM", "--json")
	if err != nil {
		t.Fatal(err, out)
	}
	var records []struct {
		Name   string `json:"record_name"`
		Record string `json:"record"`
		Zone   string `json:"zone_line"`
	}
	if err := json.Unmarshal([]byte(out), &records); err != nil {
		t.Fatal(err)
	}
	if len(records) != 1 || records[0].Name != "s1._domainkey.example.com" || !strings.HasPrefix(records[0].Record, "v=DKIM1; k=ed25519; p=") ||
		!strings.Contains(records[0].Zone, "IN TXT") {
		t.Errorf("%+v", records)
	}
	if text, err := postern("dkim", "dns", "example.com"); err != nil || !strings.Contains(text, records[0].Record) || !strings.Contains(text, records[0].Zone) {
		t.Errorf("%v: %s", err, text)
	}
	if out, err := postern("dkim", "dns", "example.net", "--json"); err == nil || strings.Contains(out, "[") {
		t.Errorf("no key is no error: %s", out)
	}
	if _, err := postern("dkim", "dns", "no domain"); err == nil || fmt.Sprintf("%T", err) != "*main.usageError" {
		t.Errorf("a wrong domain: %v", err)
	}
}
