package ldap

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"postern/auth"
	"postern/internal/testkit"
)

// spellings are one name for slapd.
var spellings = []string{"anna", "anna ", " anna", "  anna  ", "ann\u00ada", "\uff41nna", "a\uff4ena", "an\uff4ea",
	"ann\uff41", "\uff41\uff4ena", "\uff41n\uff4ea", "\uff41nn\uff41"}

// TestSpellings: however a login is spelled that slapd takes for the same, it is one account to the lockout, and has
// one name for limits.
func TestSpellings(t *testing.T) {
	ca := testkit.NewCA(t)
	r := &rig{testkit.NewSlapd(t, ca, office), ca}
	template := r.options(r.TLS)
	template.BindDN, template.BindPassword, template.BaseDN = "", "", ""
	template.BindTemplate, template.Groups = "uid={login},ou=people,dc=example,dc=com", GroupsNone
	other := r.options(r.TLS)
	other.LoginAttribute = "employeeNumber" // she has none
	for name, o := range map[string]Options{"search": r.options(r.TLS), "template": template, "no name": other} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testSpellings(t, source(t, o))
		})
	}
}

func testSpellings(t *testing.T, s *Source) {
	for _, login := range spellings {
		id, err := s.Verify(t.Context(), login, "right")
		refused := errors.Is(err, auth.ErrUnknownLogin) || errors.Is(err, auth.ErrWrongPassword)
		if err != nil && !refused || err == nil && id.Login != "anna" {
			t.Errorf("%q: %+v, %v", login, id, err)
		}
	}
	var locks []auth.Lock
	a := auth.New(auth.Options{Sources: []auth.Source{s}, OnLock: func(l auth.Lock) { locks = append(locks, l) },
		Lockout: auth.Lockout{Failures: 3, Window: time.Hour, Duration: time.Hour}})
	guessed := spellings[5:9]
	for i, login := range guessed {
		client := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
		if _, err := a.Authenticate(t.Context(), login, fmt.Sprint("guess", i), client); err == nil {
			t.Fatalf("%q: let in", login)
		}
	}
	if len(locks) == 0 || locks[0].Login != "anna" {
		t.Errorf("%d guesses lock %v", len(guessed), locks)
	}
}
