package store

import (
	"context"
	"slices"
	"testing"
	"time"

	"postern/relay/trace"
)

// TestPagesAreStableAfterAnEmptyOne: what happens while somebody turns pages takes no message from those that
// follow, also where the first page was empty because its time was up.
func TestPagesAreStableAfterAnEmptyOne(t *testing.T) {
	s := open(t, Options{Daemon: true})
	at := time.Now().Add(-time.Hour)
	e := func(id string) trace.Event {
		at = at.Add(time.Second)
		return trace.Event{Time: at, Kind: trace.Accepted, ID: id, Login: "anna"}
	}
	appendEvents(t, s, e("old"), e("new"))
	for _, empty := range []bool{false, true} {
		q := trace.Search{Words: "anna", Limit: 1}
		if empty {
			s.pace.turn <- struct{}{} // somebody else's
			late, cancel := context.WithDeadline(t.Context(), time.Now())
			a, err := s.Search(late, q)
			cancel()
			<-s.pace.turn
			if err != nil || len(a.Found) > 0 {
				t.Fatalf("%+v, %v", a, err)
			}
			q.After = a.Next
		}
		var got []string
		for {
			a, err := s.Search(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range a.Found {
				got = append(got, f.ID)
			}
			if len(got) == 1 {
				last := got[0]
				other := map[string]string{"new": "old", "old": "new"}[last]
				appendEvents(t, s, e(other)) // something happens to the message that is to come
			}
			if q.After = a.Next; a.Next == "" {
				break
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, []string{"new", "old"}) {
			t.Errorf("with an empty page %v: %q", empty, got)
		}
	}
}
