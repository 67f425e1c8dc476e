package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"
)

func small(id string) queue.NewMessage {
	now := time.Now()
	m := benchMessage(now, "alice", false)
	if id != "" {
		m.ID = id
	}
	return queue.NewMessage{Message: m, Content: mail.BytesContent("Subject: x\r\n\r\nx\r\n")}
}

// stall holds up the writer until the returned function is called.
func stall(t testing.TB, s *Store) (release func()) {
	t.Helper()
	entered, leave, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- s.write(context.Background(), func(*tx) error {
			close(entered)
			<-leave
			return nil
		})
	}()
	<-entered
	return func() {
		close(leave)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// waitFor waits until so many urgent and lazy writes wait for the writer.
func waitFor(t testing.TB, s *Store, urgent, lazy int) {
	t.Helper()
	look := time.NewTicker(100 * time.Microsecond)
	defer look.Stop()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-look.C {
		s.writer.mu.Lock()
		u, l := len(s.writer.urgent), len(s.writer.lazy)
		s.writer.mu.Unlock()
		if u == urgent && l == lazy {
			return
		}
	}
	t.Fatalf("%d urgent and %d lazy writes never came", urgent, lazy)
}

func TestWaitingWritesShareOneCommit(t *testing.T) {
	s := open(t, Options{})
	release := stall(t, s)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if err := s.Add(t.Context(), small("")); err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, s, 20, 0)
	before := s.Commits()
	release()
	group.Wait()
	if got := s.Commits() - before; got != 1 {
		t.Fatalf("20 messages took %d commits, want 1", got)
	}
}

func TestSyncsUnderLoad(t *testing.T) {
	s := open(t, Options{})
	syncs := 0
	if err := ofFile(t, s).conn.OnSync(func() error { syncs++; return nil }); err != nil {
		t.Fatal(err)
	}
	const messages = 1000
	got := load(t, s, 20, 4<<10, messages)
	if got.syncs() > messages/5 {
		t.Errorf("%d commits for %d messages, want at most %d", got.syncs(), messages, messages/5)
	}
	if syncs > messages/5 || uint64(syncs) < got.commits {
		t.Errorf("%d syncs for %d commits", syncs, got.commits)
	}
}

