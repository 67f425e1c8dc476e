package passwdfile

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/auth/authtest"
	"postern/internal/testkit"
)

// Hashes of "right".
const (
	argonRight  = "$argon2id$v=19$m=65536,t=3,p=1$DDhLsdu6K/KeNXzepHkGbQ$rCNwCn7kBMLIC4Ha2TmgEy8S2WnnLkTC8I5EnZTlsyM"
	bcryptRight = "$2y$05$I1tTl9PUPKtibRbIBZzBSOzj2.tvjQ.NrAPWcHmSQQQBIGeli7Lqm"
	sha512Right = "$6$Ojs.sY50DNh0pTdb$07jOGgHCDnoTOu4YzBfBvNKvc4osUO5.htjJ2/3Nzvq8.lETr5h36KCV3zI30Sj5LnRowpnvzeaGlt" +
		"HOE.0tD0"
	sha256Right = "$5$mRolpgxYYRAqb9VM$ZfML0pTKTuinMHOdxipTxELHAcUvxgZZKFF7g4//7r6"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, text string) *Source {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users")
	write(t, path, text)
	s, err := New("file", path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestContract(t *testing.T) {
	for name, hash := range map[string]string{
		"argon2id": argonRight, "bcrypt": bcryptRight, "sha512-crypt": sha512Right, "sha256-crypt": sha256Right,
		"dovecot argon2id": "{ARGON2ID}" + argonRight, "dovecot bcrypt": "{BLF-CRYPT}" + bcryptRight,
		"dovecot sha512": "{SHA512-CRYPT}" + sha512Right, "dovecot crypt": "{CRYPT}" + sha256Right,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, "# users\n\nanna:"+hash+"\r\ngone:!"+hash+"\n")
			authtest.RunSource(t, s, authtest.Fixture{Login: "anna", Password: "right", LockedLogin: "gone",
				LockedPassword: "right"})
		})
	}
	t.Run("passwd-file", func(t *testing.T) {
		s := open(t, "anna:{SHA512-CRYPT}"+sha512Right+":1000:1000::/home/anna::userdb_mail=maildir:~/Maildir\n"+
			"gone:{SHA512-CRYPT}"+sha512Right+"::::::nologin\n")
		authtest.RunSource(t, s, authtest.Fixture{Login: "anna", Password: "right", LockedLogin: "gone",
			LockedPassword: "right"})
	})
}

// TestMadeByTheTools reads what htpasswd and doveadm write.
func TestMadeByTheTools(t *testing.T) {
	for _, c := range [][]string{
		{"htpasswd", "-nbB", "-C", "5", "Anna", "pass:word"}, {"htpasswd", "-nb5", "Anna", "pass:word"},
		{"doveadm", "pw", "-s", "ARGON2ID", "-p", "pass:word"}, {"doveadm", "pw", "-s", "BLF-CRYPT", "-p", "pass:word"},
		{"doveadm", "pw", "-s", "SHA512-CRYPT", "-p", "pass:word"},
		{"doveadm", "pw", "-s", "SCRAM-SHA-256", "-p", "pass:word"},
	} {
		t.Run(strings.Join(c[:3], " "), func(t *testing.T) {
			testkit.Need(t, c[0])
			out, err := exec.Command(c[0], c[1:]...).Output()
			if err != nil {
				t.Fatal(err)
			}
			text := strings.TrimSpace(string(out))
			if c[0] == "doveadm" {
				text = "anna:" + text
			}
			s := open(t, text+"\n")
			if _, err := s.Verify(t.Context(), "anna", "pass:word"); err != nil {
				t.Errorf("right: %v", err)
			}
			if _, err := s.Verify(t.Context(), "anna", "pass"); !errors.Is(err, auth.ErrWrongPassword) {
				t.Errorf("wrong: %v", err)
			}
		})
	}
}

func TestExtraFields(t *testing.T) {
	s := open(t, "anna:"+bcryptRight+"::::::allow_nets=192.0.2.0/24,2001:db8::/32,10.0.0.1 "+
		"userdb_postern_groups=staff,devices postern_senders=anna@example.com,*@example.org userdb_quota=1G\n")
	id, err := s.Verify(t.Context(), "anna", "right")
	want := auth.Identity{Login: "anna", Groups: []string{"staff", "devices"},
		Senders: []string{"anna@example.com", "*@example.org"},
		Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32"),
			netip.MustParsePrefix("10.0.0.1/32")}}
	if err != nil || !reflect.DeepEqual(id, want) {
		t.Errorf("%+v, %v", id, err)
	}
}

