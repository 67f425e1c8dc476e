package queue_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"
)

func bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func wait() { synctest.Wait() }

// sleep lets the bubble's time pass.
func sleep(d time.Duration) {
	time.Sleep(d) // the clock of the bubble: nobody waits
	synctest.Wait()
}

// With a free place a message costs two commits: added as leased, and its end.
func TestSubmitStartsAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		wait()
		var read []byte
		w.up.setAnswer(func(_ context.Context, m *queue.Message, c mail.Content) []mail.Result {
			if in := w.inStore(m.ID); in.LeaseOwner != "node1" || in.Attempts != 1 || m.Attempts != 1 {
				t.Errorf("the attempt began with lease %q, attempts %d and %d", in.LeaseOwner, in.Attempts, m.Attempts)
			}
			read = c.Bytes()
			return results(m, delivered)
		})
		w.submit(message("M1", "anna"))
		wait()
		w.wantGone("M1")
		if n := w.store.Ops("lease") + w.store.Ops("content"); n != 0 || w.store.Ops("add") != 1 ||
			w.store.Ops("finish") != 1 {
			t.Errorf("%d leases and reads, %d adds, %d finishes", n, w.store.Ops("add"), w.store.Ops("finish"))
		}
		if string(read) != string(body) {
			t.Error("the content was not handed on from memory")
		}
		w.wantKinds("M1", trace.Delivered)
		w.end()
	})
}

// Without one it waits in memory, is leased before its attempt, and its content is not read again.
func TestSubmitWaitsForPlace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.free["office"] = 1
		w.up.setAnswer(slowly(time.Second))
		wait()
		w.submit(message("M1", "anna"), message("M2", "anna"))
		wait()
		if got := w.q.Stats(); got.Running != 1 || got.Waiting != 1 || got.Content != int64(2*len(body)) {
			t.Errorf("stats %+v", got)
		}
		if w.q.Waiters("office") != 1 {
			t.Errorf("%d wait for the office", w.q.Waiters("office"))
		}
		sleep(2 * time.Second)
		w.wantGone("M1", "M2")
		if w.store.Ops("lease") != 1 || w.store.Ops("content") != 0 {
			t.Errorf("%d leases, %d contents read", w.store.Ops("lease"), w.store.Ops("content"))
		}
		if got := w.q.Stats(); got != (queue.WindowStats{}) {
			t.Errorf("left in memory: %+v", got)
		}
		w.end()
	})
}

// The retry table, the delay report at four hours, the end at two days.
func TestRetryWarnExpire(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.setAnswer(func(_ context.Context, m *queue.Message, _ mail.Content) []mail.Result {
			if m.Login == "" {
				return results(m, delivered)
			}
			return results(m, greylisted)
		})
		start := time.Now()
		w.submit(message("M1", "anna"))
		sleep(72 * time.Hour)
		var got []time.Duration
		for _, a := range w.up.of("M1") {
			got = append(got, a.at.Sub(start))
		}
		m := time.Minute
		want := []time.Duration{0, m, 6 * m, 21 * m, 51 * m, 111 * m, 231 * m, 240 * m}
		for at := 480 * m; at < 48*60*m; at += 240 * m {
			want = append(want, at)
		}
		want = append(want, 48*60*m)
		if len(got) != len(want) {
			t.Fatalf("attempts at %v, want %v", got, want)
		}
		for i := range want {
			if late := got[i] - want[i]; late < 0 || late > time.Second {
				t.Errorf("attempt %d at %v, want %v", i+1, got[i], want[i])
			}
		}
		delays, failures := w.notices(queue.Delay), w.notices(queue.Failure)
		if len(delays) != 1 || delays[0].Time.Sub(start).Round(time.Minute) != 240*m {
			t.Errorf("delay reports %v", delays)
		}
		if len(failures) != 1 || !failures[0].About[0].Expired || failures[0].About[0].Reply != greylisted.Reply {
			t.Errorf("failure reports %v", failures)
		}
		if list, _ := w.store.List(context.Background(), queue.Filter{}); len(list) != 0 {
			t.Errorf("left in the queue: %v", list)
		}
		w.end()
	})
}

