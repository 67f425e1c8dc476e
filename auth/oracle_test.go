package auth

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"postern/mail"
)

// TestWorkTellsNothing: whatever is refused, a right password costs as many hashes as a wrong one, is answered in the
// same words, and brings the lockout as near. Hashes are counted, not timed: they are all that takes time.
func TestWorkTellsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		login, right string
		before       func(t *testing.T, r *rig) // that brings about that right is refused
	}{
		"outside its networks": {"office", "right", nil},
		"outside its networks, verified inside before": {"office", "right",
			func(t *testing.T, r *rig) { wantOK(t, r.try("office", "right", here)) }},
		"outside its networks, verified long ago": {"office", "right", func(t *testing.T, r *rig) {
			wantOK(t, r.try("office", "right", here))
			r.Forget()
		}},
		"outside its networks since a moment ago": {"anna", "right", func(t *testing.T, r *rig) {
			wantOK(t, r.try("anna", "right", there))
			r.users.put(User{Login: "anna", Hash: fakeChosen("right"), Networks: prefixes("192.0.2.0/24")})
			r.Forget("anna")
		}},
		"generated, outside its networks": {"scanner", "k3m9p-right", func(t *testing.T, r *rig) {
			r.users.put(User{Login: "scanner", Hash: HashGenerated(testPepper, "k3m9p-right"), Generated: true,
				Networks: prefixes("192.0.2.0/24")})
		}},
		"generated, outside its networks, verified inside before": {"scanner", "k3m9p-right",
			func(t *testing.T, r *rig) {
				r.users.put(User{Login: "scanner", Hash: HashGenerated(testPepper, "k3m9p-right"), Generated: true,
					Networks: prefixes("192.0.2.0/24")})
				wantOK(t, r.try("scanner", "k3m9p-right", here))
			}},
		"locked":            {"locked", "right", nil},
		"locked, generated": {"lockedprinter", "k3m9p-right", nil},
		"locked since a moment ago": {"anna", "right", func(t *testing.T, r *rig) {
			wantOK(t, r.try("anna", "right", here))
			r.users.put(User{Login: "anna", Hash: fakeChosen("right"), Locked: true})
			r.Forget("anna")
		}},
		"unknown":               {"nobody", "right", nil},
		"the address is locked": {"anna", "right", func(t *testing.T, r *rig) { guess(t, r, "nobody", 3, there) }},
		"the login is locked": {"anna", "right", func(t *testing.T, r *rig) {
			for i := range 3 {
				guess(t, r, "anna", 1, from(i))
			}
		}},
		"the address is locked and the account too, right before": {"anna", "right", func(t *testing.T, r *rig) {
			wantOK(t, r.try("anna", "right", here))
			r.users.put(User{Login: "anna", Hash: fakeChosen("right"), Locked: true})
			r.Forget("anna")
			guess(t, r, "nobody", 3, there)
		}},
		"the address is locked and outside its networks": {"office", "right", func(t *testing.T, r *rig) {
			wantOK(t, r.try("office", "right", here))
			guess(t, r, "nobody", 3, there)
		}},
		"the address is locked and outside its networks, generated": {"scanner", "k3m9p-right",
			func(t *testing.T, r *rig) {
				r.users.put(User{Login: "scanner", Hash: HashGenerated(testPepper, "k3m9p-right"), Generated: true,
					Networks: prefixes("192.0.2.0/24")})
				guess(t, r, "nobody", 3, there)
			}},
		"an app password, outside its networks": {"oda", "app-oda", func(_ *testing.T, r *rig) {
			addApps(r).edit("oda", func(k *AppPassword) { k.Networks = prefixes("192.0.2.0/24") })
		}},
		"an app password, outside the networks of its login": {"office", "app-office",
			func(_ *testing.T, r *rig) { addApps(r) }},
		"an app password, outside its networks, verified inside before": {"oda", "app-oda",
			func(t *testing.T, r *rig) {
				addApps(r).edit("oda", func(k *AppPassword) { k.Networks = prefixes("192.0.2.0/24") })
				wantOK(t, r.try("oda", "app-oda", here))
			}},
		"an app password that has expired": {"oda", "app-oda", func(_ *testing.T, r *rig) {
			addApps(r).edit("oda", func(k *AppPassword) { k.Expires = k.Created })
		}},
		"an app password of a locked account": {"locked", "app-locked", func(_ *testing.T, r *rig) { addApps(r) }},
		"an app password of a locked person": {"oda", "app-oda", func(_ *testing.T, r *rig) {
			addApps(r)
			r.lockLogin("oda")
		}},
		"an app password of an account that left": {"gone", "app-gone", func(_ *testing.T, r *rig) { addApps(r) }},
		"of a source that does not count":         {"anna", "right", func(_ *testing.T, r *rig) { r.only = elsewhere }},
		"of a source that does not count, right before": {"anna", "right", func(t *testing.T, r *rig) {
			wantOK(t, r.try("anna", "right", here))
			r.only = elsewhere
		}},
		"of a source that does not count, right before from there": {"anna", "right", func(t *testing.T, r *rig) {
			wantOK(t, r.try("anna", "right", there))
			r.only = elsewhere
		}},
		"of a source that does not count, the address is locked": {"anna", "right", func(t *testing.T, r *rig) {
			wantOK(t, r.try("anna", "right", here))
			guess(t, r, "nobody", 3, there)
			r.only = elsewhere
		}},
		"generated, of a source that does not count": {"scanner", "k3m9p-right", func(t *testing.T, r *rig) {
			r.users.put(User{Login: "scanner", Hash: HashGenerated(testPepper, "k3m9p-right"), Generated: true})
			r.only = elsewhere
		}},
		"an app password where none counts": {"oda", "app-oda", func(_ *testing.T, r *rig) {
			addApps(r)
			r.only = elsewhere
		}},
		"an app password, the address is locked and the account too": {"locked", "app-locked",
			func(t *testing.T, r *rig) {
				addApps(r)
				guess(t, r, "nobody", 3, there)
			}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				right, wrong := workOf(t, c.login, c.right, c.before), workOf(t, c.login, "wrong", c.before)
				if !slices.Equal(right, wrong) {
					t.Errorf("the right password\n%q\na wrong one\n%q", right, wrong)
				}
			})
		})
	}
}