func TestBrokenLines(t *testing.T) {
	for line, want := range map[string]string{
		"anna":                          "no colon",
		":" + bcryptRight:               "login before the colon",
		"an\x01na:" + bcryptRight:       "login before the colon",
		"anna:":                         "let everybody in",
		"anna:{PLAIN}hunter2":           "does not protect",
		"anna:{SSHA}hunter2":            "does not protect",
		"anna:{FOO}hunter2":             "unknown",
		"anna:{ARGON2ID}" + bcryptRight: "no such hash",
		"anna:hunter2":                  "no hash that is known",
		"anna:$apr1$C.VrQkat$uGjwvCCYqUIhI.EZQ4B":                                   "MD5",
		"anna:" + bcryptRight[:50]:                                                  "damaged",
		"anna:$2y$31$" + bcryptRight[7:]:                                            "cost 31",
		"anna:$6$rounds=999999999$salt$" + sha512Right[20:]:                         "rounds",
		"anna:$6$salt$short":                                                        "damaged",
		"anna:$argon2id$v=19$m=4194304,t=3,p=1$DDhLsdu6K/KeNXzepHkGbQ$rCNw":         "damaged, or asks for more",
		"ANNA:" + bcryptRight + "\nanna:" + bcryptRight:                             "stands in line 2 too",
		"anna:" + bcryptRight + "::::::allow_nets=everywhere":                       "no network",
		"anna:" + bcryptRight + "::::::postern_senders=not-an-address":              "postern_senders",
		"anna:" + bcryptRight + "::::::postern_groups=":                             "empty",
		"anna:" + strings.Repeat("x", maxLine):                                      "longer than",
		"anna:realm:0123456789abcdef0123456789abcdef":                               "no hash that is known",
		"anna:" + bcryptRight + "::::::postern_groups=" + strings.Repeat("g,", 201): "more than 200",
	} {
		path := filepath.Join(t.TempDir(), "users")
		write(t, path, "# first\n"+line+"\n")
		_, err := New("file", path)
		var bad *LineError
		if !errors.As(err, &bad) || bad.Path != path || bad.Line < 2 || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: %v, want %q", line, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%.80q: the error tells the password: %v", line, err)
		}
	}
	if _, err := New("file", filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there is taken")
	}
}

