package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/operate"
	"postern/relay/dnscheck"
	"postern/relay/dnscheck/dnstest"
	"postern/relay/keyring"
	relaystore "postern/relay/store"
)

// registrar is an admin who makes keys and edits DNS by hand.
type registrar struct {
	t     *testing.T
	dir   string
	world *dnstest.World
}

func newRegistrar(t *testing.T) *registrar {
	r := &registrar{t: t, dir: t.TempDir(), world: dnstest.Start(t, dnstest.Zone("example.com"))}
	text := "hostname = \"relay.example.com\"\ndata_dir = \"data\"\nadmin.address = \"\"\n[[upstream]]\n" +
		"name = \"office\"\nhost = \"smtp.example.net\"\n"
	if err := errors.Join(os.WriteFile(filepath.Join(r.dir, "relay.toml"), []byte(text), 0o600),
		os.Mkdir(filepath.Join(r.dir, "data"), 0o700)); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *registrar) run(args ...string) (string, error) {
	r.t.Helper()
	resolver := &dnscheck.Resolver{Servers: []netip.AddrPort{r.world.Resolver}, AuthorityPort: r.world.Port}
	root := rootCommandOf(&app{etc: "/nowhere", dns: dnscheck.KeyLookup{Resolver: resolver}})
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(append(args, "--config", filepath.Join(r.dir, "relay.toml")))
	err := root.ExecuteContext(r.t.Context())
	return out.String(), err
}

// must runs a command whose exit code is known; want is in what it prints.
func (r *registrar) must(exit error, want string, args ...string) string {
	r.t.Helper()
	out, err := r.run(args...)
	if !errors.Is(err, exit) || !strings.Contains(out, want) {
		r.t.Fatalf("postern %s: %v\n%s\nwant %v and %q", strings.Join(args, " "), err, out, exit, want)
	}
	return out
}

// publish puts lines of a zone file into DNS.
func (r *registrar) publish(lines ...string) {
	r.t.Helper()
	text := strings.NewReplacer("( ", "", " )", "").Replace(strings.Join(lines, "\n"))
	if err := r.world.Set(dnstest.Zone("example.com") + text); err != nil {
		r.t.Fatal(err)
	}
}

func (r *registrar) zoneLines(args ...string) (lines []string) {
	r.t.Helper()
	var keys []operate.KeyView
	if err := json.Unmarshal([]byte(r.must(nil, "", append(args, "--json")...)), &keys); err != nil {
		r.t.Fatal(err)
	}
	for _, k := range keys {
		lines = append(lines, k.ZoneLine)
	}
	return lines
}

// The life of keys by the command line, with a real resolver and name servers.
func TestDKIMLife(t *testing.T) {
	t.Parallel()
	r := newRegistrar(t)
	old := r.zoneLines("dkim", "add", "example.com", "--selector", "s")
	r.must(errSilent, "missing", "dkim", "check")
	r.must(nil, "publish its record", "dkim", "list")
	r.publish(old...)
	out := r.must(nil, "published", "dkim", "check", "Example.com")
	if strings.Count(out, "signing") != 2 {
		t.Errorf("both sign:\n%s", out)
	}
	r.must(nil, "do not sign before", "dkim", "rotate", "example.com", "--algorithm", "ed25519")
	young := r.zoneLines("dkim", "dns", "example.com")
	if len(young) != 3 {
		t.Fatalf("%q", young)
	}
	r.publish(young...)
	r.must(nil, "wait: it signs after", "dkim", "check")
	r.age()
	out = r.must(nil, "retiring", "dkim", "check")
	if strings.Count(out, "signing") != 2 {
		t.Errorf("the new one signs beside the RSA key:\n%s", out)
	}
	r.publish(young[0])
	r.must(errSilent, "publish its record, or", "dkim", "check")
	out, err := r.run("dkim", "remove", "example.com", "s-e")
	if err == nil || !strings.Contains(err.Error(), "must stay in DNS until") {
		t.Errorf("%v\n%s", err, out)
	}
	r.must(nil, "Removed s-e", "dkim", "remove", "example.com", "s-e", "--force")
	if out, err := r.run("dkim", "retire", "example.com", "s-r"); err == nil {
		t.Errorf("the only RSA key retires:\n%s", out)
	}
	r.must(nil, "signs no more", "dkim", "retire", "example.com", "s-r", "--force")
	for _, args := range [][]string{{"dkim", "check", "no domain"}, {"dkim", "rotate", "no domain"},
		{"dkim", "retire", "no domain", "s"}, {"dkim", "remove", "example.com"}} {
		if _, err := r.run(args...); !isUsage(err) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// Another resolver may be asked, as by the other commands that look at DNS.
func TestDKIMCheckAsksAnotherResolver(t *testing.T) {
	t.Parallel()
	r := newRegistrar(t)
	r.publish(r.zoneLines("dkim", "add", "example.com")...)
	r.must(nil, "published", "dkim", "check")
	empty := dnstest.Start(t, dnstest.Zone("example.com"))
	r.must(errSilent, "missing", "dkim", "check", "--resolver", empty.Resolver.String())
	if _, err := r.run("dkim", "check", "--resolver", "dns.example.com"); !isUsage(err) {
		t.Error(err)
	}
	for _, words := range [][]string{{"dns"}, {"dkim", "check"}, {"doctor"}, {"setup"}} {
		cmd, _, err := rootCommand().Find(words)
		if err != nil || cmd.Flags().Lookup("resolver") == nil {
			t.Errorf("%q has no --resolver", words)
		}
	}
}

// age makes what was seen an hour older.
func (r *registrar) age() {
	r.t.Helper()
	s, err := relaystore.Open(r.t.Context(), relaystore.Options{Dir: filepath.Join(r.dir, "data")})
	if err != nil {
		r.t.Fatal(err)
	}
	defer s.Close()
	if err := s.ChangeKeys(r.t.Context(), func(keys []relaystore.Key) error {
		for i := range keys {
			keys[i].FoundSince = keys[i].FoundSince.Add(-keyring.Stable)
		}
		return nil
	}); err != nil {
		r.t.Fatal(err)
	}
}
