package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/auth"
	"postern/internal/testkit"
	"postern/operate"
	relaystore "postern/relay/store"
	"postern/relay/trace"
)

// commandLine runs commands of a configuration of its own, in this process.
type commandLine struct {
	t           *testing.T
	dir, config string
	store       store
}

func newCommandLine(t *testing.T) *commandLine {
	t.Helper()
	l := &commandLine{t: t, dir: t.TempDir()}
	l.config = l.file("relay.toml", "hostname = \"relay.example.com\"\ndata_dir = \"data\"\n[[upstream]]\n"+
		"name = \"provider\"\nhost = \"smtp.example.net\"\n")
	var err error
	if l.store, err = relaystore.Open(t.Context(), relaystore.Options{Dir: filepath.Join(l.dir, "data")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.store.Close() })
	return l
}

func (l *commandLine) file(name, text string) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return path
}

// onConfig returns what runs commands with a relay.toml, and returns what they print on both outputs as one.
func onConfig(config string) func(args ...string) (string, error) {
	return func(args ...string) (string, error) {
		var out bytes.Buffer
		root := rootCommand()
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetArgs(append(args, "--config", config))
		err := root.Execute()
		return out.String(), err
	}
}

// run returns what a command prints on both outputs.
func (l *commandLine) run(args ...string) (stdout, stderr string, err error) {
	return l.runWith("", args...)
}

func (l *commandLine) runWith(stdin string, args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	root := rootCommand()
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetArgs(append(args, "--config", l.config))
	err = root.ExecuteContext(l.t.Context())
	return out.String(), errs.String(), err
}

func (l *commandLine) ok(args ...string) string {
	l.t.Helper()
	out, errs, err := l.run(args...)
	if err != nil {
		l.t.Fatalf("postern %q: %v\n%s%s", args, err, out, errs)
	}
	return out
}

func (l *commandLine) user(login string) auth.User {
	l.t.Helper()
	u, err := l.store.User(l.t.Context(), login)
	if err != nil {
		l.t.Fatal(err)
	}
	return u
}

// verifies reports whether a password opens an account.
func (l *commandLine) verifies(login, password string) bool {
	l.t.Helper()
	pepper, err := l.store.Secret(l.t.Context(), auth.PepperName, auth.PepperSize)
	if err != nil {
		l.t.Fatal(err)
	}
	_, err = auth.NewStoreSource(l.store, pepper).Verify(l.t.Context(), login, auth.Prepare(password))
	if err != nil && !errors.Is(err, auth.ErrWrongPassword) {
		l.t.Fatal(err)
	}
	return err == nil
}

func short(u auth.User) string {
	return fmt.Sprintf("%v %v %v %q", u.Senders, u.Networks, u.Groups, u.Note)
}

func TestUserSet(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	l.ok("user", "add", "anna", "--sender", "anna@example.com", "--network", "192.0.2.0/24", "--group", "staff",
		"--note", "first floor")
	before := l.user("anna")
	for _, c := range []struct {
		args string // blanks between
		want string
	}{
		{"--add-sender *@example.org", `[anna@example.com *@example.org] [192.0.2.0/24] [staff] "first floor"`},
		{"--add-sender *@example.org", `[anna@example.com *@example.org] [192.0.2.0/24] [staff] "first floor"`},
		{"--remove-sender anna@example.com --add-sender info@example.com",
			`[*@example.org info@example.com] [192.0.2.0/24] [staff] "first floor"`},
		{"--sender a@example.com --sender b@example.com --sender a@example.com",
			`[a@example.com b@example.com] [192.0.2.0/24] [staff] "first floor"`},
		{"--no-networks --add-group night", `[a@example.com b@example.com] [] [staff night] "first floor"`},
		{"--network 10.0.0.7 --network 2001:db8::/64",
			`[a@example.com b@example.com] [10.0.0.7/32 2001:db8::/64] [staff night] "first floor"`},
		{"--remove-network 10.0.0.7", `[a@example.com b@example.com] [2001:db8::/64] [staff night] "first floor"`},
		{"--remove-network ::ffff:10.0.0.7/128 --add-network 10.0.0.7", ""}, // it is gone already
		{"--no-senders --no-groups --note moved", `[] [2001:db8::/64] [] "moved"`},
		{"--note=", `[] [2001:db8::/64] [] ""`},
	} {
		out, _, err := l.run(append([]string{"user", "set", "ANNA"}, strings.Fields(c.args)...)...)
		if (err != nil) != (c.want == "") {
			t.Errorf("%s: %v\n%s", c.args, err, out)
		}
		if got := short(l.user("anna")); c.want != "" && got != c.want {
			t.Errorf("%s: %s, want %s", c.args, got, c.want)
		}
	}
	after := l.user("anna")
	if after.Hash != before.Hash || !after.Changed.Equal(before.Changed) || !after.Edited.After(before.Changed) {
		t.Error("the password counts as changed: open sessions would end")
	}
	if events, err := l.store.Events(t.Context(), trace.Query{Login: "anna",
		Kinds: []trace.Kind{trace.Operator}}); err != nil || len(events) != 9 {
		t.Errorf("%d events, %v", len(events), err) // added, and eight changes
	}
}

