package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"postern/relay/upstream/profile"
)

var updateProfiles = flag.Bool("update-profiles", false,
	"write the list of profiles that is printed now as what is expected")

func runProfiles(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := rootCommand()
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(append([]string{"upstream", "profiles"}, args...))
	err := root.Execute()
	return out.String(), err
}

func TestProfilesAreListed(t *testing.T) {
	t.Parallel()
	out, err := runProfiles(t)
	if err != nil {
		t.Fatal(err)
	}
	const file = "testdata/profiles.txt"
	if *updateProfiles {
		if err := os.WriteFile(file, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if out != string(want) {
		t.Errorf("prints\n%s\ninstead of\n%s", out, want)
	}
}

func TestProfileIsShown(t *testing.T) {
	t.Parallel()
	out, err := runProfiles(t, "ses")
	if err != nil || !strings.Contains(out, "Daily message quota exceeded") ||
		!strings.Contains(out, "docs.aws.amazon.com") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := runProfiles(t, "nobody"); err == nil || !strings.Contains(err.Error(), "there are generic, ") {
		t.Errorf("%v", err)
	}
	if _, err := runProfiles(t, "ses", "gmail"); err == nil {
		t.Error("two names are taken")
	}
}

func TestProfilesAsJSON(t *testing.T) {
	t.Parallel()
	out, err := runProfiles(t, "--json")
	if err != nil {
		t.Fatal(err)
	}
	var all []map[string]any
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != len(profile.Names()) {
		t.Errorf("%d profiles, %v", len(all), err)
	}
	out, err = runProfiles(t, "microsoft365", "--json")
	if err != nil {
		t.Fatal(err)
	}
	var one struct {
		Host      string
		Ports     []struct{ Port int }
		IdleClose string `json:"idle_close"`
		Rules     []struct{ Name, Example string }
	}
	if err := json.Unmarshal([]byte(out), &one); err != nil || one.Host != "smtp.office365.com" ||
		one.Ports[0].Port != 587 || one.IdleClose != "30s" || one.Rules[0].Example == "" {
		t.Errorf("%v: %+v", err, one)
	}
}
