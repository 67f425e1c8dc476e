package store

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/relay/queue"
	"postern/relay/trace"
)

// What mail writes is one round trip, alone or together with what others write; none of it waits for what people and
// tasks write elsewhere.
func TestOneRoundTrip(t *testing.T) {
	once(t)
	pg := testkit.SharedPostgreSQL(t)
	gate := testkit.NewGate(t, pg.Address())
	url := pg.NewDatabase(t)
	s := open(t, ofServer(t, gate.URL(url), "a", true))
	leased := func(id string) queue.NewMessage {
		m := small(id)
		m.Message.LeaseOwner, m.Message.LeaseUntil = "a", time.Now().Add(time.Hour)
		return m
	}
	if err := s.Add(t.Context(), leased("first")); err != nil { // makes the part of this hour
		t.Fatal(err)
	}
	if err := s.AppendEventsNow(t.Context(), []trace.Event{{Kind: trace.Accepted, ID: "first"}}); err != nil {
		t.Fatal(err) // the same
	}
	before, commits := gate.RoundTrips(), s.Commits()
	release := stall(t, s)
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			if err := s.Add(t.Context(), leased(fmt.Sprint("m", i))); err != nil {
				t.Error(err)
			}
		})
	}
	group.Go(func() {
		if err := s.Finish(t.Context(), attempt(1, "first"), "a", queue.Outcome{Remove: true}); err != nil {
			t.Error(err)
		}
	})
	group.Go(func() {
		err := s.Finish(t.Context(), attempt(1, "none"), "a", queue.Outcome{Remove: true})
		if !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("a message that is not there: %v", err)
		}
	})
	group.Go(func() {
		if err := s.AppendEventsNow(t.Context(), []trace.Event{{Kind: trace.Accepted, ID: "m1"}}); err != nil {
			t.Error(err)
		}
	})
	waitFor(t, s, 23, 0)
	release()
	group.Wait()
	// The transaction that stalled has three, and a flush that nobody waits for counts; the node may have beaten.
	others := 3 + 1 + 1
	if trips := gate.RoundTrips() - before; trips > 1+others || s.Commits() != commits+1 {
		requests := gate.Requests()
		t.Errorf("%d round trips, %d commits: %q", trips, s.Commits()-commits, requests[len(requests)-trips:])
	}
	if st, err := s.Stats(t.Context()); err != nil || st.Messages != 20 || st.Leased != 20 {
		t.Errorf("%+v, %v", st, err)
	}

	// Somebody holds the lock of those who read before they write.
	other := open(t, ofServer(t, url, "", false))
	held := stall(t, other)
	defer held()
	if err := s.Finish(t.Context(), attempt(1, "m1"), "a", queue.Outcome{Remove: true}); err != nil {
		t.Error(err)
	}
}
