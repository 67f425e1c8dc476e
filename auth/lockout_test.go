package auth

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

var threeStrikes = Lockout{Failures: 3, Window: 10 * minute, Duration: 15 * minute}

func guess(t *testing.T, r *rig, login string, n int, client netip.Addr) {
	t.Helper()
	for i := range n {
		wantRefusal(t, r.try(login, fmt.Sprintf("guess-%s-%d", client, i), client), 535, nil)
	}
}

func TestAddressThatGuesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{Lockout: threeStrikes})
		for i := range 3 { // one password against many logins
			wantRefusal(t, r.try(fmt.Sprintf("user%d", i), "Summer2026", there), 535, ErrUnknownLogin)
		}
		before := r.hashes.Load()
		wantRefusal(t, r.try("anna", "right", there), 535, ErrLockedOut)
		if r.hashes.Load() != before {
			t.Error("a locked address made us hash")
		}
		wantOK(t, r.try("anna", "right", here)) // others are not concerned
		time.Sleep(15*minute + time.Second)
		wantOK(t, r.try("anna", "right", there))
		if len(r.locks) != 1 || r.locks[0].Login != "" ||
			r.locks[0].Client != netip.MustParsePrefix("198.51.100.7/32") {
			t.Errorf("locks reported: %+v", r.locks)
		}
	})
}

func TestIPv6CountsByNetwork(t *testing.T) {
	r := newRig(t, Options{Lockout: threeStrikes})
	for i := range 3 {
		client := netip.MustParseAddr(fmt.Sprintf("2001:db8:1:2::%d", i+1))
		wantRefusal(t, r.try("nobody", fmt.Sprint("guess", i), client), 535, ErrUnknownLogin)
	}
	wantRefusal(t, r.try("anna", "right", netip.MustParseAddr("2001:db8:1:2:ffff::1")), 535, ErrLockedOut)
	wantOK(t, r.try("anna", "right", netip.MustParseAddr("2001:db8:1:3::1")))
	if p := prefixOf(netip.MustParseAddr("::ffff:192.0.2.1")); p != netip.MustParsePrefix("192.0.2.1/32") {
		t.Errorf("a mapped address counts as %s", p)
	}
}

func TestLoginThatIsGuessedFromManyPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{Lockout: threeStrikes})
		for i := range 3 {
			guess(t, r, "anna", 1, from(i))
		}
		before := r.hashes.Load()
		wantRefusal(t, r.try("anna", "guess", from(99)), 535, ErrLockedOut)
		if r.hashes.Load() != before {
			t.Error("a locked login made us hash")
		}
		wantOK(t, r.try("office", "right", here)) // other logins are not concerned
		time.Sleep(15*minute + time.Second)
		wantOK(t, r.try("anna", "right", from(99)))
	})
}

// TestOutsiderCannotTakeALogin: whoever uses a login goes on using it while others guess at it.
func TestOutsiderCannotTakeALogin(t *testing.T) {
	attack := func(t *testing.T, r *rig, login string) {
		t.Helper()
		for i := range 10 {
			guess(t, r, login, 2, from(i))
		}
		wantRefusal(t, r.try(login, "one more guess", from(99)), 535, ErrLockedOut)
	}
	t.Run("a verified credential, from anywhere", func(t *testing.T) {
		r := newRig(t, Options{Lockout: threeStrikes})
		wantOK(t, r.try("anna", "right", here))
		attack(t, r, "anna")
		wantOK(t, r.try("anna", "right", here))
		wantOK(t, r.try("anna", "right", there))
	})
	t.Run("a credential that was verified long ago", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, Options{Lockout: threeStrikes})
			wantOK(t, r.try("anna", "right", here))
			time.Sleep(30 * 24 * time.Hour)
			attack(t, r, "anna")
			wantOK(t, r.try("anna", "right", there))
		})
	})
	t.Run("a new password, from where the old one was used", func(t *testing.T) {
		r := newRig(t, Options{Lockout: threeStrikes})
		wantOK(t, r.try("anna", "right", here))
		r.users.put(User{Login: "anna", Hash: fakeChosen("newer")})
		r.Authenticator.cache.forget(nil) // as Forget() does
		attack(t, r, "anna")
		wantOK(t, r.try("anna", "newer", here))
	})
	t.Run("a generated password", func(t *testing.T) {
		r := newRig(t, Options{Lockout: threeStrikes})
		attack(t, r, "printer")
		wantOK(t, r.try("printer", "k3m9p-right", there))
	})
	t.Run("neighbours of an address that guesses", func(t *testing.T) {
		r := newRig(t, Options{Lockout: threeStrikes})
		wantOK(t, r.try("anna", "right", here))
		guess(t, r, "nobody", 4, here)
		wantRefusal(t, r.try("office", "right", here), 535, ErrLockedOut) // not seen from here before
		wantOK(t, r.try("anna", "right", here))
		r.users.put(User{Login: "anna", Hash: fakeChosen("newer")})
		r.Authenticator.cache.forget(nil)
		wantOK(t, r.try("anna", "newer", here))
	})
}

