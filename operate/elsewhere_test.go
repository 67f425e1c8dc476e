package operate_test

import (
	"testing"

	"postern/operate"
)

// TestElsewhere: a login that has no account in the store is shown, locked and unlocked if somebody uses app passwords
// by it, or if it is locked; others are not found.
func TestElsewhere(t *testing.T) {
	o := newOffice(t)
	const dora = "dora@example.com"
	show := func(login string) (operate.Detailed, error) {
		return o.Accounts.Show(t.Context(), root, operate.Everybody, login)
	}
	v, err := show(dora)
	o.must(err)
	if v.Kind != operate.KindElsewhere || v.Password != operate.KindElsewhere || v.Locked || len(v.AppPasswords) != 1 ||
		v.Changed.IsZero() || !v.Created.IsZero() {
		t.Errorf("%+v", v)
	}
	for _, m := range v.Mechanisms {
		if want := m.Name == "PLAIN" || m.Name == "LOGIN"; m.Can != want {
			t.Errorf("%+v", m)
		}
	}
	o.must(o.Accounts.Lock(t.Context(), root, dora, "left"))
	if v, err = show("Dora@Example.com"); err != nil || !v.Locked || v.LockReason != "left" {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := o.AppPasswords.Forget(t.Context(), root, dora); err != nil {
		t.Fatal(err)
	}
	if v, err = show(dora); err != nil || !v.Locked || len(v.AppPasswords) != 0 {
		t.Errorf("locked, and nobody's: %+v, %v", v, err)
	}
	if u, err := o.Accounts.Unlock(t.Context(), root, dora); err != nil || !u.Account {
		t.Errorf("%+v, %v", u, err)
	}
	for _, login := range []string{dora, "nobody@example.com"} {
		_, err := show(login)
		if kind, _ := operate.KindOf(err); kind != operate.NotFound {
			t.Errorf("%s: %v", login, err)
		}
	}
	_, err = o.Accounts.Show(t.Context(), root, operate.DevicesOnly, dora)
	if kind, _ := operate.KindOf(err); kind != operate.NotFound {
		t.Errorf("as a device: %v", err)
	}
}
