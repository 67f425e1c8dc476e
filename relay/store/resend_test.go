package store

import (
	"errors"
	"testing"
	"time"

	"postern/relay/queue"
)

// TestActionsOnWhatHasLeft: a message that leaves the queue between the look at it and the change by an operator is not
// changed and not counted.
func TestActionsOnWhatHasLeft(t *testing.T) {
	now := time.Now()
	for name, act := range map[string]func(*Store, queue.Filter) (int64, error){
		"hold":    func(s *Store, f queue.Filter) (int64, error) { return s.Hold(t.Context(), f, "why") },
		"release": func(s *Store, f queue.Filter) (int64, error) { return s.Release(t.Context(), f, now) },
		"retry":   func(s *Store, f queue.Filter) (int64, error) { return s.Retry(t.Context(), f, now) },
		"bounce":  func(s *Store, f queue.Filter) (int64, error) { return s.Bounce(t.Context(), f, now) },
		"delete":  func(s *Store, f queue.Filter) (int64, error) { return s.Delete(t.Context(), f) },
		"resend":  func(s *Store, f queue.Filter) (int64, error) { return s.Resend(t.Context(), f, now, now) },
	} {
		s := open(t, Options{})
		n := small("m1")
		if err := s.Add(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		release := stall(t, s)
		left, acted := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := s.Delete(t.Context(), queue.Filter{})
			left <- err
		}()
		waitFor(t, s, 1, 0)
		go func() {
			changed, err := act(s, queue.Filter{})
			if changed != 0 {
				t.Errorf("%s: %d changed", name, changed)
			}
			acted <- err
		}()
		waitFor(t, s, 2, 0)
		release()
		if err := <-left; err != nil {
			t.Error(err)
		}
		if err := <-acted; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestResendIsAnotherVersion: who has read the message before, without the recipient that is to be tried again, does
// not try it any more.
func TestResendIsAnotherVersion(t *testing.T) {
	s, now := open(t, Options{Daemon: true}), time.Now()
	n := small("m1")
	n.Message.Recipients[0].Status = queue.Failed
	if err := s.Add(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	read, err := s.Get(t.Context(), "m1")
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := s.Resend(t.Context(), queue.Filter{}, now, now.Add(time.Hour)); err != nil || changed != 1 {
		t.Fatalf("%d, %v", changed, err)
	}
	if err := s.Lease(t.Context(), read.Version(), "a", now, now.Add(time.Hour)); !errors.Is(err, queue.ErrNotFound) {
		t.Errorf("an old version is leased: %v", err)
	}
	if again, err := s.Get(t.Context(), "m1"); err != nil || again.Recipients[0].Status != queue.Pending {
		t.Errorf("%+v, %v", again, err)
	}
}