// TestKnownPairHasItsOwnCounter: who logged in from here may mistype without counting for the rest of
// the office, and is locked out alone.
func TestKnownPairHasItsOwnCounter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{Lockout: threeStrikes})
		wantOK(t, r.try("anna", "right", here))
		r.users.put(User{Login: "anna", Hash: fakeChosen("newer")})
		r.Authenticator.cache.forget(nil)
		guess(t, r, "anna", 3, here)
		wantRefusal(t, r.try("anna", "newer", here), 535, ErrLockedOut)
		wantOK(t, r.try("anna", "newer", there))  // only from here
		wantOK(t, r.try("anna", "newer", here))   // and now it is known as right
		wantOK(t, r.try("office", "right", here)) // nobody else
		if len(r.locks) != 1 || r.locks[0].Login != "anna" || !r.locks[0].Client.IsValid() || r.locks[0].Failures != 3 {
			t.Errorf("locks reported: %+v", r.locks)
		}
		guess(t, r, "anna", 1, here) // refused unseen: does not prolong it
		time.Sleep(15*minute + time.Second)
		r.users.put(User{Login: "anna", Hash: fakeChosen("newest")})
		r.Authenticator.cache.forget(nil)
		wantOK(t, r.try("anna", "newest", here))
	})
}

func TestPairGrowsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{Lockout: threeStrikes})
		wantOK(t, r.try("anna", "right", here))
		time.Sleep(recent + time.Hour)
		guess(t, r, "anna", 3, here)
		wantRefusal(t, r.try("office", "right", here), 535, ErrLockedOut) // counted for the address again
	})
}

// TestKnownWrongCountsFromEachPlace: guesses that are refused from memory, because another place made
// them a moment ago, count for the place all the same.
func TestKnownWrongCountsFromEachPlace(t *testing.T) {
	r := newRig(t, Options{Lockout: threeStrikes})
	for _, client := range []netip.Addr{here, there} {
		for i := range 3 {
			r.try("nobody", fmt.Sprint("guess", i), client)
		}
		wantRefusal(t, r.try("anna", "right", client), 535, ErrLockedOut)
	}
	if n := r.hashes.Load(); n != 3 {
		t.Errorf("%d hashes, want 3", n)
	}
}

// TestNothingCountsWhileLocked: what still arrives, or was on its way, does not fill the next counter.
func TestNothingCountsWhileLocked(t *testing.T) {
	l := newLockout(Lockout{Failures: 2, Window: time.Hour, Duration: minute})
	now, place := time.Unix(1e9, 0), prefixOf(there)
	for i := range 9 {
		l.failed(now, "anna", place, uint64(i))
	}
	now = now.Add(2 * minute)
	if locks := l.failed(now, "anna", place, 99); len(locks) != 0 || !l.locked(now, "anna", place).IsZero() {
		t.Error("one failure after the lock locks again")
	}
}

func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{Lockout: threeStrikes})
		for i := range 20 { // never three within ten minutes
			wantRefusal(t, r.try("anna", fmt.Sprint("guess", i), there), 535, ErrWrongPassword)
			time.Sleep(5*minute + time.Second)
		}
		wantOK(t, r.try("anna", "right", there))
	})
}

