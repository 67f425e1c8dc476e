package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"postern/internal/testkit"
)

// looks are the commands that only read, as they are called, and what they say where there is no store yet. DIR is the
// directory of relay.toml.
var looks = []struct{ call, says string }{
	{"alert list", "There is no alert"},
	{"app-password list", "LOGIN"},
	{"audit", "OUTCOME"},
	{"auth test anna --lookup", "No source knows this login"},
	{"backup DIR/no.backup", "there is no store at"},
	{"cert list", "There is none yet"},
	{"cert show relay.example.com", "there is no certificate"},
	{"cert export", "there is no certificate"},
	{"changes", "0.9.0"},
	{"check", "is right"},
	{"check --starting", "is right"},
	{"client anna", "there is no login anna"},
	{"completion bash", "postern"},
	{"console list", "Nobody may into the console yet"},
	{"device limits printer", "there is no login printer"},
	{"device list", "There are no devices yet"},
	{"device show printer", "there is no login printer"},
	{"dkim check", "no key for this"},
	{"dkim dns", "no key for this"},
	{"dkim list", "There are no keys"},
	{"dns --resolver 127.0.0.1:1", "No policy, account or key names a domain"},
	{"doctor --resolver 127.0.0.1:1", "Postern does not run"},
	{"node list", "There is one node"},
	{"queue list", "The queue is empty"},
	{"queue show 3m5x0g9k2a7c1d4e", "no message 3m5x0g9k2a7c1d4e"},
	{"settings", "relay.example.com"},
	{"stats", "Nothing was counted"},
	{"status", "postern does not run"},
	{"store migrate --to DIR/other.toml --check", "there is no store at"},
	{"store reuse", "there is no store at"},
	{"token list", "SCOPES"},
	{"trace", "Nothing is recorded"},
	{"trace search hello", "Nothing is recorded"},
	{"upstream judge 550", "reply"},
	{"upstream list", "provider"},
	{"upstream profiles", "microsoft365"},
	{"upstream test provider", "refuses connections"},
	{"user import DIR/new.csv --dry-run", "It would add 1 account"},
	{"user limits anna", "there is no login anna"},
	{"user list", "There are no accounts yet"},
	{"user show anna", "there is no login anna"},
	{"version", "postern"},
	{"__complete user show a", "Completion ended"},
}

// changing are the commands that are there to change something, or to send or serve.
var changing = []string{
	"alert test", "app-password add", "app-password forget", "app-password revoke", "cert dns", "cert renew",
	"console disable", "console enable", "console invite", "console remove", "console reset", "console role",
	"demo", "device accept", "device add", "device forget", "device learn", "device password", "device remove",
	"device set", "dkim add", "dkim remove", "dkim retire", "dkim rotate", "node drain", "queue bounce",
	"queue delete", "queue hold", "queue release", "queue resend", "queue retry", "restore", "secret protect",
	"serve", "service install", "service remove", "service start", "service stop", "setup", "token add",
	"token revoke", "trace forget", "trace reindex", "upstream login", "user add", "user lock", "user password",
	"user remove", "user set", "user unlock",
}

// A new command stands among looks or above.
func TestCommandsLookOrChange(t *testing.T) {
	t.Parallel()
	for _, path := range commandsOf(rootCommand()) {
		known := slices.Contains(changing, path)
		for _, look := range looks {
			known = known || look.call == path || strings.HasPrefix(look.call, path+" ")
		}
		if !known {
			t.Errorf("postern %s: does it only read?", path)
		}
	}
}

func commandsOf(c *cobra.Command) (paths []string) {
	for _, sub := range c.Commands() {
		paths = append(paths, commandsOf(sub)...)
		if !sub.HasSubCommands() || sub.Name() == "trace" {
			paths = append(paths, strings.TrimPrefix(sub.CommandPath(), "postern "))
		}
	}
	return paths
}

// On a new machine a look, doctor's say, comes before a restore, which takes an empty data_dir only.
func TestLooksMakeNoStore(t *testing.T) {
	t.Parallel()
	l := &commandLine{t: t, dir: t.TempDir()}
	port := strconv.Itoa(testkit.FreePort(t))
	text := "hostname = \"relay.example.com\"\ndata_dir = \"data\"\n" +
		"[admin]\naddress = \"127.0.0.1:" + port + "\"\n" +
		"[[listener]]\nname = \"submission\"\naddress = \"127.0.0.1:0\"\ntls = \"starttls\"\n" +
		"[[upstream]]\nname = \"provider\"\nhost = \"127.0.0.1\"\nport = " + port + "\n"
	l.config = l.file("relay.toml", text)
	l.file("other.toml", text+"[store]\nurl = \"postgres://postern@127.0.0.1:"+port+"/postern\"\n")
	l.file("new.csv", "login,senders\nanna@example.com,anna@example.com\n")
	data := filepath.Join(l.dir, "data")
	look := func(call, says string) {
		t.Helper()
		out, errs, err := l.run(strings.Fields(strings.ReplaceAll(call, "DIR", l.dir))...)
		if said := out + errs; !strings.Contains(said, says) && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("postern %s does not say %q: %v\n%s", call, says, err, said)
		}
	}
	for _, c := range looks {
		look(c.call, c.says)
		if _, err := os.Stat(data); !os.IsNotExist(err) {
			t.Fatalf("postern %s has made data_dir: %v", c.call, err)
		}
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range looks {
		look(c.call, c.says)
		if files, err := os.ReadDir(data); err != nil || len(files) > 0 {
			t.Fatalf("postern %s has left in data_dir: %v %v", c.call, files, err)
		}
	}
	look("user list", "There is no store at "+filepath.Join(data, "postern.db")+" yet")
}
