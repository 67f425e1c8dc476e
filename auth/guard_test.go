package auth

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestOtherProofsCountToTheLockout(t *testing.T) {
	var locks []Lock
	a := New(Options{
		Lockout: Lockout{Failures: 3, Window: time.Minute, Duration: time.Hour},
		OnLock:  func(l Lock) { locks = append(locks, l) },
	})
	now := time.Now()
	anna, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for range 9 {
		a.failed(now, "anna", "code 000000", anna)
	}
	if until := a.LockedUntil("anna", anna); !until.IsZero() || len(locks) > 0 {
		t.Fatalf("one wrong code, sent often, locks until %s: %v", until, locks)
	}
	for i := range 2 {
		a.failed(now, "anna", fmt.Sprintf("code %06d", i+1), anna)
	}
	if a.LockedUntil("anna", anna).IsZero() || len(locks) != 1 || !locks[0].Until.Equal(now.Add(time.Hour)) {
		t.Errorf("three wrong codes lock nothing: %v", locks)
	}
	locks = nil
	for i := range 3 {
		a.failed(now, "", fmt.Sprintf("token %d", i), other)
	}
	if len(locks) != 1 || locks[0].Login != "" || a.LockedUntil("", other).IsZero() || a.LockedUntil("anna",
		other).IsZero() {
		t.Errorf("three wrong tokens do not lock their address: %v", locks)
	}
	for _, from := range []string{"198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4"} {
		a.failed(now, "", "token "+from, netip.MustParseAddr(from))
	}
	if !a.LockedUntil("", netip.MustParseAddr("203.0.113.1")).IsZero() {
		t.Error("tokens of several addresses lock all others")
	}
}

func TestHashChosenWithinBounds(t *testing.T) {
	a := New(Options{HashParallel: 1, HashWait: time.Millisecond})
	hash, err := a.HashChosen(t.Context(), "correct horse")
	if err != nil || !strings.HasPrefix(string(hash), chosenPrefix) {
		t.Fatalf("%v", err)
	}
	if _, err := a.HashChosen(t.Context(), ""); err == nil {
		t.Error("an empty password is hashed")
	}
	a.slots.free <- struct{}{}
	if _, err := a.HashChosen(t.Context(), "correct horse"); err == nil {
		t.Error("more is hashed at once than may be")
	}
}
