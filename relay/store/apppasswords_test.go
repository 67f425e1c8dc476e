package store

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"postern/auth"
)

func appPassword(login, id string) auth.AppPassword {
	return auth.AppPassword{ID: id, Login: login, Name: "printer " + id, Hash: auth.Secret("hash of " + login + id),
		Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Created: eventTime,
		Expires: eventTime.Add(24 * time.Hour)}
}

func addApp(s *Store, p auth.Person, k auth.AppPassword, most int, now time.Time) error {
	_, err := s.AddAppPassword(context.Background(), p, k, most, now)
	return err
}

func putPersonOf(s *Store, p auth.Person) error {
	_, err := s.PutPerson(context.Background(), p)
	return err
}

func TestAppPasswords(t *testing.T) {
	s, ctx, now := open(t, Options{}), t.Context(), eventTime
	anna := auth.Person{Login: "anna@example.com", Name: "Anna", Groups: []string{"staff"}, Source: "oidc",
		Subject: "https://issuer 42", Seen: now}
	bumped(t, s, TopicAppPasswords, 1, func() error { return putPersonOf(s, anna) })
	anna.Seen = now.Add(time.Hour)
	bumped(t, s, TopicAppPasswords, 0, func() error { return putPersonOf(s, anna) })
	old := anna
	old.Seen = now
	bumped(t, s, TopicAppPasswords, 0, func() error { return putPersonOf(s, old) })
	if got, err := s.Person(ctx, anna.Login); err != nil || !reflect.DeepEqual(got, anna) {
		t.Errorf("%+v, %v", got, err)
	}
	a := appPassword(anna.Login, "a")
	bumped(t, s, TopicAppPasswords, 1, func() error { return addApp(s, anna, a, 20, now) })
	if p, k, err := s.AppPassword(ctx, a.Hash); err != nil || !reflect.DeepEqual(p, anna) || !reflect.DeepEqual(k, a) {
		t.Errorf("%+v, %+v, %v", p, k, err)
	}
	if _, k, err := s.AppPasswordOf(ctx, "a"); err != nil || k.Login != anna.Login {
		t.Errorf("%+v, %v", k, err)
	}
	if _, _, err := s.AppPassword(ctx, "another"); !errors.Is(err, auth.ErrUnknownLogin) {
		t.Error(err)
	}
	twin := appPassword(anna.Login, "b")
	twin.Name = a.Name
	if err := addApp(s, anna, twin, 20, now); !errors.Is(err, ErrExists) {
		t.Errorf("the same name: %v", err)
	}
	s.Hurry()
	use := AppUse{"a", now.Add(time.Minute), "192.0.2.7"}
	if err := s.SaveAppUses(ctx, []AppUse{use, {"a", now, "192.0.2.9"}, {"gone", now, ""}}); err != nil {
		t.Fatal(err)
	}
	list, err := s.AppPasswords(ctx, "")
	if err != nil || len(list) != 1 || !list[0].LastUsed.Equal(use.At) || list[0].LastFrom != use.From {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := s.RevokeAppPasswords(ctx, "ben@example.com", "a"); !errors.Is(err, ErrNoAppPassword) {
		t.Errorf("somebody else's: %v", err)
	}
	bumped(t, s, TopicAppPasswords, 1, func() error {
		_, err := s.RevokeAppPasswords(ctx, anna.Login, "a")
		return err
	})
	if _, _, err := s.AppPassword(ctx, a.Hash); !errors.Is(err, auth.ErrUnknownLogin) {
		t.Error(err)
	}
}

// TestPersonsAreBound: a login has one subject, and a subject one login, until somebody is forgotten.
func TestPersonsAreBound(t *testing.T) {
	s, ctx := open(t, Options{}), t.Context()
	put := func(login, subject string) error {
		return putPersonOf(s, auth.Person{Login: login, Subject: subject, Source: "x"})
	}
	for _, step := range []struct {
		login, subject string
		bound          *BoundError
	}{
		{"anna", "1", nil}, {"anna", "1", nil}, {"anna", "2", &BoundError{"anna", "1"}},
		{"anna", "", &BoundError{"anna", "1"}}, {"ben", "1", &BoundError{"anna", "1"}}, {"ben", "", nil},
		{"ben", "2", &BoundError{"ben", ""}}, {"cleo", "", nil}, {"dora", "2", nil},
	} {
		err := put(step.login, step.subject)
		bound, _ := errors.AsType[*BoundError](err)
		if !reflect.DeepEqual(bound, step.bound) || (err == nil) != (bound == nil) {
			t.Errorf("%s as %q: %v", step.login, step.subject, err)
		}
	}
	if _, err := s.ForgetPerson(ctx, "anna"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(put("ben@new", "1"), put("anna", "3")); err != nil {
		t.Error(err)
	}
	if _, err := s.ForgetPerson(ctx, "nobody"); !errors.Is(err, ErrNoAppPassword) {
		t.Error(err)
	}
}

// TestNoAppPasswordOfTheForgotten: a request that was under way when its person was forgotten does not bring them back.
func TestNoAppPasswordOfTheForgotten(t *testing.T) {
	s, ctx, now := open(t, Options{}), t.Context(), eventTime
	oda := auth.Person{Login: "oda", Subject: "issuer 1", Source: "oidc", Seen: now}
	if err := putPersonOf(s, oda); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ForgetPerson(ctx, "oda"); err != nil {
		t.Fatal(err)
	}
	if err := addApp(s, oda, appPassword("oda", "1"), 9, now); !errors.Is(err, ErrNoAppPassword) {
		t.Error(err)
	}
	if people, err := s.Persons(ctx); err != nil || len(people) > 0 {
		t.Errorf("%+v, %v", people, err)
	}
}

// TestAppPasswordsAreBounded: expired ones make room, and go with their name.
func TestAppPasswordsAreBounded(t *testing.T) {
	s, ctx, now := open(t, Options{}), t.Context(), eventTime
	anna := auth.Person{Login: "anna", Source: "x"}
	for i := range MaxAppPasswords {
		if err := addApp(s, anna, appPassword("anna", fmt.Sprint(i)), 1000, now); err != nil {
			t.Fatal(i, err)
		}
	}
	more := appPassword("anna", "more")
	if err := addApp(s, anna, more, 1000, now); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
	later := now.Add(48 * time.Hour)
	more.Expires = later.Add(time.Hour)
	if err := addApp(s, anna, more, 1, later); err != nil {
		t.Error(err)
	}
	if list, err := s.AppPasswords(ctx, "anna"); err != nil || len(list) != 1 {
		t.Errorf("%d, %v", len(list), err)
	}
	if err := addApp(s, anna, appPassword("anna", "second"), 1, later); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
}

// TestAppPasswordsGoWithTheirAccount: one that is made again with the same login has none of them.
func TestAppPasswordsGoWithTheirAccount(t *testing.T) {
	s, ctx, now := open(t, Options{}), t.Context(), eventTime
	for login, source := range map[string]string{"anna": "store", "ben": "office"} {
		if err := errors.Join(s.AddUser(ctx, auth.User{Login: login}),
			addApp(s, auth.Person{Login: login, Source: source}, appPassword(login, login), 9, now),
			s.DeleteUser(ctx, login, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := s.AppPasswords(ctx, ""); err != nil || len(list) != 1 || list[0].Login != "ben" {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestAppPasswordsGoWithTheirSource: a login that is of another source is somebody else's, who has none of them.
func TestAppPasswordsGoWithTheirSource(t *testing.T) {
	s, ctx, now := open(t, Options{}), t.Context(), eventTime
	held := PersonSession{Login: "anna", Source: "office", Created: now, Used: now}
	if err := errors.Join(addApp(s, auth.Person{Login: "anna", Source: "office"}, appPassword("anna", "1"), 1, now),
		addApp(s, auth.Person{Login: "ben", Source: "office"}, appPassword("ben", "2"), 1, now),
		s.AddPersonSession(ctx, held, now, now)); err != nil {
		t.Fatal(err)
	}
	again := appPassword("anna", "3")
	again.Name = "printer 1"
	if err := addApp(s, auth.Person{Login: "anna", Source: "office"}, again, 2, now); !errors.Is(err, ErrExists) {
		t.Fatal(err)
	}
	ended, err := s.AddAppPassword(ctx, auth.Person{Login: "anna", Source: "store"}, again, 1, now) // there is room
	if err != nil || len(ended) != 1 || ended[0].ID != "1" {
		t.Errorf("%+v, %v", ended, err)
	}
	if _, _, err := s.PersonSession(ctx, held.Digest); !errors.Is(err, ErrNoSession) {
		t.Errorf("the session goes on: %v", err)
	}
	bumped(t, s, TopicAppPasswords, 1, func() error {
		ended, err = s.PutPerson(ctx, auth.Person{Login: "anna", Source: "office"})
		return err
	})
	if len(ended) != 1 || ended[0].ID != "3" {
		t.Errorf("%+v", ended)
	}
	if list, err := s.AppPasswords(ctx, ""); err != nil || len(list) != 1 || list[0].Login != "ben" {
		t.Errorf("%+v, %v", list, err)
	}
}
