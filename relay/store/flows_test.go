package store

import (
	"testing"
	"time"
)

// A login ends well once, at whichever node, and what can come no more is forgotten.
func TestEndFlow(t *testing.T) {
	dir := t.TempDir()
	a, b, now := open(t, Options{Dir: dir}), open(t, Options{Dir: dir}), time.Now()
	end := func(s *Store, id string, at time.Time, want bool) {
		t.Helper()
		if first, err := s.EndFlow(t.Context(), id, at, at.Add(10*time.Minute)); err != nil || first != want {
			t.Errorf("%s: %v, %v; want %v", id, first, err, want)
		}
	}
	end(a, "one", now, true)
	end(b, "one", now, false)
	end(a, "one", now, false)
	end(b, "two", now.Add(time.Hour), true)
	end(a, "one", now.Add(time.Hour), false) // a node whose clock is behind may still take it
	end(a, "three", now.Add(2*time.Hour), true)
	err := a.write(t.Context(), func(tx *tx) error {
		n, _, err := tx.Int("SELECT count(*) FROM console_flow")
		if n != 2 {
			t.Errorf("%d rows, want those of two and three", n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