// TestBatchGathers: where five came at once, one waits for the other four, also when the disk would be
// ready for each of them.
func TestBatchGathers(t *testing.T) {
	s := open(t, Options{})
	if err := s.write(t.Context(), func(*tx) error {
		s.writer.maxWait, s.writer.batch = 10*time.Second, 5
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	before := s.Commits()
	var group sync.WaitGroup
	for n := range 5 {
		group.Go(func() {
			if err := s.Add(t.Context(), small("")); err != nil {
				t.Error(err)
			}
		})
		if n < 4 {
			waitFor(t, s, n+1, 0)
		}
	}
	group.Wait()
	if got := s.Commits() - before; got != 1 {
		t.Errorf("5 messages took %d commits, want 1", got)
	}
}

func TestLearn(t *testing.T) {
	w := &writer{batch: 1}
	feed := func(want int, came ...int) {
		t.Helper()
		for _, n := range came {
			w.learn(n)
		}
		if w.batch != want {
			t.Errorf("after %v a batch of %d is expected, want %d", came, w.batch, want)
		}
	}
	feed(1, 1, 1, 0)
	feed(20, 20)
	feed(20, 20, 20)
	feed(18, 18)                       // as many as came
	feed(1, 1, 1, 1, 1, 1, 1, 1, 1, 1) // soon forgotten
	feed(8, 8)
	for range growAfter {
		w.learn(8)
	}
	feed(10, 8) // a larger one is tried
	feed(8, 8)  // and given up
	feed(batchOps, 10*batchOps)
}

// TestBatchShrinks: after a large batch, lone writers are served as well.
func TestBatchShrinks(t *testing.T) {
	s := open(t, Options{})
	for range 5 {
		load(t, s, 16, 100, 200)
		for range 12 {
			if err := s.Add(t.Context(), small("")); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestOnlyTheGuiltyFails(t *testing.T) {
	s := open(t, Options{})
	if err := s.Add(t.Context(), small("twice")); err != nil {
		t.Fatal(err)
	}
	release := stall(t, s)
	var group sync.WaitGroup
	errs := make([]error, 10)
	for i := range errs {
		group.Go(func() {
			id := fmt.Sprint("good", i)
			if i == 4 {
				id = "twice"
			}
			errs[i] = s.Add(t.Context(), small(id))
		})
	}
	waitFor(t, s, 10, 0)
	release()
	group.Wait()
	for i, err := range errs {
		if (err != nil) != (i == 4) {
			t.Errorf("write %d: %v", i, err)
		}
	}
	st, err := s.Stats(t.Context())
	if err != nil || st.Messages != 10 {
		t.Errorf("%d messages, want 10: %v", st.Messages, err)
	}
}

// TestLazyWritesRideAlong: trace events cost no commit of their own while mail comes, and come through
// when none does.
func TestLazyWritesRideAlong(t *testing.T) {
	s := open(t, Options{})
	done := make(chan error, 1)
	go func() { done <- s.AppendEvents(t.Context(), []trace.Event{{Kind: trace.Accepted, ID: "one"}}) }()
	waitFor(t, s, 0, 1)
	before := s.Commits()
	if err := s.Add(t.Context(), small("")); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := s.Commits() - before; got != 1 {
		t.Errorf("%d commits, want 1 for both", got)
	}
	if err := s.AppendEvents(t.Context(), []trace.Event{{Kind: trace.Accepted, ID: "two"}}); err != nil {
		t.Fatal(err)
	}
	events, err := s.Events(t.Context(), trace.Query{})
	if err != nil || len(events) != 2 {
		t.Errorf("%d events, want 2: %v", len(events), err)
	}
}

func TestContextTakesBackAWaitingWrite(t *testing.T) {
	s := open(t, Options{})
	release := stall(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Add(ctx, small("gone")) }()
	waitFor(t, s, 1, 0)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	release()
	if err := s.Add(t.Context(), small("kept")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), "gone"); !errors.Is(err, queue.ErrNotFound) {
		t.Errorf("the write that was taken back: %v", err)
	}
}

func TestCloseLetsWritesEndAndRefusesNewOnes(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), at(t, Options{Dir: dir}))
	if err != nil {
		t.Fatal(err)
	}
	release := stall(t, s)
	var group sync.WaitGroup
	for i := range 5 {
		group.Go(func() {
			if err := s.Add(context.Background(), small(fmt.Sprint("m", i))); err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, s, 5, 0)
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	release()
	group.Wait()
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if err := s.Add(context.Background(), small("late")); !errors.Is(err, ErrClosed) {
		t.Errorf("Add after Close: %v", err)
	}
	if _, err := s.Stats(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("Stats after Close: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	s = open(t, Options{Dir: dir})
	if st, err := s.Stats(t.Context()); err != nil || st.Messages != 5 {
		t.Errorf("%d messages, want 5: %v", st.Messages, err)
	}
}

// TestLogBeginsAnew: the log's file stays bounded while mail keeps coming.
func TestLogBeginsAnew(t *testing.T) {
	s := open(t, Options{})
	load(t, s, 4, 1<<20, 150)
	size, err := fileSize(ofFile(t, s).path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if ofFile(t, s).checkpointed.Load() == 0 || size > 4*logSize {
		t.Errorf("%d checkpoints, the log has %d MB after 150 MB", ofFile(t, s).checkpointed.Load(), size>>20)
	}
}

// TestTraceKeepsUp: what a burst leaves for the trace is written batch after batch, and does not wait for commits of
// others, of which there are none while all mail is handed off.
func TestTraceKeepsUp(t *testing.T) {
	s := open(t, Options{})
	s.writer.mu.Lock()
	s.writer.lazyWait = time.Hour
	s.writer.mu.Unlock()
	r := trace.NewRecorder(s, nil)
	const events = 10_000
	for range events {
		r.Record(trace.Event{Kind: trace.Delivered})
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range events {
		r.Record(trace.Event{Kind: trace.Delivered})
	}
	ctx, end := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(10 * time.Second); s.told.Load() < 2*events; <-look.C {
		if time.Now().After(deadline) {
			t.Fatalf("%d events of %d are written", s.told.Load(), 2*events)
		}
	}
	end()
	running.Wait()
	if n := r.Dropped(); n > 0 {
		t.Errorf("%d events are lost", n)
	}
}

// TestHurry: lazy writes that come one after the other do not make the end of a process long.
func TestHurry(t *testing.T) {
	s := open(t, Options{})
	s.Hurry()
	began := time.Now()
	for range 40 {
		if err := s.AppendEvents(t.Context(), []trace.Event{{Kind: trace.Refused}}); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 20*lazyFor {
		t.Errorf("40 lazy writes took %s", took)
	}
}
