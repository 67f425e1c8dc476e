package relay

import (
	"testing"
	"time"

	"postern/relay/trace"
)

// TestTheDaemonIndexesTheTrace: what was there before the index is indexed while the relay runs, and so is everything
// again when a person says that the index is to be made anew.
func TestTheDaemonIndexesTheTrace(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	s := r.store()
	old := trace.Event{Time: time.Now().Add(-time.Hour), Kind: trace.Accepted, ID: "old", From: "anna@example.com"}
	if err := s.AppendEventsNow(t.Context(), []trace.Event{old}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Reindex(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.eventually("a whole index", func() bool {
			a, err := s.Search(t.Context(), trace.Search{Words: "anna old"})
			if err != nil || len(a.Found) != 1 {
				t.Fatalf("%+v, %v", a, err)
			}
			return !a.Partial
		})
	}
}