func TestUserSetRefuses(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	l.ok("user", "add", "anna@example.com", "--sender", "anna@example.com")
	before := short(l.user("anna@example.com"))
	for _, c := range []struct {
		args  []string
		usage bool
		says  string
	}{
		{[]string{"anna@example.com"}, true, "nothing to change"},
		{[]string{"anna@example.com", "--no-senders", "--sender", "a@example.com"}, true, "--no-senders stands alone"},
		{[]string{"anna@example.com", "--sender", "a@example.com", "--add-sender", "b@example.com"}, true,
			"whole list"},
		{[]string{"anna@example.com", "--network", ""}, true, "--no-networks"},
		{[]string{"anna@example.com", "--group", ""}, true, "--no-groups"},
		{[]string{"anna@example.com", "--sender", ""}, true, "--no-senders"},
		{[]string{"anna@example.com", "--sender", "nobody"}, true, `"nobody"`},
		{[]string{"anna@example.com", "--add-network", "10.0.0.1/24"}, true, "10.0.0.1/24"},
		{[]string{"anna@example.com", "--group", "two words"}, true, "two words"},
		{[]string{"anna@example.com", "--remove-sender", "b@example.com"}, false, "it has anna@example.com"},
		{[]string{"anna@example.com", "--remove-group", "staff"}, false, "it has none"},
		{[]string{"anna@exmaple.com", "--note", "x"}, false, "did you mean anna@example.com?"},
		{[]string{"anna@example.com", "--snder", "a@example.com"}, true, "snder"},
	} {
		_, _, err := l.run(append([]string{"user", "set"}, c.args...)...)
		_, wrong := errors.AsType[*usageError](err)
		if err == nil || wrong != c.usage || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v", c.args, err)
		}
	}
	if got := short(l.user("anna@example.com")); got != before {
		t.Errorf("something changed: %s", got)
	}
}

