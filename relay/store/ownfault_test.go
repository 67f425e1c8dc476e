package store

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"postern/relay/store/internal/db"
	"postern/relay/trace"
)

var errNo = errors.New("no")

// TestWriteThatPanics: a fault of ours in one write undoes that write and no other, and ends nothing.
func TestWriteThatPanics(t *testing.T) {
	s := open(t, Options{})
	release := stall(t, s)
	faulty, sound := make(chan error, 1), make(chan error, 1)
	go func() {
		faulty <- s.write(t.Context(), func(t *tx) error {
			if err := bump(t.Conn, "faulty"); err != nil {
				return err
			}
			for _, err := range t.Rows("SELECT topic FROM generation") {
				if err != nil {
					return err
				}
				var nothing *int
				*nothing = 1
			}
			return nil
		})
	}()
	waitFor(t, s, 1, 0)
	go func() { sound <- s.write(t.Context(), func(t *tx) error { return bump(t.Conn, "sound") }) }()
	waitFor(t, s, 2, 0)
	release()
	if err := <-faulty; !errors.Is(err, errOwnFault) {
		t.Errorf("the write that panics: %v", err)
	}
	if err := <-sound; err != nil {
		t.Errorf("the write beside it: %v", err)
	}
	got, err := s.Generations(t.Context())
	if err != nil || got["faulty"] != 0 || got["sound"] != 1 {
		t.Errorf("generations %v, %v", got, err)
	}
	if err := s.Add(t.Context(), small("m1")); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// TestReadThatPanics: a reader that panics, which the console's server survives, gives its connection back.
func TestReadThatPanics(t *testing.T) {
	s := open(t, Options{})
	for range 2 * maxReaders {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic is lost")
				}
			}()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_ = s.readers.snapshot(ctx, func(conn db.Conn) error {
				for range conn.Rows("SELECT topic FROM generation UNION SELECT 'one'") {
					panic("a fault of ours")
				}
				return nil
			})
		}()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := s.Generations(ctx); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// TestRefusalThatChanged: what a write did before it refused is undone, and its caller gets the refusal.
func TestRefusalThatChanged(t *testing.T) {
	s := open(t, Options{})
	err := s.write(t.Context(), func(t *tx) error {
		if err := bump(t.Conn, "refused"); err != nil {
			return err
		}
		return refuse(errNo)
	})
	if err != errNo {
		t.Errorf("error %v", err)
	}
	if got, err := s.Generations(t.Context()); err != nil || got["refused"] != 0 {
		t.Errorf("generations %v, %v", got, err)
	}
}

// TestTimesOutOfRange: what is later or earlier than nanoseconds can say is as late, or early, as they can.
func TestTimesOutOfRange(t *testing.T) {
	for _, tt := range []struct {
		at   time.Time
		want int64
	}{
		{time.Time{}, 0},
		{time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), math.MaxInt64},
		{time.Date(2262, 4, 12, 0, 0, 0, 0, time.UTC), math.MaxInt64},
		{time.Date(2262, 4, 11, 0, 0, 0, 0, time.UTC), 9223286400e9},
		{time.Date(1600, 1, 1, 0, 0, 0, 0, time.UTC), math.MinInt64},
		{time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC), math.MinInt64},
		{time.Date(1970, 1, 1, 0, 0, 1, 5, time.UTC), 1e9 + 5},
	} {
		if got := unixNano(tt.at); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.at, got, tt.want)
		}
	}
	s := open(t, Options{})
	first, last := time.Date(1600, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	if err := s.AppendAudit(t.Context(), AuditEntry{Time: time.Now(), Actor: "ada", Outcome: AuditDone}); err != nil {
		t.Fatal(err)
	}
	found, err := s.Audit(t.Context(), AuditQuery{Since: first, Until: last})
	if err != nil || len(found) != 1 {
		t.Errorf("audit: %v, %v", found, err)
	}
	err = s.AppendEventsNow(t.Context(), []trace.Event{{Kind: trace.Accepted, ID: "m1", Login: "ada"}})
	if err != nil {
		t.Fatal(err)
	}
	events, err := s.Events(t.Context(), trace.Query{Login: "ada", Since: first, Until: last})
	if err != nil || len(events) != 1 {
		t.Errorf("trace: %v, %v", events, err)
	}
	answer, err := s.Search(t.Context(), trace.Search{Since: first, Until: last})
	if err != nil || len(answer.Found) != 1 {
		t.Errorf("search: %+v, %v", answer, err)
	}
}

// TestRoomOfSomebodyElse: who goes away while the disk is looked at leaves no answer for others.
func TestRoomOfSomebodyElse(t *testing.T) {
	s := space{dir: t.TempDir()}
	free, err := s.free()
	if err != nil {
		t.Fatal(err)
	}
	s.floor = 2 * free // so that the pages inside the file decide
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.check(func() (int64, error) { return 0, gone.Err() }); !errors.Is(err, context.Canceled) {
		t.Errorf("who went away: %v", err)
	}
	if err := s.check(func() (int64, error) { return 2 * free, nil }); err != nil {
		t.Errorf("who came after them: %v", err)
	}
	if err := s.check(func() (int64, error) { return 0, errNo }); err != nil {
		t.Errorf("the answer was not kept: %v", err)
	}
}

// TestForgetThatIsCutOff: that a person was removed in part, because who asked went away, is in the trace.
func TestForgetThatIsCutOff(t *testing.T) {
	s := open(t, Options{})
	events := make([]trace.Event, 3*privacyBatch)
	for i := range events {
		events[i] = trace.Event{Kind: trace.Accepted, ID: "m1", Login: "ada@example.com"}
	}
	if err := s.AppendEventsNow(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	ctx, goAway := context.WithCancel(t.Context())
	if err := ofFile(t, s).conn.OnSync(func() error { goAway(); return nil }); err != nil {
		t.Fatal(err)
	}
	f, err := s.Forget(ctx, "ada@example.com", "from the command line")
	if f.Events == 0 || f.Events == int64(len(events)) || !errors.Is(err, context.Canceled) {
		t.Fatalf("%+v, %v", f, err)
	}
	told, err := s.Events(t.Context(), trace.Query{Kinds: []trace.Kind{trace.Operator}})
	if err != nil || len(told) != 1 {
		t.Errorf("trace %v, %v", told, err)
	}
}
