package domains

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/relay/config"
	"postern/relay/dnscheck"
	"postern/relay/dnscheck/dnstest"
	"postern/relay/finding"
	"postern/relay/keyring"
	"postern/relay/sign"
	relaystore "postern/relay/store"
)

// shelf is a store with accounts and keys.
type shelf struct {
	users []auth.User
	keys  []relaystore.Key
	err   error
}

func (s shelf) Users(context.Context) ([]auth.User, error)     { return s.users, s.err }
func (s shelf) Keys(context.Context) ([]relaystore.Key, error) { return s.keys, nil }

func configuration(t *testing.T, text string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "relay.toml")
	text = "hostname = \"relay.example.com\"\ndata_dir = \"data\"\n" + text
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func key(t *testing.T, domain, selector string) relaystore.Key {
	t.Helper()
	_, pem, err := sign.Generate(sign.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	return relaystore.Key{Domain: domain, Selector: selector, Algorithm: sign.Ed25519, PEM: string(pem),
		State: keyring.State{Stage: keyring.Signing}}
}

const upstreams = `
[[upstream]]
name = "office"
provider = "microsoft365"
username = "a@example.com"
password = "x"
[[upstream]]
name = "smart"
host = "smtp.example.net"
`

func plan(t *testing.T, text string, s shelf) *Plan {
	t.Helper()
	w := dnstest.Start(t, "relay.example.com 300 A 203.0.113.7\nrelay.example.com 300 A 10.0.0.7")
	p, err := New(t.Context(), Options{Config: configuration(t, text), Store: s,
		Resolver: &dnscheck.Resolver{Servers: []netip.AddrPort{w.Resolver}, AuthorityPort: w.Port}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDomainsOfAllSenders(t *testing.T) {
	p := plan(t, upstreams+`
[delivery]
bounce_from = "reports@bounce.example.com"
[[policy]]
senders = ["*@example.com", "scans@devices.example.com", "*@*.branch.example.com", "{login}", "@staff",
	"{login}@login.example.com", "*@[192.0.2.1]", "*@büro.example.com", "*@localhost"]
`, shelf{users: []auth.User{{Login: "anna@login2.example.com"}, {Login: "printer",
		Senders: []string{"p@own.example.com"}},
		{Login: "ben@not.example.com", Senders: []string{"ben@example.com"}}},
		keys: []relaystore.Key{key(t, "signed.example.com", "s1")}})
	want := []string{"bounce.example.com", "branch.example.com", "devices.example.com", "example.com",
		"login.example.com", "login2.example.com", "own.example.com", "signed.example.com",
		"xn--bro-hoa.example.com"}
	if got := p.Domains(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if !p.Has("example.com") || p.Has("not.example.com") {
		t.Error("Has")
	}
}

func senderNames(o dnscheck.Options) string {
	var names []string
	for _, s := range o.Senders {
		names = append(names, s.Name)
	}
	return strings.Join(names, " ")
}

func TestUpstreamsOfADomain(t *testing.T) {
	for name, c := range map[string]struct{ routes, want string }{
		"no route": {"", "office smart"},
		"one for the domain": {"[[route]]\nsenders = [\"*@example.com\"]\nupstreams = [\"smart\"]\n[[route]]\n" +
			"upstreams = [\"office\"]", "smart"},
		"another domain first": {"[[route]]\nsenders = [\"*@example.net\"]\nupstreams = [\"smart\"]\n[[route]]\n" +
			"upstreams = [\"office\"]", "office"},
		"one address": {"[[route]]\nsenders = [\"a@example.com\"]\nupstreams = [\"smart\"]\n[[route]]\n" +
			"upstreams = [\"office\"]", "office smart"},
		"a login": {"[[route]]\nlogins = [\"a\"]\nupstreams = [\"smart\"]\n[[route]]\nupstreams = [\"office\"]",
			"office smart"},
		"the rest goes anywhere": {"[[route]]\nsenders = [\"a@example.com\"]\nupstreams = [\"smart\"]", "office smart"},
	} {
		p := plan(t, upstreams+c.routes, shelf{})
		if got := senderNames(p.options("example.com", time.Now())); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestSenderOfEachProvider(t *testing.T) {
	p := plan(t, upstreams+`
[[upstream]]
name = "direct"
provider = "microsoft365-direct"
host = "example-com.mail.protection.outlook.com"
[[upstream]]
name = "connector"
provider = "microsoft365-connector"
host = "example-com.mail.protection.outlook.com"
[[upstream]]
name = "mailbox"
provider = "gmail"
username = "a@gmail.com"
password = "x"
`, shelf{})
	ours := []netip.Addr{netip.MustParseAddr("203.0.113.7")}
	senders := p.options("example.com", time.Now()).Senders
	office, smart, direct, connector := senders[0], senders[1], senders[2], senders[3]
	if office.Provider != "Microsoft 365" || office.Include != "spf.protection.outlook.com" || office.Ours ||
		office.Signs != dnscheck.SignsDomain || len(office.Selectors) != 2 || office.Direct {
		t.Errorf("office: %+v", office)
	}
	if smart.Provider != "smtp.example.net" || !smart.Ours || smart.Include != "" ||
		smart.ReturnPath != dnscheck.PathKept {
		t.Errorf("smart host: %+v", smart)
	}
	if !direct.Direct || !slices.Equal(direct.Own, ours) || !slices.Equal(direct.Addresses, ours) || !direct.Ours {
		t.Errorf("direct: %+v", direct)
	}
	if !connector.Direct || !slices.Equal(connector.Own, ours) || connector.Addresses != nil ||
		connector.Include == "" {
		t.Errorf("connector: %+v", connector)
	}
	gmail := p.options("gmail.com", time.Now()).Senders[4]
	if !slices.Equal(gmail.OwnDomains, []string{"gmail.com"}) || senders[4].OwnDomains != nil {
		t.Errorf("mailbox: %+v", gmail)
	}
}

func TestKeysOfADomain(t *testing.T) {
	waiting, retired := key(t, "example.com", "wait"), key(t, "example.com", "gone")
	waiting.Stage, retired.Stage = keyring.New, keyring.Retiring
	p := plan(t, upstreams, shelf{keys: []relaystore.Key{key(t, "example.com", "new"), key(t, "example.com", "old"),
		key(t, "other.example", "x"), key(t, "sales.example.com", "s"), waiting, retired}})
	signs, waits := map[string]bool{}, map[string]bool{}
	for _, k := range p.options("example.com", time.Now()).Keys {
		signs[k.Selector], waits[k.Selector] = k.Signs, k.Waits
	}
	if len(signs) != 3 || !signs["new"] || signs["old"] || signs["wait"] || waits["new"] || !waits["wait"] {
		t.Errorf("%v, %v", signs, waits)
	}
	if keys := p.options("shop.sales.example.com", time.Now()).Keys; len(keys) != 4 || !keys[2].Signs || keys[0].Signs {
		t.Errorf("%v", keys)
	}
}

func TestCheckAll(t *testing.T) {
	p := plan(t, upstreams+"[[policy]]\nsenders = [\"*@example.com\", \"*@example.net\"]", shelf{})
	reports := p.CheckAll(t.Context(), time.Now())
	if len(reports) != 2 || reports[0].Domain != "example.com" || !reports[1].Fails() {
		t.Errorf("%+v", reports)
	}
}

func TestUnreadableAccountsAreAnError(t *testing.T) {
	broken := errors.New("broken")
	_, err := New(t.Context(), Options{Config: configuration(t, upstreams), Store: shelf{err: broken},
		Resolver: &dnscheck.Resolver{}})
	if !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

// A key of relay.toml whose record is gone puts mail in danger like any other, and the record to publish is shown.
func TestKeysOfTheConfigurationAreLookedFor(t *testing.T) {
	_, pem, err := sign.Generate(sign.Ed25519)
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := errors.Join(err, os.WriteFile(file, pem, 0o600)); err != nil {
		t.Fatal(err)
	}
	block := "[[dkim]]\ndomain = \"example.com\"\nselector = \"file\"\nkey_file = \"" + file + "\"\n"
	p := plan(t, upstreams+block, shelf{})
	r := p.Check(t.Context(), "example.com", time.Now())
	missing := slices.ContainsFunc(r.Findings, func(f finding.Finding) bool {
		return f.Code == "dkim-missing" && f.Weight == finding.Danger
	})
	shown := slices.ContainsFunc(r.Records, func(r dnscheck.Record) bool {
		return r.Name == "file._domainkey.example.com" && strings.HasPrefix(r.Value, "v=DKIM1; k=ed25519")
	})
	if !slices.Contains(p.Domains(), "example.com") || !missing || !shown {
		t.Errorf("%q\n%+v\n%+v", p.Domains(), r.Findings, r.Records)
	}
}

// The records by which mail programs find their settings are asked for where [autoconfig] has the domain.
func TestRecordsForClients(t *testing.T) {
	p := plan(t, upstreams+`
[autoconfig]
domains = ["example.com"]
address = ":443"
[autoconfig.incoming]
host = "imap.example.com"
`, shelf{})
	names := map[string]string{}
	for _, r := range p.options("example.com", time.Now()).ForClients {
		names[r.Name+" "+r.Type] = r.Value
		if !strings.HasPrefix(r.Note, "read by ") {
			t.Errorf("%s is %q", r.Name, r.Note)
		}
	}
	for name, value := range map[string]string{"_submissions._tcp.example.com SRV": "0 1 465 relay.example.com",
		"autoconfig.example.com CNAME": "relay.example.com"} {
		if names[name] != value {
			t.Errorf("%s is %q, want %q", name, names[name], value)
		}
	}
	if got := p.options("example.net", time.Now()).ForClients; len(got) > 0 {
		t.Errorf("records of another domain: %v", got)
	}
}