// TestRightPasswordFromElsewhereIsNoOracle: outside its networks the right password must count like a
// wrong one, or the lockout would tell them apart.
func TestRightPasswordFromElsewhereIsNoOracle(t *testing.T) {
	r := newRig(t, Options{Lockout: threeStrikes})
	guess(t, r, "office", 2, there)
	wantRefusal(t, r.try("office", "right", there), 535, ErrNetwork)
	wantRefusal(t, r.try("office", "one more", there), 535, ErrLockedOut)
	before := r.hashes.Load()
	r.Forget()
	wantRefusal(t, r.try("office", "right", there), 535, ErrLockedOut) // although it was right once
	if r.hashes.Load() != before {
		t.Error("a right password costs a hash while a wrong one does not")
	}
}

func TestUnlockByPerson(t *testing.T) {
	r := newRig(t, Options{Lockout: threeStrikes})
	for i := range 3 {
		guess(t, r, "anna", 1, from(i))
	}
	wantRefusal(t, r.try("anna", "right", there), 535, ErrLockedOut)
	r.Forget() // some user changed: no reason to let guessers go on
	wantRefusal(t, r.try("anna", "right", there), 535, ErrLockedOut)
	r.Forget("anna")
	wantOK(t, r.try("anna", "right", there))
}

func TestLockoutOff(t *testing.T) {
	r := newRig(t, Options{})
	guess(t, r, "anna", 100, there)
	wantOK(t, r.try("anna", "right", there))
	r.SetLockout(threeStrikes)
	guess(t, r, "office", 3, there)
	wantRefusal(t, r.try("nobody", "other", there), 535, ErrLockedOut)
}

// TestGuessesTogether: guesses that arrive at the same moment are not all verified before the first is
// counted.
func TestGuessesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const parallel = 2
		r := newRig(t, Options{HashParallel: parallel, Lockout: threeStrikes})
		r.onLock = nil
		release := make(chan struct{})
		r.during = func() { <-release }
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() { r.try("anna", fmt.Sprint("guess", i), there) })
		}
		synctest.Wait()
		close(release)
		wg.Wait()
		if n := r.hashes.Load(); n > int64(threeStrikes.Failures+parallel-1) {
			t.Errorf("%d guesses were verified, want at most %d", n, threeStrikes.Failures+parallel-1)
		}
	})
}

func TestCountersAreBounded(t *testing.T) {
	l := newLockout(threeStrikes)
	now := time.Now()
	for i := range maxCounters + 1000 {
		l.failed(now, fmt.Sprint("login", i), prefixOf(from(i)), uint64(i))
	}
	for i := range maxPairs + 1000 {
		l.succeeded(now, fmt.Sprint("login", i), prefixOf(here))
	}
	if l.logins.Len() > maxCounters || l.clients.Len() > maxCounters || l.pairs.Len() > maxPairs {
		t.Errorf("%d logins, %d clients, %d pairs", l.logins.Len(), l.clients.Len(), l.pairs.Len())
	}
}

// TestLockoutNeverExceeds: from one place, whatever the order and the time between, no more distinct
// wrong passwords are verified than the numbers allow.
func TestLockoutNeverExceeds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := Lockout{
			Failures: rapid.IntRange(1, 5).Draw(t, "failures"),
			Window:   time.Duration(rapid.IntRange(1, 20).Draw(t, "window")) * minute,
			Duration: time.Duration(rapid.IntRange(1, 20).Draw(t, "duration")) * minute,
		}
		l := newLockout(rules)
		now := time.Unix(1e9, 0)
		place := prefixOf(there)
		verified := map[uint64][]time.Time{}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "pause")) * time.Second)
			if !l.locked(now, "anna", place).IsZero() {
				continue
			}
			c := rapid.Uint64Range(0, 50).Draw(t, "password")
			l.failed(now, "anna", place, c)
			verified[c] = append(verified[c], now)
			distinct := 0
			for _, times := range verified {
				if now.Sub(times[len(times)-1]) < min(rules.Window, rules.Duration) {
					distinct++
				}
			}
			if distinct > rules.Failures {
				t.Fatalf("%d distinct passwords were verified within %s, want at most %d", distinct,
					min(rules.Window, rules.Duration), rules.Failures)
			}
		}
	})
}

