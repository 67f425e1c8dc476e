package auth_test

import (
	"testing"

	"postern/auth"
	"postern/auth/authtest"
)

func TestStoreSource(t *testing.T) {
	pepper := []byte("a pepper that has 32 octets......")
	hash := func(password string) auth.Secret {
		h, err := auth.HashChosen(password)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	t.Run("chosen", func(t *testing.T) {
		users := authtest.NewUsers(
			auth.User{Login: "anna", Hash: hash("right")},
			auth.User{Login: "gone", Hash: hash("right"), Locked: true},
		)
		authtest.RunSource(t, auth.NewStoreSource(users, pepper), authtest.Fixture{Login: "anna", Password: "right",
			LockedLogin: "gone", LockedPassword: "right"})
	})
	t.Run("generated", func(t *testing.T) {
		p := auth.GeneratePassword()
		users := authtest.NewUsers(
			auth.User{Login: "printer", Hash: auth.HashGenerated(pepper, p), Generated: true},
			auth.User{Login: "gone", Hash: auth.HashGenerated(pepper, p), Generated: true, Locked: true},
		)
		authtest.RunSource(t, auth.NewStoreSource(users, pepper), authtest.Fixture{Login: "printer", Password: p,
			LockedLogin: "gone", LockedPassword: p})
	})
}

func TestUsersInMemory(t *testing.T) {
	users := authtest.NewUsers()
	authtest.RunUserStore(t, users, func(_ *testing.T, u auth.User) { users.Put(u) })
}
