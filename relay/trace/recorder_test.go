package trace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/testkit"
)

// memorySink keeps batches; while fail is set it refuses them.
type memorySink struct {
	mu      sync.Mutex
	fail    error
	slow    time.Duration
	batches [][]Event
	calls   int
}

func (s *memorySink) AppendEvents(ctx context.Context, events []Event) error {
	time.Sleep(s.slow)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.fail != nil {
		return s.fail
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.batches = append(s.batches, append([]Event(nil), events...))
	return nil
}

func (s *memorySink) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// writes counts calls and batches that were kept.
func (s *memorySink) writes() (calls, kept int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls, len(s.batches)
}

func (s *memorySink) attempts() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	var got []int
	for _, b := range s.batches {
		for _, e := range b {
			got = append(got, e.Attempt)
		}
	}
	return got
}

// running starts a Recorder in the bubble; end waits for Run.
func running(sink Sink, log *slog.Logger) (r *Recorder, end func()) {
	r = NewRecorder(sink, log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	return r, func() { cancel(); <-done }
}

func wantOrder(t *testing.T, got []int, n int) {
	t.Helper()
	if len(got) != n {
		t.Fatalf("%d events written, want %d", len(got), n)
	}
	for i, v := range got {
		if v != i {
			t.Fatalf("event %d is at %d", v, i)
		}
	}
}

func TestRecorderWritesBatchesInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &memorySink{}
		r, end := running(sink, nil)
		for i := range 100 {
			r.Record(Event{Kind: Delivered, Attempt: i})
		}
		time.Sleep(batchEvery)
		synctest.Wait()
		wantOrder(t, sink.attempts(), 100)
		if _, n := sink.writes(); n != 1 {
			t.Errorf("%d writes", n)
		}
		if at := sink.batches[0][0].Time; at.IsZero() || time.Since(at) > batchEvery {
			t.Errorf("recorded at %v", at)
		}
		time.Sleep(time.Hour)
		if n, _ := sink.writes(); n != 1 {
			t.Errorf("%d writes without events", n-1)
		}
		end()
	})
}

func TestRecorderWritesFullBatchAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &memorySink{}
		r, end := running(sink, nil)
		synctest.Wait()
		start := time.Now()
		for i := range batchSize + 1 {
			r.Record(Event{Attempt: i})
		}
		synctest.Wait()
		if got := len(sink.attempts()); got < batchSize || !time.Now().Equal(start) {
			t.Errorf("%d events written after %v", got, time.Since(start))
		}
		end()
	})
}

// A slow sink never holds anybody up, and what does not fit is counted.
func TestRecorderIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testkit.Log
		sink := &memorySink{slow: time.Hour}
		r, end := running(sink, slog.New(slog.NewTextHandler(&log, nil)))
		start := time.Now()
		for i := range bufferSize + 123 {
			r.Record(Event{Attempt: i})
		}
		if !time.Now().Equal(start) {
			t.Error("Record waited")
		}
		if n := r.Dropped(); n != 123 {
			t.Errorf("%d dropped", n)
		}
		synctest.Wait()
		if n := strings.Count(log.String(), "dropped"); strings.Count(log.String(), "\n") != 1 || n == 0 {
			t.Errorf("the log says %q", log.String())
		}
		time.Sleep(100 * time.Hour)
		end()
		wantOrder(t, sink.attempts(), bufferSize)
	})
}

// A sink that fails for a while loses nothing, is not hammered, and the log says so once.
func TestRecorderOutlivesFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testkit.Log
		sink := &memorySink{fail: errors.New("disk on fire")}
		r, end := running(sink, slog.New(slog.NewTextHandler(&log, nil)))
		for i := range 700 {
			r.Record(Event{Attempt: i})
		}
		time.Sleep(10 * time.Second)
		if n, _ := sink.writes(); n > 8 || n < 2 {
			t.Errorf("%d writes in ten seconds", n)
		}
		sink.set(nil)
		time.Sleep(2 * maxRetryEvery)
		synctest.Wait()
		wantOrder(t, sink.attempts(), 700)
		if r.Dropped() != 0 || strings.Count(log.String(), "disk on fire") != 1 {
			t.Errorf("%d dropped, log %q", r.Dropped(), log.String())
		}
		end()
	})
}