// elsewhere are sources that know nobody.
var elsewhere = []string{"elsewhere"}

// workOf tries a password again and again and returns what an outsider could measure.
func workOf(t *testing.T, login, password string, before func(*testing.T, *rig)) (seen []string) {
	t.Helper()
	r := newRig(t, Options{Lockout: threeStrikes})
	if before != nil {
		before(t, r)
	}
	for _, pause := range []time.Duration{0, time.Second, wrongTTL, time.Second} {
		time.Sleep(pause)
		hashes := r.hashes.Load()
		reply, _ := mail.ReplyFor(r.try(login, password, there))
		seen = append(seen, fmt.Sprintf("%d hashes, %s", r.hashes.Load()-hashes, reply))
	}
	for i := range 3 { // how far is the lock?
		hashes := r.hashes.Load()
		r.try(login, fmt.Sprint("another", i), there)
		seen = append(seen, fmt.Sprint(r.hashes.Load()-hashes, " hashes"))
	}
	return append(seen, fmt.Sprint(len(r.locks), " locks"))
}

// TestOldPasswordTellsNothingTwice: one that was right before it was changed lets through a lock once, then never
// again.
func TestOldPasswordTellsNothingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{Lockout: threeStrikes})
		wantOK(t, r.try("anna", "right", here))
		r.users.put(User{Login: "anna", Hash: fakeChosen("newer")})
		r.Forget("anna")
		for i := range 3 {
			guess(t, r, "anna", 1, from(i))
		}
		wantRefusal(t, r.try("anna", "right", there), 535, ErrWrongPassword)
		time.Sleep(2 * wrongTTL)
		hashes := r.hashes.Load()
		wantRefusal(t, r.try("anna", "right", there), 535, ErrLockedOut)
		if r.hashes.Load() != hashes {
			t.Error("an old password is still worth a hash")
		}
	})
}
