package check

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/relay/config"
	"postern/relay/keyring"
	relaystore "postern/relay/store"
)

// written is a configuration in a directory of its own.
func written(t *testing.T, text string) (c *config.Config, path string) {
	t.Helper()
	dir := t.TempDir()
	path = filepath.Join(dir, "relay.toml")
	text = fmt.Sprintf("hostname = \"relay.example.com\"\ndata_dir = %q\n", filepath.Join(dir, "data")) + text
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return c, path
}

const oneUpstream = "[[upstream]]\nname = \"office\"\nhost = \"smtp.example.net\"\n"

// Addresses that cannot be bound are named before the start, but for those that the daemon itself holds.
func TestCheckOfAddresses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c, path := written(t, fmt.Sprintf("[admin]\naddress = \"\"\n[[listener]]\nname = \"a\"\naddress = "+
		"%q\n[[listener]]\nname = \"b\"\naddress = \"192.0.2.77:2525\"\n%s",
		taken.Addr().String(), oneUpstream))
	_, problems := Config(t.Context(), path)
	said := linesOf(problems)
	for _, want := range []string{"listener[1].address: " + taken.Addr().String() + " is in use by another program",
		"ss -ltnp",
		"listener[2].address: 192.0.2.77:2525 is no address of this machine, which has 127.0.0.1"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in\n%s", want, said)
		}
	}
	s, err := relaystore.Open(t.Context(), relaystore.Options{Dir: c.DataDir, Daemon: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, problems = Config(t.Context(), path); strings.Contains(linesOf(problems), "in use") {
		t.Errorf("the daemon's own address: %s", linesOf(problems))
	}
}

// Groups that nobody is in, logins that may send as nothing, keys that sign nothing or are weak.
func TestWarningsOfWhatIsStored(t *testing.T) {
	c, _ := written(t, `[admin]
address = ""
[[policy]]
groups = ["staf"]
senders = ["*@example.com"]
[[policy]]
logins = ["shared-*"]
senders = ["@devices", "@staff"]
[[route]]
groups = ["STAFF"]
upstreams = ["office"]
`+oneUpstream+"dkim = \"skip\"\n")
	s, err := relaystore.Open(t.Context(), relaystore.Options{Dir: c.DataDir, Daemon: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, u := range []auth.User{
		{Login: "anna@example.com", Groups: []string{"staff"}}, {Login: "scanner-2"}, {Login: "scanner-3",
			Senders: []string{"scans@example.com"}}, {Login: "shared-1"},
	} {
		u.Hash, u.Created = "x", time.Now()
		if err := s.AddUser(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.AddKeys(t.Context(), relaystore.Key{Domain: "example.com", Selector: "r1", Algorithm: "rsa",
		PEM: "no key", State: keyring.State{Stage: keyring.Signing}}); err != nil {
		t.Fatal(err)
	}
	said := linesOf(Warnings(c, time.Now()))
	for _, want := range []string{
		`policy[1].groups: nobody is in the group "staf" (there are staff)`,
		`policy[2].senders: nobody is in the group "devices"`,
		"may send as nothing, so that all their mail is refused: scanner-2;", "r1._domainkey.example.com signs nothing",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in\n%s", want, said)
		}
	}
	for _, not := range []string{"route[1]", "anna", "scanner-3", "shared-1,"} {
		if strings.Contains(said, not) {
			t.Errorf("%q is in\n%s", not, said)
		}
	}
}

// TestGroupsFromElsewhere: where groups come from elsewhere too, groups of rules are not doubted. "@group" among
// senders has accounts of the store and people who come by OpenID Connect, and nobody of another source.
func TestGroupsFromElsewhere(t *testing.T) {
	const rules = `[admin]
address = ""
[[policy]]
groups = ["staff"]
senders = ["{login}", "@Sales", "@board", "@staff"]
[[route]]
groups = ["staff"]
upstreams = ["office"]
`
	page := "[self_service]\naddress = \":8443\"\n[self_service.oidc]\nissuer = \"https://login.example.com\"\n" +
		"client_id = \"x\"\nclient_secret = \"x\"\n"
	directory := "[[auth.source]]\n[[auth.source]]\nname = \"office\"\ntype = \"dovecot\"\nsocket = \"/run/x\"\n"
	for name, settings := range map[string]string{"page": page, "source": directory, "both": page + directory} {
		c, _ := written(t, rules+settings+oneUpstream)
		s, err := relaystore.Open(t.Context(), relaystore.Options{Dir: c.DataDir, Daemon: true})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		err = s.AddUser(t.Context(), auth.User{Login: "ceo@example.com", Hash: "x", Groups: []string{"board"},
			Created: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []auth.Person{
			{Login: "oda@example.com", Source: "oidc", Subject: "x 1", Groups: []string{"sales"}, Seen: time.Now()},
			{Login: "paul@example.com", Source: "office", Groups: []string{"staff"}},
		} {
			if _, err := s.PutPerson(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		said := linesOf(Warnings(c, time.Now()))
		if strings.Count(said, "nobody is in the group") != 1 ||
			!strings.Contains(said, `policy[1].senders: nobody is in the group "staff" as far as "@staff" goes`) ||
			strings.Contains(said, "those of source office are not counted") != (name != "page") {
			t.Errorf("%s:\n%s", name, said)
		}
	}
}

func TestWarningOfADiskWithoutRoom(t *testing.T) {
	c, _ := written(t, "[store]\nmin_free = \"100000GB\"\n"+oneUpstream)
	if said := linesOf(Warnings(c, time.Now())); !strings.Contains(said, "less than store.min_free") {
		t.Errorf("%s", said)
	}
}
