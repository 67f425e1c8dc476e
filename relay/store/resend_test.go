package store

import (
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
