package dovecot

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/internal/testkit"
)

// TestSpellings: Dovecot says what it makes of a login also when it refuses, so one account has one lockout however
// many domains are tried with it.
func TestSpellings(t *testing.T) {
	d := testkit.NewDovecot(t, "anna:"+sha512Right+"::::::\n")
	d.Kill()
	d.Configure("auth_username_format = %Ln")
	d.Start()
	s := source(t, d.Socket, 0)
	if id, err := s.Verify(t.Context(), "anna@d9.example", "right"); err != nil || id.Login != "anna" {
		t.Errorf("%+v, %v", id, err)
	}
	var locks []auth.Lock
	a := auth.New(auth.Options{Sources: []auth.Source{s}, OnLock: func(l auth.Lock) { locks = append(locks, l) },
		Lockout: auth.Lockout{Failures: 3, Window: time.Hour, Duration: time.Hour}})
	for i := range 4 {
		client := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
		if _, err := a.Authenticate(t.Context(), fmt.Sprintf("anna@d%d.example", i), fmt.Sprint("guess", i),
			client); err == nil {
			t.Fatal("let in")
		}
	}
	if len(locks) == 0 || locks[0].Login != "anna" {
		t.Errorf("4 guesses lock %v", locks)
	}
}

// TestOddLogins: none of them is a temporary failure to Dovecot, of which a few would take it for broken.
func TestOddLogins(t *testing.T) {
	d := testkit.NewDovecot(t, "anna:"+sha512Right+"::::::\n")
	s := source(t, d.Socket, 0)
	for _, login := range []string{"a'b", `a"b`, `a\b`, "a%ub", "%{user}", "a$b", "a:b", "anna:x", "a/../b", "@", "@x",
		"anna*anna", "anna+x", "ünna", "a=b", "a;b", "<>",
		strings.Repeat("x", 256), strings.Repeat("ü", 128), "\u00a0"} {
		if _, err := s.Verify(t.Context(), login, strings.Repeat("=", 256)); !errors.Is(err, auth.ErrWrongPassword) {
			t.Errorf("%q: %v", login, err)
		}
	}
}
