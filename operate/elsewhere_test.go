package operate_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"postern/auth"
	"postern/operate"
	"postern/relay/config"
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

// TestLockOfAnAlias: what a source calls by another login cannot be locked by the one that was typed, which would keep
// nobody out who types another. A source that does not answer keeps nobody from locking.
func TestLockOfAnAlias(t *testing.T) {
	o := newOffice(t)
	asked := map[string]auth.Identity{"carl": {Login: "carl@example.com", Source: "office"},
		"carl@example.com": {Login: "carl@example.com", Source: "office"}, "dora@example.com": {}}
	c := *o.AppPasswords.Config()
	c.Auth.Sources = []config.AuthSource{{Type: config.SourceStore}, {Type: "ldap", Name: "office"}}
	ops := operate.New(operate.Options{Store: o.store, Config: func() *config.Config { return &c },
		Lookup: func(_ context.Context, login string) (auth.Identity, error) {
			if id, ok := asked[login]; ok {
				return id, nil
			}
			return auth.Identity{}, errors.New("connection refused")
		}})
	err := ops.Accounts.Lock(t.Context(), root, "Carl", "left")
	if kind, _ := operate.KindOf(err); kind != operate.Conflict || !strings.Contains(err.Error(), "carl@example.com") {
		t.Errorf("%v", err)
	}
	for _, login := range []string{"Carl@example.com", "dora@example.com", "emil"} {
		o.must(ops.Accounts.Lock(t.Context(), root, login, "left"))
	}
	locks, err := o.store.LoginLocks(t.Context())
	if err != nil || len(locks) != 3 || locks[0].Login != "carl@example.com" {
		t.Errorf("%+v, %v", locks, err)
	}
}

// TestLoginsThatNobodyWouldAdd: other sources have logins that the store would not take. They are locked, unlocked and
// shown, and get app passwords, like others.
func TestLoginsThatNobodyWouldAdd(t *testing.T) {
	o := newOffice(t)
	c := *o.AppPasswords.Config()
	c.Auth.Sources = []config.AuthSource{{Type: config.SourceStore}, {Type: "ldap", Name: "office"}}
	ops := operate.New(operate.Options{Store: o.store, Config: func() *config.Config { return &c },
		Lookup: func(_ context.Context, login string) (auth.Identity, error) {
			return auth.Identity{Login: login, Source: "office"}, nil
		}})
	for _, login := range []string{"o'brien@example.com", `corp\carl`, "anna schmidt", "a&b"} {
		_, err := o.store.LockLogin(t.Context(), auth.LoginLock{Login: login, By: "over_limit"})
		o.must(err)
		if v, err := ops.Accounts.Show(t.Context(), root, operate.Everybody, login); err != nil || !v.Locked {
			t.Errorf("%s: %+v, %v", login, v, err)
		}
		if u, err := ops.Accounts.Unlock(t.Context(), root, login); err != nil || !u.Account {
			t.Errorf("%s: %+v, %v", login, u, err)
		}
		if err := ops.Accounts.Lock(t.Context(), root, strings.ToUpper(login), "left"); err != nil {
			t.Errorf("%s: %v", login, err)
		}
		if _, err := ops.Accounts.Unlock(t.Context(), root, login); err != nil {
			t.Errorf("%s: %v", login, err)
		}
		made, err := ops.AppPasswords.Add(t.Context(), root, operate.NewAppPassword{Login: login, Name: "printer"})
		if err != nil || made.Login != login {
			t.Errorf("%s: %+v, %v", login, made.Login, err)
			continue
		}
		if n, err := ops.AppPasswords.Forget(t.Context(), root, login); err != nil || n != 1 {
			t.Errorf("%s: %d, %v", login, n, err)
		}
		_, err = ops.Accounts.Add(t.Context(), root, operate.NewAccount{Login: login})
		if kind, _ := operate.KindOf(err); kind != operate.Invalid {
			t.Errorf("the store has taken %s: %v", login, err)
		}
	}
}
