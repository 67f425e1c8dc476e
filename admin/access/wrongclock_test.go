package access

import (
	"net/netip"
	"testing"
	"time"

	"postern/auth"
	"postern/operate"
)

// TestLockOfAWrongClock: a lock that was written while the clock was years ahead keeps nobody out for years.
func TestLockOfAWrongClock(t *testing.T) {
	r := newRig(t)
	secret, _ := r.join("anna", operate.Admin)
	now := time.Now()
	err := r.store.ConsoleLockout().Save(t.Context(), now, auth.Unsaved{Locks: []auth.Lock{{
		Client: netip.MustParsePrefix("198.51.100.1/32"), Until: now.AddDate(4, 0, 0), Failures: 5}}})
	if err != nil {
		t.Fatal(err)
	}
	again := newRig(t, func(o *Options) { o.Store, o.Now = r.store, func() time.Time { return r.clock.now } })
	_, err = again.Logins.Login(t.Context(), Credentials{"anna", password, r.code(secret)}, "198.51.100.1")
	until := again.core.auth.LockedUntil("anna", netip.MustParseAddr("198.51.100.1"))
	if until.After(now.Add(2 * time.Hour)) {
		t.Errorf("locked out until %s, %v", until, err)
	}
}
