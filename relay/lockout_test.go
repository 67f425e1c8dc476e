package relay

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"postern/admin/access"
	"postern/auth"
)

const tenStrikes = "[auth.lockout]\nfailures = 10"

func (r *rig) login(login, password string, client netip.Addr) error {
	_, err := r.server.accounts.Authenticate(r.t.Context(), login, password, client)
	return err
}

func placed(n int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(n)}) }

// TestRestartLocksNobodyOut: guesses right after a restart, from anywhere, keep nobody out who logged in before it.
func TestRestartLocksNobodyOut(t *testing.T) {
	r := newRig(t, newProvider(t), tenStrikes)
	r.client(rigLogin).Close()
	r.addUser(auth.User{Login: "ben@example.com"})
	r.close()
	r.start()
	for i := range 12 {
		for _, login := range []string{rigLogin, "nobody@example.com"} {
			if r.login(login, fmt.Sprint("guess", i), r.anywhere()) == nil ||
				r.login(login, fmt.Sprint("guess", i), placed(i)) == nil {
				t.Fatal("a guess was right")
			}
		}
	}
	r.client(rigLogin).Close()
	if err := r.login("ben@example.com", rigPassword, r.anywhere()); err == nil {
		t.Error("the address is not locked for those who never logged in from it")
	}
}

// TestLockoutsAreSeenAndLifted: the store shows who is locked out, also after a restart, and what is taken out there is
// lifted.
func TestLockoutsAreSeenAndLifted(t *testing.T) {
	r := newRig(t, newProvider(t), tenStrikes)
	s := r.store()
	for i := range 10 {
		_ = r.login("nobody@example.com", fmt.Sprint("guess", i), placed(1))
		_ = r.login(rigLogin, fmt.Sprint("guess", i), placed(10+i))
	}
	var locks []auth.Lock
	r.eventually("both locks in the store", func() bool {
		var err error
		locks, err = s.Lockouts(t.Context(), time.Now())
		return err == nil && len(locks) == 2
	})
	if locks[0].Client != netip.MustParsePrefix("203.0.113.1/32") || locks[0].Login != "" || locks[0].Failures != 10 ||
		locks[1].Client.IsValid() || locks[1].Login != rigLogin || time.Until(locks[1].Until) < 10*time.Minute {
		t.Errorf("locks: %+v", locks)
	}
	r.close()
	r.start()
	if r.login(rigLogin, rigPassword, placed(1)) == nil || r.login(rigLogin, rigPassword, placed(99)) == nil {
		t.Fatal("a restart lifts locks")
	}
	if _, err := s.LiftLockouts(t.Context(), time.Now(), func(auth.Lock) bool { return true }); err != nil {
		t.Fatal(err)
	}
	r.eventually("the end of the locks", func() bool {
		return r.login(rigLogin, rigPassword, placed(1)) == nil && r.login(rigLogin, rigPassword, placed(99)) == nil
	})
	if locks, err := s.Lockouts(t.Context(), time.Now()); err != nil || len(locks) != 0 {
		t.Errorf("locks: %+v, %v", locks, err)
	}
}

// TestConsoleLockoutsAreLifted: a running relay lets in again whom its console has locked out, when somebody beside it
// has unlocked the address.
func TestConsoleLockoutsAreLifted(t *testing.T) {
	r := startWithAdmin(t, "address = \":0\"\ntls = true")
	const stranger = "203.0.113.9"
	ops := r.operations()
	try := func(token string) access.Reason {
		_, err := r.server.access.Tokens.Actor(t.Context(), token, stranger)
		return access.ReasonOf(err)
	}
	for i := 0; try(fmt.Sprint("pst_wrong", i)) != access.ReasonLockedOut; i++ {
		if i > 100 {
			t.Fatal("it is never locked out")
		}
	}
	r.eventually("the lockout lifted by the command line", func() bool { // it is not stored at once
		u, err := ops.Accounts.Unlock(t.Context(), machineOwner, stranger)
		return err == nil && len(u.Lifted) == 1
	})
	r.eventually("another try", func() bool { return try("pst_wrong") == access.ReasonToken })
	if err := r.login(rigLogin, rigPassword, netip.MustParseAddr(stranger)); err != nil {
		t.Errorf("by SMTP: %v", err)
	}
}

// TestLockoutsOfOthers: a node takes over who another has locked out, and a changed account ends its lockout whatever
// the clock said where it was changed.
func TestLockoutsOfOthers(t *testing.T) {
	r := newRig(t, newProvider(t), tenStrikes)
	s := r.store()
	lock := auth.Lock{Login: rigLogin, Until: time.Now().Add(10 * time.Minute), Failures: 12}
	for _, wrong := range []time.Duration{-time.Hour, time.Hour} {
		if err := s.LoginLockout().Save(t.Context(), time.Now(), auth.Unsaved{Locks: []auth.Lock{lock}}); err != nil {
			t.Fatal(err)
		}
		stranger := netip.MustParseAddr("203.0.113.77")
		until := func() time.Time { return r.server.accounts.LockedUntil(rigLogin, stranger) }
		r.eventually("the lock of the other node", func() bool { return !until().IsZero() })
		if err := s.UpdateUser(t.Context(), rigLogin, func(u *auth.User) error {
			u.Changed = time.Now().Add(wrong)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		r.eventually("the end of the lock", func() bool { return until().IsZero() })
		r.eventually("the end of the lock in the store", func() bool {
			locks, err := s.Lockouts(t.Context(), time.Now())
			return err == nil && len(locks) == 0
		})
	}
}
