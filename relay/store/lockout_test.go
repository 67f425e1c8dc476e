package store

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"postern/auth"
)

func TestLockoutRoundTrip(t *testing.T) {
	s := open(t, Options{})
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	address := auth.Lock{Client: netip.MustParsePrefix("192.0.2.1/32"), Until: now.Add(time.Minute), Failures: 10}
	network := auth.Lock{Client: netip.MustParsePrefix("2001:db8::/48"), Until: now.Add(2 * time.Minute), Failures: 40}
	login := auth.Lock{Login: "anna", Until: now.Add(time.Hour), Failures: 12}
	both := auth.Lock{Login: "anna", Client: netip.MustParsePrefix("192.0.2.1/32"), Until: now.Add(time.Hour),
		Failures: 10}
	place := auth.Place{Digest: [16]byte{1, 2, 255}, At: now.Add(-time.Hour)}
	old := auth.Place{Digest: [16]byte{3}, At: now.Add(-placesFor - time.Hour)}
	save := func(at time.Time, u auth.Unsaved) {
		t.Helper()
		if err := s.LoginLockout().Save(t.Context(), at, u); err != nil {
			t.Fatal(err)
		}
	}
	is := func(at time.Time, want ...auth.Lock) {
		t.Helper()
		if got, err := s.Lockouts(t.Context(), at); err != nil || !slices.Equal(got, want) {
			t.Errorf("got %+v, %v\nwant %+v", got, err, want)
		}
	}
	save(now, auth.Unsaved{Places: []auth.Place{place, old}, Locks: []auth.Lock{login, both, network, address}})
	is(now, address, network, login, both)
	is(now.Add(90*time.Second), network, login, both)
	got, err := s.LoginLockout().places(t.Context(), now.Add(-placesFor))
	if err != nil || !slices.Equal(got, []auth.Place{place}) {
		t.Errorf("places %+v, %v", got, err)
	}
	login.Until, login.Failures = now.Add(2*time.Hour), 11 // again
	network.Until = time.Time{}                            // over
	save(now, auth.Unsaved{Locks: []auth.Lock{login, network}})
	is(now, address, login, both)
	before := generation(t, s, TopicLockouts)
	lifted, err := s.LiftLockouts(t.Context(), now, func(l auth.Lock) bool { return l.Client.IsValid() })
	if err != nil || !slices.Equal(lifted, []auth.Lock{address, both}) {
		t.Fatal(lifted, err)
	}
	is(now, login)
	if after := generation(t, s, TopicLockouts); after == before {
		t.Errorf("the daemon is not told: %d and %d", before, after)
	}
}

// TestLockoutIsBounded: whatever guessers do, the table is as small as what the daemon holds in memory.
func TestLockoutIsBounded(t *testing.T) {
	s := open(t, Options{})
	now := time.Now()
	var u auth.Unsaved
	for i := range maxPlaces + 100 {
		p := auth.Place{At: now.Add(time.Duration(i) * time.Millisecond)}
		binary.BigEndian.PutUint32(p.Digest[:], uint32(i))
		u.Places = append(u.Places, p)
		if i < maxLockouts+100 {
			client := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
			u.Locks = append(u.Locks, auth.Lock{Client: netip.PrefixFrom(client, 32),
				Until: now.Add(time.Hour + time.Duration(i)*time.Second)})
		}
	}
	if err := s.LoginLockout().Save(t.Context(), now, u); err != nil {
		t.Fatal(err)
	}
	places, err := s.LoginLockout().places(t.Context(), now.Add(-placesFor))
	if err != nil || len(places) != maxPlaces {
		t.Errorf("%d places, %v", len(places), err)
	}
	locks, err := s.Lockouts(t.Context(), now)
	if err != nil || len(locks) != maxLockouts || locks[0].Client.Addr() != netip.MustParseAddr("10.0.0.100") {
		t.Errorf("%d locks, the first %+v, %v", len(locks), locks[0], err)
	}
}