// TestReload: what changes is told by Changed, a broken line changes nothing.
func TestReload(t *testing.T) {
	s := open(t, "anna:"+bcryptRight+"\nbert:"+bcryptRight+"\n")
	before, err := s.Lookup(t.Context(), "anna")
	if err != nil || !before.Changed.IsZero() {
		t.Fatalf("%+v, %v", before, err)
	}
	write(t, s.Path(), "anna:"+sha512Right+"\nbroken\nbert:"+bcryptRight+"\n")
	var bad *LineError
	if err := s.Reload(); !errors.As(err, &bad) || bad.Line != 2 {
		t.Fatalf("%v", err)
	}
	if _, err := s.Verify(t.Context(), "bert", "right"); err != nil || s.Len() != 2 {
		t.Fatalf("a broken line took what was in force: %v", err)
	}
	now := time.Unix(1e9, 0)
	write(t, s.Path(), "anna:"+sha512Right+"\nbert:"+bcryptRight+"\ncleo:"+bcryptRight+"\n")
	if err := s.reload(now); err != nil {
		t.Fatal(err)
	}
	for login, want := range map[string][2]time.Time{"anna": {{}, now}, "bert": {}, "cleo": {now, now}} {
		id, err := s.Lookup(t.Context(), login)
		if err != nil || id.Created != want[0] || id.Changed != want[1] {
			t.Errorf("%s: %+v, %v", login, id, err)
		}
	}
	write(t, s.Path(), "anna:!"+sha512Right+"\ncleo:"+bcryptRight+"\n")
	if err := s.reload(now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lookup(t.Context(), "anna"); !errors.Is(err, auth.ErrLocked) {
		t.Errorf("locked: %v", err)
	}
	if _, err := s.Lookup(t.Context(), "bert"); !errors.Is(err, auth.ErrUnknownLogin) {
		t.Errorf("removed: %v", err)
	}
	if id, err := s.Lookup(t.Context(), "cleo"); err != nil || id.Changed != now {
		t.Errorf("unchanged: %+v, %v", id, err)
	}
}

// TestWorkTellsNothing: whatever is refused by the sources, the same hashes are computed.
func TestWorkTellsNothing(t *testing.T) {
	s := open(t, "anna:"+bcryptRight+"\nlocked:!"+bcryptRight+"\nnohash:*\n")
	hashes := 0
	s.hashed = func() { hashes++ }
	a := auth.New(auth.Options{Sources: []auth.Source{s}})
	for _, login := range []string{"anna", "locked", "nohash", "nobody"} {
		hashes = 0
		if _, err := a.Authenticate(t.Context(), login, "wrong", netip.MustParseAddr("192.0.2.1")); err == nil {
			t.Fatal("let in")
		}
		if hashes != 1 {
			t.Errorf("%s: %d hashes", login, hashes)
		}
	}
	// Logins that nobody has cost what those cost that are there: in the same proportions, the same each time.
	mixed := open(t, "anna:"+bcryptRight+"\nbert:"+sha256Right+"\n")
	chosen := map[string]int{}
	for i := range mixed.table.Load().list {
		e, verify := mixed.table.Load().list[i], mixed.table.Load().list[i].verify
		e.verify = func(p string) bool { chosen[e.identity.Login]++; return verify(p) }
	}
	for i := range 40 {
		mixed.Dummy(fmt.Sprint("nobody", i), "x")
	}
	if chosen["anna"] < 8 || chosen["bert"] < 8 {
		t.Errorf("dummies: %v", chosen)
	}
	clear(chosen)
	for range 10 {
		mixed.Dummy("nobody", "x")
	}
	if len(chosen) != 1 {
		t.Errorf("one login costs now this, now that: %v", chosen)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"anna:" + bcryptRight + "\n", "a:{SHA512-CRYPT}" + sha512Right + ":1:1::/h::nologin",
		"b:" + argonRight + "::::::allow_nets=::1/128,10.0.0.0/8 postern_senders=*@x.example", "c:$6$rounds=1000$s$x",
		"#\n\n:::", "d:!*", "\xff:\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		table, err := parse(data)
		if (err == nil) != (table != nil) {
			t.Fatalf("%v, %v", table, err)
		}
		if err != nil {
			return
		}
		for login, e := range table.entries {
			if n, ok := auth.NormalizeLogin(login); !ok || n != login || e.identity.Login != login {
				t.Errorf("login %q", login)
			}
			if e.hash == "" && e.locked == "" {
				t.Errorf("%q has neither hash nor lock", login)
			}
		}
	})
}

// TestScram: SCRAM keys of a file serve both; other lines have none; locks hold; shapes are those of the file.
func TestScram(t *testing.T) {
	const key = "BySGTwYACwgBCQoLDA0ODwABAgMEBQYHCAkKCwwNDg8="
	s := open(t, "anna:{scram-sha-256}4096,AAAAAAAAAAAAAAAA,"+key+","+key+"\n"+
		"bob:!{SCRAM-SHA-256}8192,AAAAAAAAAAAAAAAAAAAA,"+key+","+key+"\ncarl:!\n")
	ctx := t.Context()
	if e, err := s.Scram(ctx, "anna"); err != nil || e.Keys.Iterations != 4096 || e.Locked != nil {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err := s.Scram(ctx, "bob"); err != nil || e.Keys.Iterations != 8192 || !errors.Is(e.Locked, auth.ErrLocked) {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err := s.Scram(ctx, "carl"); err != nil || !e.Keys.IsZero() {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := s.Scram(ctx, "nobody"); !errors.Is(err, auth.ErrUnknownLogin) {
		t.Error(err)
	}
	if shapes := s.ScramShapes(); len(shapes) != 2 {
		t.Error(shapes)
	}
	if n, first := s.WithoutScram(); n != 1 || first[0] != "carl" {
		t.Error(n, first)
	}
	for _, bad := range []string{"{SCRAM-SHA-256}", "{SCRAM-SHA-256}10,AAAA," + key + "," + key,
		"{SCRAM-SHA-256}99999999,AAAA," + key + "," + key} {
		if _, err := parse([]byte("anna:" + bad + "\n")); err == nil || strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
