package door

import (
	"net/netip"
	"strings"
	"testing"

	"postern/admin/access"
	"postern/operate"
	"postern/relay/store"
)

// TestBehindAProxy: clients of a trusted proxy are told apart: who guesses locks out nobody else, and audit and
// sessions have the true address.
func TestBehindAProxy(t *testing.T) {
	var kept *store.Store
	r := newRig(t, func(o *access.Options) {
		kept = o.Store
		o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	})
	secret := r.join("anna", operate.Admin)
	from := func(addr string) []string { return []string{"X-Forwarded-For", "203.0.113.200, " + addr} }
	for i := range 6 {
		form := r.login("nobody", secret)
		form.Set("password", strings.Repeat("x", 12+i))
		r.ask("/login", form, from("198.51.100.1")...)
	}
	r.http = r.browser()
	r.want("whoever guesses", "/login", r.login("anna", secret), 429, "Too many wrong attempts",
		from("198.51.100.1")...)
	r.want("somebody else", "/login", r.login("anna", secret), 303, "/", from("192.0.2.7")...)
	r.want("the session", "/account", nil, 200, "192.0.2.7", from("192.0.2.7")...)
	entries, err := kept.Audit(t.Context(), store.AuditQuery{Operation: "console login", Limit: 1})
	if err != nil || len(entries) != 1 || entries[0].Client != "192.0.2.7" {
		t.Errorf("the audit has %+v, %v", entries, err)
	}
}
