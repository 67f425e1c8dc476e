package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/auth"
)

// TestScramKeys: keys are those of one password. Whoever changes it, by whatever way, makes them void.
func TestScramKeys(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), at(t, Options{Dir: dir}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := t.Context()
	keys, err := auth.DecodeScram(auth.Secret("4096,c2FsdHNhbHRzYWx0c2FsdA==," + strings.Repeat("QUFB", 10) + "QUE=," +
		strings.Repeat("QkJC", 10) + "QkI="))
	if err != nil {
		t.Fatal(err)
	}
	want := func(what string, some bool) {
		t.Helper()
		u, got, err := s.ScramUser(ctx, "anna")
		with, err2 := s.WithScram(ctx)
		if err != nil || err2 != nil || u.Login != "anna" || got.IsZero() == some || some && !got.Equal(keys) ||
			with["anna"] != some {
			t.Errorf("%s: %v %v, %v %v", what, got, with, err, err2)
		}
	}
	if _, _, err := s.ScramUser(ctx, "anna"); !errors.Is(err, auth.ErrUnknownLogin) {
		t.Error(err)
	}
	if err := s.SetScram(ctx, "anna", "one", keys); err != nil {
		t.Error("of nobody:", err)
	}
	add := func() {
		t.Helper()
		if err := s.AddUser(ctx, auth.User{Login: "anna", Hash: "one"}); err != nil {
			t.Fatal(err)
		}
	}
	add()
	want("none yet", false)
	if err := s.SetScram(ctx, "anna", "other", keys); err != nil {
		t.Error(err)
	}
	want("of another password", false)
	if err := s.SetScram(ctx, "anna", "one", keys); err != nil {
		t.Error(err)
	}
	want("stored", true)
	if err := s.UpdateUser(ctx, "anna", func(u *auth.User) error { u.Note = "x"; return nil }); err != nil {
		t.Fatal(err)
	}
	want("after another change", true)
	if err := s.UpdateUser(ctx, "anna", func(u *auth.User) error { u.Hash = "two"; return nil }); err != nil {
		t.Fatal(err)
	}
	want("after a new password", false)
	if err := s.SetScram(ctx, "anna", "one", keys); err != nil {
		t.Error(err)
	}
	want("those of the old password", false)
	if err := s.SetScram(ctx, "anna", "two", keys); err != nil {
		t.Error(err)
	}
	want("of the new password", true)
	if err := s.DeleteUser(ctx, "anna", nil); err != nil {
		t.Fatal(err)
	}
	add()
	want("of another anna", false)
	s.SetScram(ctx, "anna", "one", keys)
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && bytes.Contains(text, keys.StoredKey) {
			t.Errorf("%s has keys in clear", f)
		}
	}
}

// TestCramKeys: keys of CRAM-MD5 are kept like those of SCRAM, beside them, and serve devices with a generated
// password.
func TestCramKeys(t *testing.T) {
	s, err := Open(t.Context(), at(t, Options{Dir: t.TempDir()}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, keys := t.Context(), auth.DeriveCram("secret")
	for _, u := range []auth.User{{Login: "scanner", Device: true, Generated: true}, {Login: "anna", Generated: true},
		{Login: "chosen", Device: true}} {
		u.Hash = "one"
		if err := s.AddUser(ctx, u); err != nil {
			t.Fatal(err)
		}
		before, _ := s.Generations(ctx)
		if err := s.SetCram(ctx, u.Login, "one", keys); err != nil {
			t.Fatal(err)
		}
		if after, _ := s.Generations(ctx); after[TopicUsers] == before[TopicUsers] {
			t.Errorf("%s: other processes do not hear of the keys", u.Login)
		}
	}
	want := func(some bool) {
		t.Helper()
		u, got, err := s.CramUser(ctx, "scanner")
		with, err2 := s.WithCram(ctx)
		if err != nil || err2 != nil || u.Login != "scanner" || (got == keys) != some || got.IsZero() == some ||
			with["scanner"] != some || with["anna"] || with["chosen"] {
			t.Error(got, with, err, err2)
		}
		if _, scram, err := s.ScramUser(ctx, "scanner"); err != nil || !scram.IsZero() {
			t.Error(scram, err)
		}
	}
	want(true)
	if err := s.UpdateUser(ctx, "scanner", func(u *auth.User) error { u.Hash = "two"; return nil }); err != nil {
		t.Fatal(err)
	}
	want(false)
	if err := s.SetCram(ctx, "scanner", "two", keys); err != nil {
		t.Fatal(err)
	}
	want(true)
	if err := s.DeleteUser(ctx, "scanner", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.AddUser(ctx, auth.User{Login: "scanner", Hash: "two", Device: true, Generated: true}); err != nil {
		t.Fatal(err)
	}
	want(false)
}

// TestCertificates: a key proves one login, and those of a login go with it.
func TestCertificates(t *testing.T) {
	s, err := Open(t.Context(), at(t, Options{Dir: t.TempDir()}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, now := t.Context(), time.Now()
	one, two := auth.KeyDigest{1}, auth.KeyDigest{2}
	for _, login := range []string{"anna", "bob"} {
		if err := s.AddUser(ctx, auth.User{Login: login, Hash: "hash"}); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := s.Generations(ctx)
	for range 2 {
		if err := s.AddCertificate(ctx, Certificate{one, "anna", "CN=anna", now}); err != nil {
			t.Fatal(err)
		}
	}
	if after, _ := s.Generations(ctx); after[TopicUsers] == before[TopicUsers] {
		t.Error("other processes do not hear of it")
	}
	if err := s.AddCertificate(ctx, Certificate{one, "bob", "CN=anna", now}); !errors.Is(err, ErrOtherLogin) {
		t.Error(err)
	}
	if err := s.AddCertificate(ctx, Certificate{two, "nobody", "", now}); !errors.Is(err, auth.ErrUnknownLogin) {
		t.Error(err)
	}
	if login, err := s.LoginOfKey(ctx, one); login != "anna" || err != nil {
		t.Error(login, err)
	}
	if _, err := s.LoginOfKey(ctx, two); !errors.Is(err, auth.ErrUnknownLogin) {
		t.Error(err)
	}
	for n := range maxCertificates - 1 {
		if err := s.AddCertificate(ctx, Certificate{auth.KeyDigest{3, byte(n)}, "anna", "", now}); err != nil {
			t.Fatal(n, err)
		}
	}
	if err := s.AddCertificate(ctx, Certificate{two, "anna", "", now}); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
	if all, err := s.Certificates(ctx, ""); len(all) != maxCertificates || err != nil {
		t.Error(len(all), err)
	}
	if n, err := s.RemoveCertificates(ctx, "anna", now); n != maxCertificates || err != nil {
		t.Error(n, err)
	}
	s.AddCertificate(ctx, Certificate{two, "bob", "", now})
	if err := s.DeleteUser(ctx, "bob", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.LoginOfKey(ctx, two); !errors.Is(err, auth.ErrUnknownLogin) {
		t.Error("the key of a login that is gone:", err)
	}
}