func TestInvalidClient(t *testing.T) {
	r := newRig(t, Options{Lockout: threeStrikes})
	_, err := r.Authenticate(context.Background(), "anna", "right", netip.Addr{})
	wantOK(t, err)
	_, err = r.Authenticate(context.Background(), "office", "right", netip.Addr{})
	wantRefusal(t, err, 535, ErrNetwork)
}

// TestOneNetworkCannotLockALogin: whoever guesses from one address, or from all of one IPv6 site, locks out nobody but
// itself.
func TestOneNetworkCannotLockALogin(t *testing.T) {
	site := func(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8:7:%x::1", i)) }
	for name, from := range map[string]func(i int) netip.Addr{
		"one address": func(int) netip.Addr { return there },
		"one IPv6 network": func(i int) netip.Addr {
			return netip.MustParseAddr(fmt.Sprintf("2001:db8:7:1::%x",
				i+1))
		},
		"one IPv6 site":         site,
		"two addresses":         func(i int) netip.Addr { return []netip.Addr{there, from(1)}[i%2] },
		"an address and a site": func(i int) netip.Addr { return []netip.Addr{there, site(i)}[i%2] },
	} {
		for _, failures := range []int{1, 2, 3, 10} {
			t.Run(fmt.Sprint(name, ", failures = ", failures), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t, Options{Lockout: Lockout{Failures: failures, Window: 10 * minute,
						Duration: 5 * minute}})
					for i := range 200 { // an hour: locks end, and windows overlap
						wantRefusal(t, r.try("anna", fmt.Sprint("guess", i), from(i)), 535, nil)
						time.Sleep(20 * time.Second)
					}
					for i := range 50 {
						// not known from before
						r.users.put(User{Login: "anna", Hash: fakeChosen(fmt.Sprint("right", i))})
						r.Authenticator.cache.forget(nil)
						wantOK(t, r.try("anna", fmt.Sprint("right", i), netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})))
					}
					for _, l := range r.locks {
						if l.Login != "" {
							t.Fatalf("the login was locked: %+v", l)
						}
					}
				})
			})
		}
	}
}

// TestIPv6SiteIsLockedTogether: guesses spread over the networks of a site are stopped without a lock of the login.
func TestIPv6SiteIsLockedTogether(t *testing.T) {
	r := newRig(t, Options{Lockout: threeStrikes})
	site := func(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8:7:%x::1", i)) }
	for i := range threeStrikes.Failures * wideFactor {
		wantRefusal(t, r.try("anna", fmt.Sprint("guess", i), site(i)), 535, ErrWrongPassword)
	}
	wantRefusal(t, r.try("anna", "right", site(99)), 535, ErrLockedOut)
	wantOK(t, r.try("anna", "right", netip.MustParseAddr("2001:db8:8::1")))
	if len(r.locks) != 1 || r.locks[0].Client != netip.MustParsePrefix("2001:db8:7::/48") {
		t.Errorf("locks reported: %+v", r.locks)
	}
}

// TestManyNetworksLockALogin: the same guesses from several networks do, and no more of them are verified than that
// takes.
func TestManyNetworksLockALogin(t *testing.T) {
	for _, failures := range []int{1, 2, 3, 10} {
		r := newRig(t, Options{Lockout: Lockout{Failures: failures, Window: 10 * minute, Duration: 15 * minute}})
		guesses := max(failures, placesOfLogin)
		for i := range guesses {
			wantRefusal(t, r.try("anna", fmt.Sprint("guess", i), from(i)), 535, ErrWrongPassword)
		}
		wantRefusal(t, r.try("anna", "right", from(99)), 535, ErrLockedOut)
		if n := r.hashes.Load(); n != int64(guesses) {
			t.Errorf("failures = %d: %d guesses were verified, want %d", failures, n, guesses)
		}
	}
}

// restarted returns an Authenticator that knows what another remembered.
func restarted(t *testing.T, old *rig, o Options) *rig {
	t.Helper()
	key := []byte("the key of the places")
	old.lockout.memory.key = key
	u := old.Unsaved()
	r := newRig(t, o)
	r.users = old.users
	r.SetSources([]Source{&storeSource{users: r.users, pepper: testPepper, argon: r.argon}})
	r.Restore(key, u.Places, u.Locks, time.Now())
	return r
}

// TestWhoWorksIsRememberedOverARestart: guesses after a restart, from wherever, lock out nobody who logged in within a
// week.
func TestWhoWorksIsRememberedOverARestart(t *testing.T) {
	ten := Lockout{Failures: 10, Window: 10 * minute, Duration: 15 * minute}
	for name, guesses := range map[string]func(t *testing.T, r *rig){
		"from many addresses": func(t *testing.T, r *rig) {
			for i := range 50 {
				guess(t, r, "anna", 1, from(i))
			}
		},
		"at others, from the same address": func(t *testing.T, r *rig) { guess(t, r, "nobody", 50, here) },
		"at it, from the same address":     func(t *testing.T, r *rig) { guess(t, r, "anna", 50, here) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old := newRig(t, Options{Lockout: ten})
				wantOK(t, old.try("anna", "right", here))
				r := restarted(t, old, Options{Lockout: ten})
				time.Sleep(recent - time.Hour)
				guesses(t, r)
				wantOK(t, r.try("anna", "right", here))
			})
		})
	}
	t.Run("until a week has passed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			old := newRig(t, Options{Lockout: ten})
			wantOK(t, old.try("anna", "right", here))
			r := restarted(t, old, Options{Lockout: ten})
			time.Sleep(recent + time.Hour)
			guess(t, r, "nobody", 10, here)
			wantRefusal(t, r.try("anna", "right", here), 535, ErrLockedOut)
		})
	})
	t.Run("with a bound", func(t *testing.T) {
		old := newRig(t, Options{Lockout: ten})
		wantOK(t, old.try("anna", "right", here))
		r := restarted(t, old, Options{Lockout: ten})
		guess(t, r, "anna", ten.Failures*restartFactor, here)
		wantRefusal(t, r.try("anna", "right", here), 535, ErrLockedOut)
	})
}

