package store

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"postern/auth"
)

func TestLoginLocks(t *testing.T) {
	s, ctx := open(t, Options{}), t.Context()
	lock := auth.LoginLock{Login: "carl", Reason: "lost", By: "root", At: eventTime}
	bumped(t, s, TopicUsers, 1, func() error {
		fresh, err := s.LockLogin(ctx, lock)
		if !fresh {
			t.Error("the first lock is not fresh")
		}
		return err
	})
	bumped(t, s, TopicUsers, 0, func() error {
		fresh, err := s.LockLogin(ctx, auth.LoginLock{Login: "carl", Reason: "again", At: eventTime})
		if fresh {
			t.Error("a second lock is fresh")
		}
		return err
	})
	if l, err := s.LoginLock(ctx, "anna", "carl"); err != nil || l != lock {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := s.LoginLock(ctx, "anna"); !errors.Is(err, auth.ErrUnknownLogin) {
		t.Error(err)
	}
	if all, err := s.LoginLocks(ctx); err != nil || len(all) != 1 || all[0] != lock {
		t.Errorf("%+v, %v", all, err)
	}
	if err := s.AddUser(ctx, auth.User{Login: "carl", Hash: "x"}); err != nil {
		t.Fatal(err)
	}
	if u, err := s.User(ctx, "carl"); err != nil || !u.Locked || u.LockReason != "lost" {
		t.Errorf("an account with a locked login: %+v, %v", u, err)
	}
	if all, err := s.LoginLocks(ctx); err != nil || len(all) != 0 {
		t.Errorf("listed beside its account: %+v, %v", all, err)
	}
	if was, err := s.UnlockLogin(ctx, "carl"); err != nil || !was {
		t.Errorf("%v, %v", was, err)
	}
	if l, err := s.LoginLock(ctx, "carl"); err != nil || l.Reason != "lost" {
		t.Errorf("the lock of the account: %+v, %v", l, err)
	}
}

func TestLiftConsoleLockouts(t *testing.T) {
	s, ctx, now := open(t, Options{}), t.Context(), time.Now()
	l := auth.Lock{Client: netip.MustParsePrefix("192.0.2.7/32"), Until: now.Add(time.Hour), Failures: 9}
	if err := s.ConsoleLockout().Save(ctx, now, auth.Unsaved{Locks: []auth.Lock{l}}); err != nil {
		t.Fatal(err)
	}
	bumped(t, s, TopicConsoleLockouts, 1, func() error {
		lifted, err := s.LiftConsoleLockouts(ctx, now, func(auth.Lock) bool { return true })
		if len(lifted) != 1 {
			t.Errorf("lifted %+v", lifted)
		}
		return err
	})
	if left, err := s.ConsoleLockout().locks(ctx, now); err != nil || len(left) != 0 {
		t.Errorf("%+v, %v", left, err)
	}
}
