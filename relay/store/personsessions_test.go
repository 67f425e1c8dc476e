package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"postern/auth"
)

// A session counts as long as its person is who began it, and nobody has locked or forgotten them.
func TestPersonSessions(t *testing.T) {
	s, ctx, now := open(t, Options{}), t.Context(), eventTime
	anna := auth.Person{Login: "anna@example.com", Source: "oidc", Subject: "https://issuer 42", Seen: now}
	began := func(id byte, subject string) [32]byte {
		t.Helper()
		digest := [32]byte{id}
		err := s.AddPersonSession(ctx, PersonSession{Digest: digest, Login: anna.Login, Subject: subject,
			Source: "oidc", Created: now, Used: now}, now.Add(-12*time.Hour), now.Add(-time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return digest
	}
	counts := func(what string, digest [32]byte, want bool) {
		t.Helper()
		held, p, err := s.PersonSession(ctx, digest)
		switch {
		case want && (err != nil || p.Login != anna.Login || held.Source != "oidc" || !held.Created.Equal(now)):
			t.Errorf("%s: %+v, %+v, %v", what, held, p, err)
		case !want && !errors.Is(err, ErrNoSession):
			t.Errorf("%s: %v", what, err)
		}
	}
	enrol := func() {
		t.Helper()
		if err := putPersonOf(s, anna); err != nil {
			t.Fatal(err)
		}
	}
	enrol()
	first := began(1, anna.Subject)
	counts("the first", first, true)
	counts("nobody's", [32]byte{9}, false)
	counts("of another subject", began(2, "https://issuer 666"), false)
	used := now.Add(time.Minute)
	if err := s.TouchPersonSession(ctx, first, used); err != nil {
		t.Fatal(err)
	}
	if held, _, err := s.PersonSession(ctx, first); err != nil || !held.Used.Equal(used) {
		t.Errorf("%+v, %v", held, err)
	}
	if err := s.EndPersonSession(ctx, first); err != nil {
		t.Fatal(err)
	}
	counts("one that was ended", first, false)

	for what, end := range map[string]func(context.Context) error{
		"forgotten": func(ctx context.Context) error { _, err := s.ForgetPerson(ctx, anna.Login); return err },
		"locked": func(ctx context.Context) error {
			_, err := s.LockLogin(ctx, auth.LoginLock{Login: anna.Login, Reason: "left"})
			return err
		},
	} {
		enrol()
		open := began(3, anna.Subject)
		counts("before it is "+what, open, true)
		if err := end(ctx); err != nil {
			t.Fatal(err)
		}
		counts(what, open, false)
		if _, err := s.UnlockLogin(ctx, anna.Login); err != nil {
			t.Fatal(err)
		}
		enrol()
		counts("back after it was "+what, open, false)
	}
	for i := range byte(sessionsOfUser + 1) {
		began(100+i, anna.Subject)
		now = now.Add(time.Second)
	}
	now = eventTime
	counts("the oldest of too many", [32]byte{100}, false)
	if _, _, err := s.PersonSession(ctx, [32]byte{100 + sessionsOfUser}); err != nil {
		t.Error(err)
	}
}
