package main

import (
	"encoding/base64"
	"net/url"
	"os"
	"strings"
	"testing"

	"postern/internal/testkit"
	relaystore "postern/relay/store"
)

// serverConfig writes a relay.toml beside the other one that has the store at a database.
func (l *commandLine) serverConfig(database string) (path string) {
	l.t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		l.t.Fatal(err)
	}
	password, _ := u.User.Password()
	u.User = url.User(u.User.Username())
	l.file("postgres.pw", password+"\n")
	l.file("nodes.key", base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789ABCDEF"))+"\n")
	text, err := os.ReadFile(l.config)
	if err != nil {
		l.t.Fatal(err)
	}
	store := "[store]\nurl = \"" + u.String() + "\"\nseal_key = \"file:nodes.key\"\n"
	if password != "" {
		store += "password = \"file:postgres.pw\"\n"
	}
	return l.file("relay.new.toml", string(text)+store)
}

// What the guide for several nodes says: a copy of relay.toml names the new place, everything goes there, and the old
// place is not used again by mistake.
func TestStoreMigrate(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	other := l.serverConfig(testkit.SharedPostgreSQL(t).NewDatabase(t))
	l.runWith("a long enough password\n", "user", "add", "anna", "--sender", "anna@example.com", "--password-stdin")
	if out := l.ok("user", "list"); !strings.Contains(out, "anna") {
		t.Fatalf("the test has no user: %s", out)
	}
	if err := l.store.Close(); err != nil {
		t.Fatal(err)
	}
	refused := func(want string, args ...string) {
		t.Helper()
		if out, errs, err := l.run(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("postern %q: %v\n%s%s", args, err, out, errs)
		}
	}
	refused("--to is missing", "store", "migrate")
	refused("no.toml", "store", "migrate", "--to", "no.toml")
	warns := func(want bool) {
		t.Helper()
		l := &commandLine{t: t, config: other}
		if out := l.ok("check"); strings.Contains(out, "mail or accounts that were not moved to") != want {
			t.Errorf("postern check warns of what was not moved: not %v\n%s", want, out)
		}
	}
	warns(true)
	refused("same kind", "store", "migrate", "--to", l.config)

	daemon, err := relaystore.Open(t.Context(), relaystore.Options{Dir: l.dir + "/data", Daemon: true})
	if err != nil {
		t.Fatal(err)
	}
	refused("systemctl stop postern", "store", "migrate", "--to", other)
	if err := daemon.Close(); err != nil {
		t.Fatal(err)
	}

	if out := l.ok("store", "migrate", "--to", other, "--check"); !strings.Contains(out, "It can be moved: 0 mess") {
		t.Error(out)
	}
	if out := l.ok("store", "reuse"); !strings.Contains(out, "was not moved") {
		t.Error(out)
	}
	if out := l.ok("store", "reuse", "--json"); !strings.Contains(out, `"moved": false`) {
		t.Error(out)
	}
	if out := l.ok("store", "migrate", "--to", other); !strings.Contains(out, "Moved 0 messages") ||
		!strings.Contains(out, "mv "+other+" "+l.config) {
		t.Error(out)
	}
	warns(false)
	refused("postern store reuse", "user", "list")
	refused("already", "store", "migrate", "--to", other)
	old := l.config
	l.config = other
	if out := l.ok("user", "list"); !strings.Contains(out, "anna") {
		t.Errorf("it is not at the new place: %s", out)
	}
	l.config = old
	if out := l.ok("store", "reuse"); !strings.Contains(out, "can be used again") {
		t.Error(out)
	}
	if out := l.ok("user", "list"); !strings.Contains(out, "anna") {
		t.Errorf("it is not at the old place: %s", out)
	}
}

// Whoever writes another [store] and does not move the old one is told so at the start, which goes on.
func TestServeTellsOfAStoreLeftBehind(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "")
	o.postern("a chosen password\n", "user", "add", "anna@example.com", "--password-stdin")
	l := &commandLine{t: t, dir: o.dir, config: o.config}
	o.config = l.serverConfig(testkit.SharedPostgreSQL(t).NewDatabase(t))
	p := testkit.Postern(t, "serve", "--config", o.config)
	p.WaitLog(`level=WARN msg="configuration: .*mail or accounts that were not moved to .*postern store migrate`)
	p.WaitLog(`msg=ready`)
}
