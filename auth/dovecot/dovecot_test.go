package dovecot

import (
	"bufio"
	"errors"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/auth/authtest"
	"postern/internal/testkit"
)

// sha512Right is a hash of "right".
const sha512Right = "$6$Ojs.sY50DNh0pTdb$07jOGgHCDnoTOu4YzBfBvNKvc4osUO5.htjJ2/3Nzvq8.lETr5h36KCV3zI30Sj5LnRowpnv" +
	"zeaGltHOE.0tD0"

func source(t *testing.T, socket string, timeout time.Duration) *Source {
	t.Helper()
	s, err := New(Options{Name: "dovecot", Socket: socket, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDovecot(t *testing.T) {
	d := testkit.NewDovecot(t, "anna:"+sha512Right+":::::: postern_groups=staff postern_senders=anna@example.com\n"+
		"gone:"+sha512Right+":::::: nologin\nnets:"+sha512Right+":::::: allow_nets=127.0.0.0/8,::1\n")
	s := source(t, d.Socket, 0)
	if err := s.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	authtest.RunSource(t, s, authtest.Fixture{Login: "anna", Password: "right", LockedLogin: "gone",
		LockedPassword: "right", Merges: true, LockShows: true})
	id, err := s.Verify(t.Context(), "anna", "right")
	if err != nil || !reflect.DeepEqual(id, auth.Identity{Login: "anna", Groups: []string{"staff"},
		Senders: []string{"anna@example.com"}}) {
		t.Errorf("%+v, %v", id, err)
	}
	for _, login := range []string{"anna\ttemp", "anna\nAUTH", "an na", "anna\x01t", "%u", "*"} {
		if _, err := s.Verify(t.Context(), login, "right"); !errors.Is(err, auth.ErrWrongPassword) {
			t.Errorf("%q: %v", login, err)
		}
	}
	if _, err := s.Verify(t.Context(), "nets", "right"); !errors.Is(err, auth.ErrWrongPassword) {
		t.Errorf("a user who may come from some networks only: %v", err)
	}
	d.Kill()
	for _, err := range []error{second(s.Verify(t.Context(), "anna", "right")), s.Probe(t.Context())} {
		if err == nil || errors.Is(err, auth.ErrWrongPassword) || !strings.Contains(err.Error(), "is Dovecot running") {
			t.Errorf("it is down: %v", err)
		}
	}
	d.Start()
	if _, err := s.Verify(t.Context(), "anna", "right"); err != nil {
		t.Errorf("it is up again: %v", err)
	}
}

func second(_ auth.Identity, err error) error { return err }

// serve answers on a socket: first says what comes at once, then what comes after AUTH.
func serve(t *testing.T, greeting, reply string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.Write([]byte(greeting))
				in := bufio.NewScanner(c)
				for in.Scan() {
					if strings.HasPrefix(in.Text(), "AUTH\t") {
						c.Write([]byte(reply))
						if !strings.HasSuffix(reply, "\n") && reply != "" {
							return
						}
					}
				}
			}()
		}
	}()
	return path
}

const hello = "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t00\nDONE\n"

func TestServersThatMisbehave(t *testing.T) {
	for name, c := range map[string]struct {
		greeting, reply, want string
		is                    error
	}{
		"right":               {hello, "OK\t1\tuser=Anna@Example.com\n", "", nil},
		"temporary":           {hello, "FAIL\t1\tuser=anna\ttemp\n", "temporary", auth.ErrUndecided},
		"temporary in 2.4":    {hello, "FAIL\t1\tcode=temp_fail\treason=no \x01tLDAP\x1b\n", "no", auth.ErrUndecided},
		"disabled":            {hello, "FAIL\t1\tuser_disabled\n", "disabled", auth.ErrLocked},
		"expired":             {hello, "FAIL\t1\tcode=pass_expired\n", "expired", auth.ErrLocked},
		"wrong":               {hello, "FAIL\t1\n", "", auth.ErrWrongPassword},
		"of another request":  {hello, "OK\t2\tuser=anna\n", "not understood", nil},
		"to be continued":     {hello, "CONT\t1\t\n", "not understood", nil},
		"empty":               {hello, "\n", "not understood", nil},
		"cut":                 {hello, "OK\t1\tuser=anna", "closed", nil},
		"endless line":        {hello, strings.Repeat("x", 2*maxLine) + "\n", "longer than", nil},
		"endless greeting":    {strings.Repeat("MECH\tFOO\n", maxRead), "", "too much", nil},
		"version 2":           {"VERSION\t2\t0\nDONE\n", "", "version", nil},
		"no version":          {"MECH\tPLAIN\nDONE\n", "", "no auth-client", nil},
		"no PLAIN":            {"VERSION\t1\t2\nMECH\tLOGIN\nDONE\n", "", "auth_mechanisms", nil},
		"silence":             {"", "", "timeout", nil},
		"silence after hello": {hello, "", "timeout", nil},
		"bad senders":         {hello, "OK\t1\tpostern_senders=nonsense\n", "postern_senders", auth.ErrUndecided},
	} {
		t.Run(name, func(t *testing.T) {
			timeout := time.Minute
			if strings.HasPrefix(name, "silence") {
				timeout = 100 * time.Millisecond
			}
			id, err := source(t, serve(t, c.greeting, c.reply), timeout).Verify(t.Context(), "anna", "right")
			if name == "right" {
				if err != nil || id.Login != "anna@example.com" {
					t.Errorf("%+v, %v", id, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) ||
				c.is == nil && errors.Is(err, auth.ErrWrongPassword) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\x1b\n\t") {
				t.Errorf("controls in %q", err)
			}
		})
	}
}

// TestManyTemporaryFailures: one login may be broken, three in a row are a server that is.
func TestManyTemporaryFailures(t *testing.T) {
	s := source(t, serve(t, hello, "FAIL\t1\ttemp\n"), time.Minute)
	for range 5 {
		if err := second(s.Verify(t.Context(), "anna", "x")); !errors.Is(err, auth.ErrUndecided) {
			t.Errorf("one login: %v", err)
		}
	}
	second(s.Verify(t.Context(), "bert", "x"))
	if err := second(s.Verify(t.Context(), "cleo", "x")); err == nil || errors.Is(err, auth.ErrUndecided) {
		t.Errorf("three logins: %v", err)
	}
}

func FuzzParseReply(f *testing.F) {
	for _, s := range []string{"OK\t1\tuser=anna", "FAIL\t1\ttemp", "FAIL\t1\tcode=user_disabled\treason=\x01t",
		"OK\t1\tpostern_senders=*@x.example,\tpostern_groups=a,b\tnologin", "OK\t1\tuser=\xff", "\t\t\t"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		id, err := parseReply(line, "anna")
		if err == nil && (!strings.HasPrefix(line, "OK\t1") || id.Login == "") {
			t.Errorf("%q let %+v in", line, id)
		}
		if err != nil && !reflect.DeepEqual(id, auth.Identity{}) {
			t.Errorf("%q: refused, and is %+v", line, id)
		}
	})
}

func FuzzGreeted(f *testing.F) {
	f.Add(hello)
	f.Add("VERSION\t1\nDONE\n")
	f.Fuzz(func(t *testing.T, text string) {
		err := greeted(bufio.NewReaderSize(strings.NewReader(text), maxLine))
		if err == nil && !(strings.Contains(text, "VERSION\t1") && strings.Contains(text, "PLAIN")) {
			t.Errorf("%q", text)
		}
	})
}