// pickySink refuses every batch with a certain event.
type pickySink struct{ memorySink }

func (s *pickySink) AppendEvents(ctx context.Context, events []Event) error {
	for _, e := range events {
		if e.ID == "bad" {
			return errors.New("cannot be written")
		}
	}
	return s.memorySink.AppendEvents(ctx, events)
}

// One batch that can never be written does not stop the trace for ever.
func TestRecorderGivesUpBadBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &pickySink{}
		r, end := running(sink, nil)
		r.Record(Event{ID: "bad"})
		time.Sleep(time.Second)
		r.Record(Event{})
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		r.Record(Event{})
		time.Sleep(10 * time.Second)
		if got := len(sink.attempts()); got == 0 || r.Dropped() == 0 {
			t.Errorf("%d written, %d dropped", got, r.Dropped())
		}
		end()
	})
}

func TestRecorderFlushesAtClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &memorySink{}
		r, end := running(sink, nil)
		r.Record(Event{Attempt: 0})
		end()
		r.Record(Event{Attempt: 1}) // between Run and Close
		if err := r.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		wantOrder(t, sink.attempts(), 2)
		r.Record(Event{})
		if r.Dropped() != 1 {
			t.Errorf("%d dropped after Close", r.Dropped())
		}
	})
}

func TestRecorderCloseSaysWhatIsLost(t *testing.T) {
	sink := &memorySink{fail: errors.New("disk on fire")}
	r := NewRecorder(sink, nil)
	for range 3 {
		r.Record(Event{})
	}
	err := r.Close(context.Background())
	if !errors.Is(err, sink.fail) || !strings.Contains(err.Error(), "3 events") || r.Dropped() != 3 {
		t.Errorf("Close: %v, %d dropped", err, r.Dropped())
	}
}

func TestRecorderManyWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &memorySink{}
		r, end := running(sink, nil)
		var writers sync.WaitGroup
		for range 8 {
			writers.Go(func() {
				for range 1000 {
					r.Record(Event{})
				}
			})
		}
		writers.Wait()
		end()
		if err := r.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if n := len(sink.attempts()); n != 8000 {
			t.Errorf("%d events written", n)
		}
	})
}

// What is recorded one after the other keeps its order, whatever the clock says, and in whichever buffer it waits.
func TestRecordedOrderIsTheOrderOfTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in which no time passes
		sink := &memorySink{}
		r := NewRecorder(sink, nil)
		kinds := []Kind{Rejected, Accepted, AuthFail, Delivered, Deferred, Refused}
		for i := range 60 {
			if e := (Event{Kind: kinds[i%len(kinds)], Attempt: i}); i%2 == 0 || !e.Kind.IsRefusal() {
				r.Record(e)
			} else {
				r.Refusal(e)
			}
		}
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		events := sink.written()
		slices.SortStableFunc(events, func(a, b Event) int { return a.Time.Compare(b.Time) })
		for i, e := range events {
			if e.Attempt != i || i > 0 && !e.Time.After(events[i-1].Time) {
				t.Fatalf("event %d is at %d, %v", e.Attempt, i, e.Time)
			}
		}
	})
}

// promptly is a sink that can write at once.
type promptly struct {
	memorySink
	now memorySink
}

func (s *promptly) AppendEventsNow(ctx context.Context, events []Event) error {
	return s.now.AppendEvents(ctx, events)
}

func TestFlushWritesAtOnce(t *testing.T) {
	sink := &promptly{}
	r := NewRecorder(sink, nil)
	r.Record(Event{Kind: Accepted})
	r.Record(Event{Kind: AuthFail})
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if late, prompt := sink.written(), sink.now.written(); len(late) != 0 || len(prompt) != 2 {
		t.Errorf("%d events were written lazily, %d at once", len(late), len(prompt))
	}
	sink.now.set(errors.New("disk on fire"))
	r.Record(Event{Kind: Accepted})
	if err := r.Flush(t.Context()); err == nil {
		t.Error("a flush that wrote nothing is no error")
	}
}

