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
	if got, err := s.LoginLockout().places(t.Context(), now); err != nil || !slices.Equal(got, []auth.Place{place}) {
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
	places, err := s.LoginLockout().places(t.Context(), now)
	if err != nil || len(places) != maxPlaces {
		t.Errorf("%d places, %v", len(places), err)
	}
	locks, err := s.Lockouts(t.Context(), now)
	if err != nil || len(locks) != maxLockouts || locks[0].Client.Addr() != netip.MustParseAddr("10.0.0.100") {
		t.Errorf("%d locks, the first %+v, %v", len(locks), locks[0], err)
	}
}
