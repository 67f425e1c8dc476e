package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/operate"
	"postern/relay/config"
	"postern/relay/dnscheck"
	"postern/relay/dnscheck/dnstest"
	relaystore "postern/relay/store"
)

// bureau is a configuration with one upstream that leaves DKIM to us, and a world that its DNS commands ask.
type bureau struct {
	t      *testing.T
	config string
	world  *dnstest.World
}

func newBureau(t *testing.T, provider string) *bureau {
	t.Helper()
	dir := t.TempDir()
	b := &bureau{t: t, config: filepath.Join(dir, "relay.toml")}
	text := fmt.Sprintf("hostname = \"relay.example.com\"\ndata_dir = %q\nadmin.address = \"\"\n[[policy]]\n"+
		"senders = [\"*@example.com\"]\n[[upstream]]\nname = \"office\"\n%s\n", filepath.Join(dir, "data"), provider)
	if err := os.WriteFile(b.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := config.Read(b.config)
	if err != nil {
		t.Fatal(err)
	}
	s, err := relaystore.Open(t.Context(), relaystore.Of(c)) // as the first start has made it
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// run executes a command against the world, if there is one.
func (b *bureau) run(args ...string) (string, error) {
	b.t.Helper()
	var out bytes.Buffer
	a := &app{etc: "/nowhere"}
	if b.world != nil && (args[0] == "dns" || args[0] == "doctor") {
		a.authorityPort = b.world.Port
		args = append(args, "--resolver", b.world.Resolver.String())
	}
	root := rootCommandOf(a)
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(append(args, "--config", b.config))
	err := root.ExecuteContext(b.t.Context())
	return out.String(), err
}

const generic = "host = \"smtp.example.net\""

// zoneLines are what `postern dkim add` says to publish.
func (b *bureau) zoneLines() string {
	b.t.Helper()
	out, err := b.run("dkim", "add", "example.com", "--algorithm", "rsa-2048", "--selector", "r1", "--now", "--json")
	var keys []operate.KeyView
	if err == nil {
		err = json.Unmarshal([]byte(out), &keys)
	}
	if err != nil {
		b.t.Fatalf("%v\n%s", err, out)
	}
	return strings.NewReplacer("( ", "", " )", "").Replace(keys[0].ZoneLine)
}

func zoneOf(lines ...string) string {
	return dnstest.Zone("example.com") + "example.com 300 MX 10 mx.example.com.\nmx.example.com 300 A 192.0.2.10\n" +
		strings.Join(lines, "\n")
}

func TestDNSOfHealthyDomain(t *testing.T) {
	t.Parallel()
	b := newBureau(t, generic)
	b.world = dnstest.Start(t, zoneOf(b.zoneLines(), `example.com 300 TXT "v=spf1 ip4:203.0.113.0/24 -all"`,
		`_dmarc.example.com 300 TXT "v=DMARC1; p=reject; rua=mailto:dmarc@example.com"`))
	out, err := b.run("dns", "Example.COM.")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"passes by DKIM", "r1._domainkey.example.com", "IN ORDER",
		"The SPF record of example.com is in order."} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "RECORDS TO PUBLISH") || strings.Contains(out, "What to do") {
		t.Errorf("there is nothing to do:\n%s", out)
	}
}

func TestDNSOfBrokenDomain(t *testing.T) {
	t.Parallel()
	b := newBureau(t, "provider = \"microsoft365\"\nusername = \"a@example.com\"\npassword = \"x\"")
	b.world = dnstest.Start(t, zoneOf(dnstest.Zone("outlook.com"),
		`spf.protection.outlook.com 300 TXT "v=spf1 ip4:198.51.100.0/24 -all"`,
		`example.com 300 TXT "v=spf1 ip4:192.0.2.1 -all"`))
	out, err := b.run("dns", "example.com")
	if !errors.Is(err, errSilent) {
		t.Errorf("exit: %v", err)
	}
	for _, want := range []string{"fails", "DANGER", "FAULT  example.com has no DMARC record.",
		"Value     v=spf1 ip4:192.0.2.1 include:spf.protection.outlook.com -all",
		"Replaces  v=spf1 ip4:192.0.2.1 -all",
		`Zone      _dmarc.example.com. IN TXT "v=DMARC1; p=none; rua=mailto:postmaster@example.com"`,
		"selector1, selector2"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	out, err = b.run("dns", "example.com", "--json")
	var r dnscheck.Report
	if jsonErr := json.Unmarshal([]byte(out), &struct {
		Outcomes *[]dnscheck.Outcome `json:"outcomes"`
		Records  *[]dnscheck.Record  `json:"records"`
	}{&r.Outcomes, &r.Records}); jsonErr != nil || !errors.Is(err, errSilent) {
		t.Fatalf("%v, %v\n%s", jsonErr, err, out)
	}
	if !r.Fails() || len(r.Records) != 2 {
		t.Errorf("%+v", r)
	}
}

func TestDNSOfForeignDomain(t *testing.T) {
	t.Parallel()
	b := newBureau(t, generic)
	b.world = dnstest.Start(t, dnstest.Zone("example.net"))
	out, _ := b.run("dns", "example.net")
	if !strings.Contains(out, "nobody may send as example.net") {
		t.Errorf("%s", out)
	}
}

func TestDNSListsDomains(t *testing.T) {
	t.Parallel()
	b := newBureau(t, generic)
	if out, err := b.run("dns"); err != nil || out != "example.com\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestDNSWrongUsage(t *testing.T) {
	t.Parallel()
	b := newBureau(t, generic)
	for _, args := range [][]string{{"dns", "a.example", "b.example"}, {"dns", "not a domain"}, {"dns", "[192.0.2.1]"},
		{"dns", "example.com", "--resolver", "dns.example.com"}, {"dns", "example.com", "--address", "here"}} {
		out, err := b.run(args...)
		if _, wrong := errors.AsType[*usageError](err); !wrong {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}

// The doctor takes the server's public address as postern dns does, and says the same of it.
func TestDoctorLooksAtTheAddressThatItIsTold(t *testing.T) {
	t.Parallel()
	b := newBureau(t, "provider = \"microsoft365-direct\"\nhost = \"example-com.mail.protection.outlook.com\"")
	b.world = dnstest.Start(t, zoneOf(`example.com 300 TXT "v=spf1 -all"`))
	for _, args := range [][]string{{"dns", "example.com"}, {"doctor", "--only", "dns"}} {
		out, err := b.run(append(args, "--address", "203.0.113.77")...)
		if !errors.Is(err, errSilent) || !strings.Contains(out, "203.0.113.77") {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
		if _, err := b.run(append(args, "--address", "here")...); !isUsage(err) {
			t.Errorf("%q: %v", args, err)
		}
	}
}