// busySink is written to while more happens than it can keep up with.
type busySink struct {
	r      *Recorder
	writes int
}

func (s *busySink) AppendEvents(context.Context, []Event) error {
	if s.writes++; s.writes < 100 {
		s.r.Record(Event{Kind: Delivered})
		s.r.Record(Event{Kind: Refused})
	}
	return nil
}

// A flush ends under load: who asked waits only for what was recorded before, and others wait for who asked.
func TestFlushEndsUnderLoad(t *testing.T) {
	sink := &busySink{}
	sink.r = NewRecorder(sink, nil)
	for range batchSize {
		sink.r.Record(Event{Kind: Delivered})
	}
	sink.r.Record(Event{Kind: Refused})
	if err := sink.r.Flush(t.Context()); err != nil || sink.writes != 2 {
		t.Errorf("%d writes, %v", sink.writes, err)
	}
}

// Everything is counted once, also what is left out, dropped or comes after Close; summaries are not.
func TestEverythingIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &memorySink{fail: errors.New("disk on fire")}
		r := NewRecorder(sink, nil)
		counts := map[Kind]int{}
		r.CountWith(func(e *Event) {
			counts[e.Kind]++
			if e.Kind == Accepted && len(e.Rcpts.Domains) != 1 {
				t.Error("who counts does not know the recipients")
			}
		})
		const n = 3 * bufferSize / 2
		for range n {
			r.Record(Event{Kind: Accepted, Rcpts: &Rcpts{Domains: []string{"example.net"}}})
			r.Refusal(Event{Kind: AuthFail, Client: "192.0.2.1"})
		}
		if r.mail.events[0].Rcpts != nil {
			t.Error("events that wait keep the recipients")
		}
		_ = r.Close(context.Background()) // summaries, and what could not be written
		r.Record(Event{Kind: Delivered})
		if counts[Accepted] != n || counts[AuthFail] != n || counts[Delivered] != 1 || len(counts) != 3 {
			t.Errorf("%v", counts)
		}
	})
}

// Events wait for a store that cannot be reached, however long, as far as there is room for them.
func TestRecorderWaitsForSinkThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &memorySink{fail: fmt.Errorf("append events: %w", ErrSinkAway)}
		r, end := running(sink, nil)
		for i := range bufferSize + 1 {
			r.Record(Event{Kind: Delivered, Attempt: i})
		}
		time.Sleep(24 * time.Hour)
		if calls, _ := sink.writes(); calls < maxTries {
			t.Fatalf("only %d writes were tried", calls)
		}
		if n := r.Dropped(); n != 1 {
			t.Errorf("%d dropped, want the one that there was no room for", n)
		}
		sink.set(nil)
		time.Sleep(maxRetryEvery)
		synctest.Wait()
		wantOrder(t, sink.attempts(), bufferSize)
		end()
	})
}

// A line keeps its order, and the memory of a burst goes though events keep coming.
func TestLineLetsGoOfABurst(t *testing.T) {
	var l line
	added, removed := 0, 0
	add := func(n int) {
		for range n {
			added++
			l.add(&Event{Attempt: added})
		}
	}
	remove := func(n int) {
		for _, e := range l.oldest(n) {
			if removed++; e.Attempt != removed {
				t.Fatalf("event %d came for %d", e.Attempt, removed)
			}
		}
		l.remove(n)
	}
	add(bufferSize)
	remove(bufferSize - 300)
	for range 1000 {
		add(200)
		remove(200)
	}
	if n := cap(l.events); n > 4*keepLine+1200 {
		t.Errorf("memory for %d events is kept for %d", n, l.len())
	}
	remove(l.len())
	if l.events != nil {
		t.Error("memory is kept for nothing")
	}
}
