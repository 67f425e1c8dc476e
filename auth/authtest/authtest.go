// Package authtest holds the contracts of package auth's interfaces as tests, and an in-memory user store that passes
// them.
package authtest

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"time"

	"postern/auth"
)

// Users is an auth.UserStore in memory.
type Users struct {
	mu sync.Mutex
	m  map[string]auth.User
}

// NewUsers returns a store with these users.
func NewUsers(list ...auth.User) *Users {
	u := &Users{m: make(map[string]auth.User)}
	for _, user := range list {
		u.Put(user)
	}
	return u
}

// Put adds or replaces a user.
func (u *Users) Put(user auth.User) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.m[user.Login] = user
}

// User implements auth.UserStore.
func (u *Users) User(_ context.Context, login string) (auth.User, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	user, ok := u.m[login]
	if !ok {
		return auth.User{}, auth.ErrUnknownLogin
	}
	return user, nil
}

// RunUserStore tests a UserStore, to which put adds or replaces a user.
func RunUserStore(t *testing.T, store auth.UserStore, put func(*testing.T, auth.User)) {
	now := time.Date(2026, 11, 22, 8, 30, 0, 123e6, time.UTC)
	want := auth.User{
		Login: "anna@example.com", Hash: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$c3Vt", Generated: true, Device: true,
		Locked: true, LockReason: "sent too much", Senders: []string{"anna@example.com", "*@example.org"},
		Groups:   []string{"staff"},
		Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")},
		Created:  now, Changed: now.Add(time.Hour), Edited: now.Add(2 * time.Hour), Note: "second floor",
	}
	t.Run("every field comes back", func(t *testing.T) {
		put(t, want)
		got, err := store.User(t.Context(), want.Login)
		if err != nil {
			t.Fatal(err)
		}
		if string(got.Hash) != string(want.Hash) {
			t.Fatal("the hash does not come back as it was: was it printed instead of converted?")
		}
		if !got.Created.Equal(want.Created) || !got.Changed.Equal(want.Changed) || !got.Edited.Equal(want.Edited) {
			t.Errorf("times = %s, %s, %s; want %s, %s, %s", got.Created, got.Changed, got.Edited, want.Created,
				want.Changed, want.Edited)
		}
		got.Created, got.Changed, got.Edited = want.Created, want.Changed, want.Edited
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	})
	t.Run("empty lists stay empty", func(t *testing.T) {
		put(t, auth.User{Login: "plain", Hash: "x"})
		got, err := store.User(t.Context(), "plain")
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Senders)+len(got.Groups)+len(got.Networks) != 0 || got.Locked || got.Generated || got.Device {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("the last one counts", func(t *testing.T) {
		put(t, auth.User{Login: "twice", Hash: "one"})
		put(t, auth.User{Login: "twice", Hash: "two"})
		if got, err := store.User(t.Context(), "twice"); err != nil || string(got.Hash) != "two" {
			t.Errorf("hash = %q, %v", string(got.Hash), err)
		}
	})
	t.Run("logins are compared exactly", func(t *testing.T) {
		put(t, auth.User{Login: "exact", Hash: "x"})
		for _, login := range []string{"nobody", "", "EXACT", "exact ", "exac%", "exac_", "exact\x00"} {
			if got, err := store.User(t.Context(), login); !errors.Is(err, auth.ErrUnknownLogin) {
				t.Errorf("User(%q) = %q, %v; want ErrUnknownLogin", login, got.Login, err)
			}
		}
	})
}

// Fixture is what a source under test must know: two logins and their passwords, one of them locked.
type Fixture struct {
	Login, Password             string
	LockedLogin, LockedPassword string // no locked login: empty
	// Merges says that the source cannot tell an unknown login from a wrong password.
	Merges bool
	// LockShows says that the source tells of a lock only with the right password, as Active Directory does.
	LockShows bool
}

// RunSource tests a Source.
func RunSource(t *testing.T, s auth.Source, f Fixture) {
	if s.Name() == "" {
		t.Error("the source has no name for the log")
	}
	for _, c := range []struct {
		name, login, password string
		want                  error
	}{
		{"right password", f.Login, f.Password, nil},
		{"wrong password", f.Login, f.Password + "x", auth.ErrWrongPassword},
		{"password in another case", f.Login, f.Password + "X", auth.ErrWrongPassword},
		{"empty password", f.Login, "", auth.ErrWrongPassword},
		{"password with a NUL", f.Login, f.Password + "\x00", auth.ErrWrongPassword},
		{"unknown login", f.Login + "x", f.Password, auth.ErrUnknownLogin},
		{"pattern for a login", "*", f.Password, auth.ErrUnknownLogin},
		{"injection", f.Login + "' or '1'='1", f.Password, auth.ErrUnknownLogin},
		{"locked, right password", f.LockedLogin, f.LockedPassword, auth.ErrLocked},
		{"locked, wrong password", f.LockedLogin, f.LockedPassword + "x", auth.ErrLocked},
	} {
		if c.login == "" {
			continue
		}
		if f.Merges && c.want == auth.ErrUnknownLogin || f.LockShows && c.name == "locked, wrong password" {
			c.want = auth.ErrWrongPassword
		}
		t.Run(c.name, func(t *testing.T) {
			id, err := s.Verify(t.Context(), c.login, c.password)
			if !errors.Is(err, c.want) {
				t.Fatalf("Verify = %+v, %v; want %v", id, err, c.want)
			}
			if err != nil && !reflect.DeepEqual(id, auth.Identity{}) {
				t.Errorf("a refused login has an identity: %+v", id)
			}
		})
	}
	t.Run("an end of patience is the source's trouble", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := s.Verify(ctx, f.Login, f.Password+"x")
		if errors.Is(err, auth.ErrUnknownLogin) {
			t.Errorf("Verify with a context that is done = %v: a known login was denied", err)
		}
	})
}