// Commands that run at the same time, each a process of its own, undo nothing of each other.
func TestCommandsRace(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	l.ok("user", "add", "anna", "--without-sender")
	l.ok("device", "add", "scanner", "--without-sender")
	const rounds = 4
	l.file("import.csv", "login,note\nanna,imported\n")
	var locks []auth.Lock
	for i := range rounds {
		locks = append(locks, auth.Lock{Client: netip.MustParsePrefix(fmt.Sprintf("192.0.2.%d/32", i)),
			Until: time.Now().Add(time.Hour)})
	}
	if err := l.store.LoginLockout().Save(t.Context(), time.Now(), auth.Unsaved{Locks: locks}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	run := func(args ...string) {
		all.Go(func() {
			if out := testkit.Run(t, "", append(args, "--config", l.config)...); !out.OK {
				t.Errorf("%q: %s", args, out.Text)
			}
		})
	}
	for i := range rounds {
		run("user", "set", "anna", "--add-sender", fmt.Sprintf("s%d@example.com", i))
		run("user", "password", "anna")
		run("device", "set", "scanner", "--add-network", fmt.Sprintf("10.0.0.%d", i))
		run("user", "add", fmt.Sprint("new", i), "--without-sender")
		run("user", "unlock", fmt.Sprintf("192.0.2.%d", i))
		run("dkim", "add", "example.com", "--selector", fmt.Sprint("s", i))
		if i == 1 {
			run("user", "lock", "anna", "--reason", "left")
			run("user", "lock", "scanner")
			run("user", "import", filepath.Join(l.dir, "import.csv"), "--update")
		}
	}
	all.Wait()
	if u := l.user("anna"); !u.Locked || u.LockReason != "left" || len(u.Senders) != rounds || u.Note != "imported" {
		t.Errorf("locked %t (%s), senders %v, note %q", u.Locked, u.LockReason, u.Senders, u.Note)
	}
	if u := l.user("scanner"); !u.Locked || len(u.Networks) != rounds {
		t.Errorf("locked %t, networks %v", u.Locked, u.Networks)
	}
	users, err := l.store.Users(t.Context())
	left, err2 := l.store.Lockouts(t.Context(), time.Now())
	keys, err3 := l.store.Keys(t.Context())
	if err := errors.Join(err, err2, err3); err != nil || len(users) != 2+rounds || len(left) != 0 ||
		len(keys) != 2*rounds {
		t.Errorf("%d accounts, %d lockouts, %d keys, %v", len(users), len(left), len(keys), err)
	}
}

// Of several who make the same keys one has made them all, and the others none.
func TestSameKeysRace(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	var all sync.WaitGroup
	var made, refused atomic.Int32
	for range 4 {
		all.Go(func() {
			out := testkit.Run(t, "", "dkim", "add", "example.com", "--selector", "s", "--config", l.config)
			switch {
			case out.OK:
				made.Add(1)
			case strings.Contains(out.Text, "example.com has a key with selector s-r already; choose another with "+
				"--selector"):
				refused.Add(1)
			}
		})
	}
	all.Wait()
	keys, err := l.store.Keys(t.Context())
	if err != nil || made.Load() != 1 || refused.Load() != 3 || len(keys) != 2 ||
		!keys[0].Created.Equal(keys[1].Created) {
		t.Errorf("%d made them, %d were refused, and there are %v: %v", made.Load(), refused.Load(), keys, err)
	}
}

// A lock that comes between reading and writing an account stays: the second store is a daemon's.
func TestLockBetweenStays(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	l.ok("user", "add", "anna", "--without-sender")
	err := l.store.ChangeUsers(t.Context(), []string{"anna"}, func(u *auth.User, exists bool) error {
		if !exists {
			t.Error("anna is not there")
		}
		u.Locked, u.LockReason = true, "over a limit"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	l.ok("user", "password", "anna")
	l.ok("user", "set", "anna", "--note", "x")
	if u := l.user("anna"); !u.Locked || u.LockReason != "over a limit" {
		t.Errorf("the lock is gone: %+v", u.Locked)
	}
}

// typist types a password once something else has happened.
type typist struct {
	before func()
	io.Reader
}

func (r *typist) Read(b []byte) (int, error) {
	r.before()
	return r.Reader.Read(b)
}

// A device command that has found a device leaves a person's account alone, which the login may have become meanwhile.
func TestDeviceBecomesPersonMeanwhile(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	l.ok("device", "add", "scanner", "--without-sender")
	hash := l.user("scanner").Hash
	root := rootCommand()
	root.SetIn(&typist{func() {
		err := l.store.UpdateUser(t.Context(), "scanner", func(u *auth.User) error { u.Device = false; return nil })
		if err != nil {
			t.Error(err)
		}
	}, strings.NewReader("a chosen password")})
	root.SetOut(io.Discard)
	root.SetErr(io.Discard)
	root.SetArgs([]string{"device", "password", "scanner", "--password-stdin", "--config", l.config})
	refused := func(err error) bool { return err != nil && strings.Contains(err.Error(), "not a device") }
	if err := root.ExecuteContext(t.Context()); !refused(err) || l.user("scanner").Hash != hash {
		t.Errorf("the password: %v", err)
	}
	ops := operate.New(operate.Options{Store: l.store})
	note := "x"
	_, _, err := ops.Accounts.Edit(t.Context(), me(), operate.DevicesOnly, "scanner", operate.AccountEdit{Note: &note})
	if !refused(err) || l.user("scanner").Note != "" {
		t.Errorf("the note: %v", err)
	}
	if err := ops.Accounts.Remove(t.Context(), me(), operate.DevicesOnly, "scanner"); !refused(err) {
		t.Errorf("removed: %v", err)
	}
	l.user("scanner") // is there
}

func TestDeviceCommands(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	l.ok("user", "add", "anna@example.com")
	var made operate.DeviceCard
	if err := json.Unmarshal([]byte(l.ok("device", "add", "scanner", "--sender", "scans@example.com", "--json")),
		&made); err != nil {
		t.Fatal(err)
	}
	if len(made.Password) > 20 || !l.verifies("scanner", made.Password) || !l.verifies("scanner",
		strings.ToUpper(made.Password)) {
		t.Errorf("the password %q", made.Password)
	}
	l.ok("device", "set", "scanner", "--add-network", "10.0.0.31", "--note", "2nd floor")
	text := l.ok("device", "list")
	if !strings.Contains(text, "10.0.0.31/32") || strings.Contains(text, "anna") || strings.Contains(text, "hmac") ||
		strings.Contains(text, made.Password) {
		t.Errorf("device list:\n%s", text)
	}
	var listed []map[string]any
	if err := json.Unmarshal([]byte(l.ok("device", "list", "--json")), &listed); err != nil || len(listed) != 1 ||
		listed[0]["login"] != "scanner" || listed[0]["kind"] != "device" {
		t.Errorf("%v, %v", listed, err)
	}
	out := l.ok("device", "password", "scanner")
	if l.verifies("scanner", made.Password) || !l.user("scanner").Device {
		t.Error("the old password is good")
	}
	fresh := strings.Fields(out)[3]
	if len(fresh) > 20 || !l.verifies("scanner", fresh) {
		t.Errorf("the new password is not good:\n%s", out)
	}
	for _, args := range [][]string{{"set", "anna@example.com", "--note", "x"}, {"password", "anna@example.com"},
		{"remove", "anna@example.com"}} {
		if _, _, err := l.run(append([]string{"device"}, args...)...); err == nil || !strings.Contains(err.Error(),
			"not a device") {
			t.Errorf("device %q: %v", args, err)
		}
	}
	if _, _, err := l.run("device", "remove", "scaner"); err == nil || !strings.Contains(err.Error(),
		"did you mean scanner?") {
		t.Error(err)
	}
	l.ok("device", "remove", "scanner")
	if text := l.ok("device", "list"); !strings.Contains(text, "There are no devices yet") {
		t.Error(text)
	}
	if !l.verifies("anna@example.com", strings.Fields(l.ok("user", "password", "anna@example.com"))[3]) {
		t.Error("user password")
	}
}

func TestUserImport(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	for name, table := range map[string]string{
		"plain": "login,password,senders,networks,groups,note,kind\n" +
			"%[1]sanna@example.com,chosen by anna,anna@example.com *@example.org,,staff,\"a, note\",\n\n" +
			"%[1]sscan,,scans@example.com,10.0.0.0/24,,,device\n",
		"excel": "\ufeffLogin;Password;Senders;Networks;Groups;Note;Kind\r\n" +
			"%[1]sanna@example.com;chosen by anna;anna@example.com, *@example.org;;staff;\"a, note\";user\r\n" +
			"%[1]sscan;;scans@example.com;10.0.0.0/24;;;Device\r\n;;;;;;\r\n",
		"sep": "sep=;\r\nnote;login;kind;password;sender;network;group\r\n" +
			"\"a, note\";%[1]sanna@example.com;;chosen by anna;\"anna@example.com;*@example.org\";;staff\r\n" +
			";%[1]sscan;device;;scans@example.com;10.0.0.0/24\r\n",
		"tables": "login\tpassword\tsenders\tnetworks\tgroups\tnote\tkind\n" +
			"%[1]sanna@example.com\tchosen by anna\t\"anna@example.com\n*@example.org\"\t\tstaff\ta, note\n" +
			"%[1]sscan\t\tscans@example.com\t10.0.0.0/24\t\t\tdevice\n",
	} {
		t.Run(name, func(t *testing.T) {
			file := l.file(name+".csv", fmt.Sprintf(table, name))
			if out, errs, err := l.run("user", "import", file, "--dry-run"); err != nil || out != "" ||
				!strings.Contains(errs,
					"would add 2 accounts and change 0") {
				t.Fatalf("dry run: %v\n%s%s", err, out, errs)
			}
			if _, err := l.store.User(t.Context(), name+"scan"); !errors.Is(err, auth.ErrUnknownLogin) {
				t.Fatalf("the dry run added something: %v", err)
			}
			out, errs, err := l.run("user", "import", file)
			if err != nil || !strings.Contains(errs, "Added 2 accounts, changed 0.") {
				t.Fatalf("%v\n%s", err, errs)
			}
			made, err := csv.NewReader(strings.NewReader(out)).ReadAll()
			if err != nil || len(made) != 2 || made[1][0] != name+"scan" || !l.verifies(name+"scan", made[1][1]) ||
				len(made[1][1]) != auth.DevicePasswordLength {
				t.Errorf("passwords %v, %v", made, err)
			}
			if !l.verifies(name+"anna@example.com", "chosen by anna") || strings.Contains(out+errs, "chosen by anna") {
				t.Error("the chosen password is not good, or shown")
			}
			anna, scan := l.user(name+"anna@example.com"), l.user(name+"scan")
			if got := short(anna); got != `[anna@example.com *@example.org] [] [staff] "a, note"` || anna.Device ||
				anna.Generated {
				t.Errorf("anna: %s", got)
			}
			if got := short(scan); got != `[scans@example.com] [10.0.0.0/24] [] ""` || !scan.Device ||
				!scan.Generated ||
				scan.Created.IsZero() {
				t.Errorf("scan: %s", got)
			}
		})
	}
}

func TestUserImportIsAllOrNothing(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	l.ok("user", "add", "old@example.com")
	for name, c := range map[string]struct {
		table string
		says  []string // each with its line
	}{
		"no header": {"anna@example.com,secret word\n",
			[]string{":1: the first line does not name a column login"}},
		"login mistyped": {"logni,note\na,b\n", []string{`:1: there is no column "logni"; did you mean login?`}},
		"no login":       {"password,note\nx,y\n", []string{":1: the first line does not name a column login"}},
		"mistyped":       {"login,sendres\na,b\n", []string{`:1: there is no column "sendres"; did you mean senders?`}},
		"twice":          {"login,note,Note\na,b,c\n", []string{":1: the column note is there twice"}},
		"empty":          {"", []string{":1: there are no accounts in it"}},
		"header alone":   {"login\n", []string{"there are no accounts in it"}},
		"all lines told": {"login,senders,networks,groups,kind,password\ngood@example.com,,,,,\ntwo words,,,,,\n" +
			"c@example.com,nobody,10.0.0.300,,,\nd@example.com,,,,printer,\n" +
			"e@example.com,,,,,\"a\nb\"\nf@example.com,,,,,\n",
			[]string{":3: login: ", `:4: senders: sender "nobody"`, `:4: networks: network "10.0.0.300"`,
				":5: kind: write user or device", ":6: password: "}},
		"same login": {"login\nAnna@example.com\n\nanna@example.com\n",
			[]string{":4: login anna@example.com is in line 2 already"}},
		"existing": {"login\nnew@example.com\nOLD@example.com\n",
			[]string{":3: login old@example.com exists already", "to change logins that exist: --update"}},
		"stray cell":   {"login,note\nnew@example.com,a,b\n", []string{":2: cell 3 belongs to no column"}},
		"open quote":   {"login,note\nnew@example.com,\"a\nx@example.com,b\n", []string{": this is no CSV: "}},
		"quote inside": {"login,note\nnew@example.com,a\"b\n", []string{":2: this is no CSV: "}},
		"Latin-1": {"login;note\r\nnew@example.com;ok\r\nnewer@example.com;B\xfcro\r\n",
			[]string{":3: a letter is not UTF-8"}},
		"UTF-16":         {"\xff\xfel\x00o\x00g\x00i\x00n\x00", []string{":1: the file is saved as UTF-16"}},
		"after sep line": {"sep=,\nlogin\ntwo words\n", []string{":3: login: "}},
	} {
		file := l.file("bad.csv", c.table)
		for _, flags := range [][]string{{}, {"--dry-run"}} {
			out, errs, err := l.run(append([]string{"user", "import", file}, flags...)...)
			if err == nil || out != "" {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
			for _, want := range c.says {
				if !strings.Contains(errs, want) {
					t.Errorf("%s: no %q in\n%s", name, want, errs)
				}
			}
			if strings.Count(errs, "\n") != len(c.says) {
				t.Errorf("%s: told\n%s", name, errs)
			}
		}
	}
	users, err := l.store.Users(t.Context())
	if err != nil || len(users) != 1 {
		t.Errorf("something was imported: %d, %v", len(users), err)
	}
}

func TestUserImportUpdates(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	l.ok("user", "add", "anna", "--sender", "anna@example.com", "--network", "10.0.0.0/8", "--note", "old")
	before := l.user("anna")
	file := l.file("update.csv", "login,networks,note,password\nanna,,new,\nben,,,\n")
	result := filepath.Join(l.dir, "passwords.csv")
	out, _, err := l.run("user", "import", file, "--update", "--result", result, "--json", "--without-sender")
	if err != nil {
		t.Fatal(err)
	}
	var did operate.Imported
	if err := json.Unmarshal([]byte(out), &did); err != nil || did.Added != 1 || did.Changed != 1 || did.DryRun ||
		len(did.Passwords) != 0 {
		t.Errorf("%+v, %v", did, err)
	}
	if u := l.user("anna"); short(u) != `[anna@example.com] [] [] "new"` || u.Hash != before.Hash ||
		!u.Changed.Equal(before.Changed) || !u.Created.Equal(before.Created) {
		t.Errorf("anna: %s", short(u))
	}
	info, err := os.Stat(result)
	text, err2 := os.ReadFile(result)
	if err != nil || err2 != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(err, err2, info.Mode())
	}
	made, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil || len(made) != 2 || !l.verifies("ben", made[1][1]) {
		t.Errorf("%v, %v", made, err)
	}
	fresh := l.file("fresh.csv", "login\ncarl\n")
	_, _, err = l.run("user", "import", fresh, "--result", result, "--without-sender")
	if err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("a result file was overwritten: %v", err)
	}
	if _, err := l.store.User(t.Context(), "carl"); !errors.Is(err, auth.ErrUnknownLogin) {
		t.Error("carl was added although his password has no place")
	}
}

// What people see of accounts has no password and no hash.
func TestNoListShowsPasswords(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	hash, err := auth.HashChosen("a password that was chosen")
	if err != nil {
		t.Fatal(err)
	}
	l.ok("user", "add", "anna", "--without-sender")
	l.ok("device", "add", "scan", "--without-sender")
	now := time.Now()
	if err := l.store.AddUser(t.Context(), auth.User{Login: "ben", Hash: hash, Created: now,
		Changed: now}); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"user", "list"}, {"user", "list", "--json"}, {"device", "list"}, {"device", "list", "--json"}, {"user", "set",
			"anna", "--note", "x", "--json"}, {"trace"},
		{"trace", "--json"},
	} {
		out := l.ok(args...)
		for _, u := range []string{"anna", "scan", "ben"} {
			secret := string(l.user(u).Hash)
			if strings.Contains(out, secret) || strings.Contains(out, secret[strings.LastIndexByte(secret, '$')+1:]) ||
				strings.Contains(strings.ToLower(out), "hash") {
				t.Errorf("%q shows a hash:\n%s", args, out)
			}
		}
	}
}

// TestNothingLikeThatIsNoEmptyQueue: a filter that matches nothing does not say that the queue is empty.
func TestNothingLikeThatIsNoEmptyQueue(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	for args, want := range map[string]string{"": "The queue is empty.", "--from x@example.com": "like that",
		"--login x": "like that", "--held": "like that"} {
		out := l.ok(append([]string{"queue", "list"}, strings.Fields(args)...)...)
		if !strings.Contains(out, want) {
			t.Errorf("%q: %q, want %q", args, out, want)
		}
	}
	if _, stderr, err := l.run("alert", "test"); err == nil ||
		!strings.Contains(fmt.Sprint(stderr, err), "no [[alert]]") {
		t.Errorf("%q, %v", stderr, err)
	}
}
