package access

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"postern/operate"
	"postern/relay/store"
)

// TestLockoutOutlivesARestart: who is locked out stays so, and whoever was in before with their right password is not
// kept out by guesses after it.
func TestLockoutOutlivesARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	var before *rig
	start := func() *rig {
		s, err := store.Open(t.Context(), store.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() }) // closed below, too
		return newRig(t, func(o *Options) {
			o.Store = s
			if before != nil {
				o.Now = func() time.Time { return before.clock.now }
			}
		})
	}
	r := start()
	secret, _ := r.join("anna", operate.Admin)
	r.clock.pass(time.Minute)
	if _, err := r.login("anna", secret); err != nil {
		t.Fatal(err)
	}
	guess := func(r *rig, from string) error {
		var err error
		for i := range 5 {
			_, err = r.Logins.Login(t.Context(), Credentials{"anna", fmt.Sprintf("wrong horse %d", i), "1"}, from)
		}
		return err
	}
	refused(t, "a stranger", guess(r, "198.51.100.1"), ReasonLockedOut)
	if err := r.SaveLockout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.core.store.Close(); err != nil {
		t.Fatal(err)
	}
	clock := r.clock
	before = r
	r = start()
	r.clock = clock
	_, err := r.Logins.Login(t.Context(), Credentials{"anna", "wrong horse 9", "1"}, "198.51.100.1")
	refused(t, "the stranger after a restart", err, ReasonLockedOut)
	_, err = r.Tokens.Actor(t.Context(), "pst_wrong", "198.51.100.1")
	refused(t, "a token from there", err, ReasonLockedOut)
	clock.pass(time.Minute)
	if _, err := r.login("anna", secret); err != nil {
		t.Errorf("from where anna is known: %v", err)
	}
	locks, err := r.core.store.Lockouts(t.Context(), clock.now)
	if err != nil || len(locks) != 0 {
		t.Errorf("it stands among the logins of SMTP: %+v, %v", locks, err)
	}
}
