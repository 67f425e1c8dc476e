package setup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/relay/config"
	"postern/relay/upstream/profile"
)

func base() *Answers { return &Answers{DataDir: "data"} }

// What is written for any provider loads, has no wrong key, and is short.
func TestTextLoads(t *testing.T) {
	for _, name := range profile.Names() {
		for how, secret := range map[string]map[string]string{
			"password": {"password": "file:upstream-password"},
			"oauth":    {"tenant": "contoso.onmicrosoft.com", "client-id": "11111111-2222-3333-4444-555555555555"},
		} {
			given := map[string]string{"provider": name, "host": "smtp.example.net:465",
				"username": "relay@example.com",
				"domain":   "example.com", "hostname": "smtp.example.com", "client-secret": "env:SETUP_SECRET"}
			for k, v := range secret {
				given[k] = v
			}
			a := base()
			if p, _ := profile.Get(name); p.Host != "" || name == "microsoft-graph" {
				delete(given, "host")
			}
			a.Provider, a.Username = name, "relay@example.com"
			if how == "oauth" && !a.oauth() || how == "password" && a.tokensOnly() {
				continue
			}
			if p, _ := profile.Get(name); len(p.Mechanisms) == 0 && name != "microsoft-graph" {
				delete(given, "username")
				delete(given, "password")
			}
			if err := Ask(a, given, nil); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			dir := t.TempDir()
			t.Setenv("SETUP_SECRET", "a secret")
			for _, f := range []string{PasswordFile} {
				if err := os.WriteFile(filepath.Join(dir, f), []byte("a secret"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			text := a.Text(time.Now())
			path := filepath.Join(dir, "relay.toml")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := config.Load(path); err != nil {
				t.Errorf("%s by %s: %v\n%s", name, how, err, text)
			}
			if n := strings.Count(text, "\n"); n >= 25 {
				t.Errorf("%s: %d lines", name, n)
			}
		}
	}
}

// Whatever ports are asked for, the listeners have names of their own, and the file loads and stays short. A domain
// with umlauts is written as DNS has it.
func TestAnyPortsLoad(t *testing.T) {
	t.Setenv("SETUP_SECRET", "a secret")
	for _, domain := range []string{"Müller-Bau.de", "example.com"} {
		anyPortsLoad(t, domain)
	}
}

func anyPortsLoad(t *testing.T, domain string) {
	for _, ports := range []string{"587", "2587", "2587,2465", "2587,25,465", "587 465 2525", "465"} {
		a := base()
		given := map[string]string{"provider": "sendgrid", "password": "env:SETUP_SECRET", "domain": domain,
			"port": ports}
		if err := Ask(a, given, nil); err != nil {
			t.Errorf("%s: %v", ports, err)
			continue
		}
		path := filepath.Join(t.TempDir(), "relay.toml")
		text := a.Text(time.Now())
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := config.Load(path); err != nil || strings.Count(text, "\n") >= 25 {
			t.Errorf("%s: %v\n%s", ports, err, text)
		}
	}
}

func TestAskedUntilItCanBe(t *testing.T) {
	answers := map[string][]string{
		"provider": {"microsft365", ""}, "username": {"", "relay", "relay@example.com"}, "password": {""},
		"tenant": {"", "contoso.onmicrosoft.com"}, "client-id": {"x y", "xy"}, "client-secret": {"", "s"},
		"domain": {"localhost", ""}, "hostname": {""}, "port": {"65536", ""}, "login": {""}, "sender": {"nobody", ""},
		"network": {"192.168.1.0/33", "192.168.1.0/24, 10.0.0.7"},
	}
	a, asked := base(), 0
	err := Ask(a, nil, func(q *Question, standard string, wrong error) (string, error) {
		left := answers[q.Flag]
		if len(left) == 0 {
			t.Fatalf("asked again for %s: %v", q.Flag, wrong)
		}
		if (wrong != nil) != (asked > 0) {
			t.Errorf("%s: %v at answer %d", q.Flag, wrong, asked)
		}
		asked++
		if answers[q.Flag] = left[1:]; len(left) == 1 {
			asked = 0
		}
		return left[0], nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if a.Provider != "microsoft365" || a.Domain != "example.com" || a.Hostname != "smtp.example.com" ||
		a.Login != "scanner" || a.Sender != "relay@example.com" || len(a.Networks) != 2 ||
		!slices.Equal(a.Ports, []int{587, 465}) || !a.Device() {
		t.Errorf("%+v", a)
	}
	if s := a.Secrets(); len(s) != 1 || s[SecretFile] != "s" {
		t.Errorf("%v", s)
	}
	for flag, left := range answers {
		if len(left) > 0 {
			t.Errorf("not asked: %s", flag)
		}
	}
}

// Without somebody to ask, everything that is missing is told at once, by its flag.
func TestNobodyToAsk(t *testing.T) {
	err := Ask(base(), map[string]string{"provider": "sendgrid", "password": "literal", "network": "x",
		"port": "587,x"}, nil)
	for _, want := range []string{"--password: a secret on the command line", "--domain: ", "--network: ", "--port: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	stop := errors.New("the terminal is gone")
	if err := Ask(base(), nil, func(*Question, string, error) (string, error) { return "", stop }); !errors.Is(err,
		stop) {
		t.Error(err)
	}
}

func FuzzText(f *testing.F) {
	f.Add("relay@example.com", "example.com", `C:\data "x"`)
	f.Fuzz(func(t *testing.T, username, domain, dir string) {
		a := base()
		a.DataDir = dir
		given := map[string]string{"provider": "sendgrid", "username": username, "domain": domain,
			"password": "env:FUZZ", "login": "anna@example.com"}
		if Ask(a, given, nil) != nil || strings.TrimSpace(dir) == "" {
			return
		}
		path := filepath.Join(t.TempDir(), "relay.toml")
		if err := os.WriteFile(path, []byte(a.Text(time.Now())), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("FUZZ", "secret")
		c, err := config.Load(path)
		if err != nil {
			t.Fatalf("%v\n%s", err, a.Text(time.Now()))
		}
		if c.Upstreams[0].Username != a.Username {
			t.Errorf("%q became %q", a.Username, c.Upstreams[0].Username)
		}
	})
}