// Reports are committed with the outcome and go out like any other mail.
func TestReportsGoOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		wait()
		w.up.setAnswer(func(_ context.Context, m *queue.Message, _ mail.Content) []mail.Result {
			if m.Login == "" {
				return results(m, delivered)
			}
			return results(m, unknown)
		})
		w.submit(message("M1", "anna"))
		sleep(time.Second)
		if list, _ := w.store.List(context.Background(), queue.Filter{}); len(list) != 0 {
			t.Errorf("left in the queue: %+v", list[0])
		}
		if n := w.up.count(); n != 2 || w.store.Ops("add") != 1 {
			t.Errorf("%d attempts, %d adds", n, w.store.Ops("add"))
		}
		w.wantKinds("M1", trace.Failed, trace.Report)
		w.end()
	})
}

// fileContent is content that memory does not hold.
type fileContent struct{ mail.BytesContent }

func (fileContent) Bytes() []byte { return nil }

func TestContentOnDiskIsReadFromTheStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		wait()
		var read string
		w.up.setAnswer(func(_ context.Context, m *queue.Message, c mail.Content) []mail.Result {
			r, _ := c.Open()
			b, _ := io.ReadAll(r)
			read = string(b)
			return results(m, delivered)
		})
		if err := w.q.Submit(context.Background(), message("M1", "anna"), fileContent{body}); err != nil {
			t.Fatal(err)
		}
		wait()
		if read != string(body) || w.store.Ops("content") != 1 {
			t.Errorf("read %q with %d reads of the store", read, w.store.Ops("content"))
		}
		w.end()
	})
}

func TestHeldWaitsForRelease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		m := message("M1", "anna")
		m.Held, m.HoldReason = true, "over a limit"
		w.submit(m)
		sleep(24 * time.Hour)
		if w.up.count() != 0 {
			t.Fatal("a held message was tried")
		}
		w.store.Release(context.Background(), queue.Filter{IDs: []string{"M1"}}, time.Now())
		w.q.Refresh()
		sleep(time.Second)
		w.wantGone("M1")
		w.end()
	})
}

// What a person does counts for messages that wait in the window.
func TestOperatorWhileWaiting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx := context.Background()
		w := newWorld(t, nil)
		w.up.free["office"] = 0
		w.submit(message("M1", "anna"), message("M2", "anna"), message("M3", "anna"), message("M4", "anna"))
		wait()
		one := func(id string) queue.Filter { return queue.Filter{IDs: []string{id}} }
		w.store.Hold(ctx, one("M1"), "a person asked")
		w.store.Delete(ctx, one("M2"))
		w.store.Bounce(ctx, one("M3"), time.Now())
		w.q.Refresh()
		sleep(2 * time.Second)
		w.wantKinds("M3", trace.Failed, trace.Report)
		w.wantGone("M3")
		w.up.mu.Lock()
		w.up.free["office"] = 1
		w.up.mu.Unlock()
		w.q.Wake()
		sleep(2 * time.Second)
		w.wantGone("M4")
		if n := len(w.up.of("M1")) + len(w.up.of("M2")) + len(w.up.of("M3")); n != 0 {
			t.Errorf("%d attempts for mail that was held, deleted or given up", n)
		}
		w.end()
	})
}

// Hold without Refresh: the lease is refused, nothing is sent.
func TestHoldIsSeenAtTheLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.free["office"] = 0
		w.submit(message("M1", "anna"))
		w.store.Hold(context.Background(), queue.Filter{}, "")
		w.up.mu.Lock()
		w.up.free["office"] = 1
		w.up.mu.Unlock()
		w.q.Wake()
		sleep(time.Minute)
		if w.up.count() != 0 || w.up.free["office"] != 1 {
			t.Errorf("%d attempts, %d places free", w.up.count(), w.up.free["office"])
		}
		w.end()
	})
}

// A message given up while its attempt runs is not kept until the next retry time.
func TestBounceWhileAttemptRuns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.silent = true
		w.up.setAnswer(func(_ context.Context, m *queue.Message, _ mail.Content) []mail.Result {
			time.Sleep(time.Second)
			return results(m, greylisted)
		})
		w.submit(message("M1", "anna"))
		wait()
		w.store.Bounce(context.Background(), queue.Filter{IDs: []string{"M1"}}, time.Now())
		w.q.Refresh()
		sleep(3 * time.Second)
		w.wantGone("M1")
		w.wantKinds("M1", trace.Deferred, trace.Failed, trace.Report)
		w.end()
	})
}