// TestLocksOutliveTheProcess: a restart is no way out, and a lock that is taken out of the store is lifted.
func TestLocksOutliveTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newRig(t, Options{Lockout: threeStrikes})
		wantOK(t, old.try("office", "right", here))
		old.users.put(User{Login: "office", Hash: fakeChosen("newer")})
		old.Forget("office")
		guess(t, old, "office", 3, here) // the pair
		guess(t, old, "nobody", 3, there)
		for i := range 3 {
			guess(t, old, "anna", 1, from(i))
		}
		u := old.lockout.unsaved(time.Now())
		if len(u.Locks) != 4 || len(u.Places) != 1 { // and that office's had ended
			t.Fatalf("to be saved: %+v", u)
		}
		old.Again(u)
		r := restarted(t, old, Options{Lockout: threeStrikes})
		wantRefusal(t, r.try("office", "newer", here), 535, ErrLockedOut)
		wantRefusal(t, r.try("printer", "wrong", there), 535, ErrLockedOut)
		wantRefusal(t, r.try("anna", "right", from(99)), 535, ErrLockedOut)
		r.KeepLocks([]Lock{{Login: "anna"}})
		wantOK(t, r.try("office", "newer", here))
		wantRefusal(t, r.try("printer", "wrong", there), 535, ErrWrongPassword)
		wantRefusal(t, r.try("anna", "right", from(99)), 535, ErrLockedOut)
		r.KeepLocks(nil)
		wantOK(t, r.try("anna", "right", from(99)))

		guess(t, r, "anna", 3, from(200)) // a new lock of an address that nobody has saved yet is not lifted
		r.KeepLocks(nil)
		wantRefusal(t, r.try("nobody", "x", from(200)), 535, ErrLockedOut)
		u = r.Unsaved()
		r.Saved(u)
		r.KeepLocks(nil)
		wantRefusal(t, r.try("nobody", "x", from(200)), 535, ErrUnknownLogin)
	})
}

// TestUseCostsFewWrites: a login that is used all day is saved a few times.
func TestUseCostsFewWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{Lockout: threeStrikes})
		writes := 0
		for range 24 * 60 {
			wantOK(t, r.try("anna", "right", here))
			writes += len(r.Unsaved().Places)
			time.Sleep(time.Minute)
		}
		if writes > 4 || writes == 0 {
			t.Errorf("%d writes in a day", writes)
		}
	})
}