// TestLockoutIsShared: what one process learns the other knows as soon as it hears of it, and both forget it.
func TestLockoutIsShared(t *testing.T) {
	type process struct {
		store *Store
		auth  *auth.Authenticator
		heard int64
	}
	dir, key, home := t.TempDir(), make([]byte, auth.PlaceKeySize), "192.0.2.1"
	pepper := make([]byte, auth.PepperSize)
	start := func() *process {
		p := &process{store: open(t, Options{Dir: dir})}
		p.auth = auth.New(auth.Options{Lockout: auth.Lockout{Failures: 3, Window: time.Hour, Duration: time.Hour},
			Sources: []auth.Source{auth.NewStoreSource(p.store, pepper)}})
		if err := p.store.LoginLockout().Restore(t.Context(), p.auth, key, time.Now()); err != nil {
			t.Fatal(err)
		}
		return p
	}
	a, b := start(), start()
	if err := a.store.AddUser(t.Context(), auth.User{Login: "anna",
		Hash: auth.HashGenerated(pepper, "right horse"), Generated: true}); err != nil {
		t.Fatal(err)
	}
	isOpen := func(p *process, from string, want bool) {
		t.Helper()
		if until := p.auth.LockedUntil("anna", netip.MustParseAddr(from)); until.IsZero() != want {
			t.Errorf("from %s locked until %v", from, until)
		}
	}
	save := func(p *process) {
		t.Helper()
		if err := p.store.LoginLockout().Keep(t.Context(), p.auth, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(p *process) (lifted []auth.Lock) {
		t.Helper()
		n := generation(t, p.store, TopicLockouts)
		if n == p.heard {
			t.Error("it heard of nothing")
		}
		p.heard = n
		lifted, err := p.store.LoginLockout().Adopt(t.Context(), p.auth, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return lifted
	}
	if _, err := a.auth.Authenticate(t.Context(), "anna", "right horse", netip.MustParseAddr(home)); err != nil {
		t.Fatal(err)
	}
	save(a)
	hear(b)
	for _, from := range []string{"198.51.100.1", "198.51.100.2", "198.51.100.3"} {
		for _, p := range []string{"a", "b", "c"} {
			b.auth.Failed("anna", p+from, netip.MustParseAddr(from))
		}
	}
	if !b.auth.HasNewLocks() {
		t.Error("nothing to save")
	}
	save(b)
	if lifted := hear(a); len(lifted) > 0 || b.auth.HasNewLocks() {
		t.Errorf("lifted %v", lifted)
	}
	hear(b) // its own
	for _, p := range []*process{a, b} {
		isOpen(p, "203.0.113.9", false)  // the login, for strangers
		isOpen(p, "198.51.100.1", false) // the address
		isOpen(p, home, true)            // known at b by a's word
	}
	if _, err := a.store.LiftLockouts(t.Context(), time.Now(), func(auth.Lock) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if la, lb := hear(a), hear(b); len(la) != 4 || len(lb) != 4 {
		t.Errorf("lifted %d and %d", len(la), len(lb))
	}
	isOpen(a, "203.0.113.9", true)
	isOpen(b, "198.51.100.1", true)
}

// A lock that ended here and is not saved yet does not come back from the store, and of two ends the later counts.
func TestLockoutThatEndedHere(t *testing.T) {
	s, now := open(t, Options{}), time.Now()
	l := s.LoginLockout()
	lock := auth.Lock{Login: "anna", Until: now.Add(30 * time.Minute), Failures: 3}
	a := auth.New(auth.Options{Lockout: auth.Lockout{Failures: 3, Window: time.Hour, Duration: time.Hour}})
	if err := l.Save(t.Context(), now, auth.Unsaved{Locks: []auth.Lock{lock}}); err != nil {
		t.Fatal(err)
	}
	earlier := lock
	earlier.Until = now.Add(time.Minute)
	if err := l.Save(t.Context(), now, auth.Unsaved{Locks: []auth.Lock{earlier}}); err != nil {
		t.Fatal(err)
	}
	if locks, err := s.Lockouts(t.Context(), now); err != nil || len(locks) != 1 || !locks[0].Until.Equal(lock.Until) {
		t.Errorf("%v, %v", locks, err)
	}
	for range 2 {
		if lifted, err := l.Adopt(t.Context(), a, now); err != nil || len(lifted) > 0 {
			t.Fatal(lifted, err)
		}
	}
	a.Forget("anna")
	if _, err := l.Adopt(t.Context(), a, now); err != nil {
		t.Fatal(err)
	}
	if err := l.Keep(t.Context(), a, now); err != nil {
		t.Fatal(err)
	}
	if locks, err := s.Lockouts(t.Context(), now); err != nil || len(locks) != 0 {
		t.Errorf("it came back: %v, %v", locks, err)
	}
}
