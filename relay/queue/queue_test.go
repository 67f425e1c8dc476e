package queue_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
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
		if n := w.store.Ops("lease") + w.store.Ops("content"); n != 0 || w.store.Ops("add") != 1 || w.store.Ops("finish") != 1 {
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

func TestSubmitRefused(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{errStore, "451 4.3.0"},
		{fmt.Errorf("commit: %w", queue.ErrFull), "452 4.3.1"},
	} {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, nil)
			wait()
			w.store.Fault = func(op string) error {
				if op == "add" {
					return tt.err
				}
				return nil
			}
			err := w.q.Submit(context.Background(), message("M1", "anna"), body)
			reply, ok := mail.ReplyFor(err)
			if !ok || reply.String()[:9] != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("refused with %v", err)
			}
			wait()
			if w.up.count() != 0 || w.up.free["office"] != 10 || w.q.Stats() != (queue.WindowStats{}) {
				t.Errorf("%d attempts, %d places free, %+v", w.up.count(), w.up.free["office"], w.q.Stats())
			}
			w.store.Fault = nil
			w.submit(message("M2", "anna")) // a full store must be drained: attempts go on
			wait()
			w.wantGone("M2")
			w.end()
		})
	}
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
		if len(failures) != 1 || failures[0].About[0].Status != "5.4.7" || failures[0].About[0].Reply != greylisted.Reply {
			t.Errorf("failure reports %v", failures)
		}
		if list, _ := w.store.List(context.Background(), queue.Filter{}); len(list) != 0 {
			t.Errorf("left in the queue: %v", list)
		}
		w.end()
	})
}

// Without anything to do the scheduler sleeps.
func TestIdleCostsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.stock(message("M1", "anna"))
		w.store.Postpone(context.Background(), []string{"M1"}, time.Now().Add(24*time.Hour), "")
		sleep(23 * time.Hour)
		if n := w.store.Ops("due"); n > 2 {
			t.Errorf("%d reads in a day without work", n)
		}
		sleep(2 * time.Hour)
		w.wantGone("M1")
		w.end()
	})
}

func TestWakePollsOnceASecond(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		wait()
		w.stock(message("M1", "anna"))
		for range 1000 {
			w.q.Wake()
			sleep(10 * time.Millisecond)
		}
		w.wantGone("M1")
		if n := w.store.Ops("due"); n > 15 {
			t.Errorf("%d reads in ten seconds", n)
		}
		w.end()
	})
}

// A login with 100 000 messages in the queue costs a person nothing but the turn that is due anyway.
func TestBulkNeverStarvesAPerson(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.free["office"] = 2
		w.up.setAnswer(slowly(100 * time.Millisecond))
		bulk := make([]*queue.Message, 100_000)
		for i := range bulk {
			bulk[i] = message(fmt.Sprintf("B%06d", i), "newsletter")
		}
		w.stock(bulk...)
		w.q.Refresh()
		sleep(5 * time.Second)
		if n := w.up.count(); n < 90 {
			t.Errorf("only %d attempts in five seconds with two places", n)
		}
		w.submit(message("P1", "anna")) // while the window is full of the newsletter
		sleep(400 * time.Millisecond)
		w.wantGone("P1")
		for i := range 2000 { // a bulk job that submits as fast as it can
			w.submit(message(fmt.Sprintf("C%06d", i), "invoices"))
		}
		w.submit(message("P2", "anna"))
		sleep(time.Second)
		w.wantGone("P2")
		w.stock(message("P3", "anna")) // by another process
		w.q.Wake()
		sleep(2 * time.Second)
		w.wantGone("P3")
		if s := w.q.Stats(); s.Window > 1000 {
			t.Errorf("%d messages in memory", s.Window)
		}
		w.end()
	})
}

// Two logins with much mail get the same share.
func TestLoginsTakeTurns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(o *queue.Options) { o.Window = 40 })
		w.up.free["office"] = 1
		w.up.setAnswer(slowly(time.Second))
		for i := range 300 {
			w.stock(message(fmt.Sprintf("A%03d", i), "anna"))
		}
		for i := range 30 {
			w.stock(message(fmt.Sprintf("B%03d", i), "bert"))
		}
		w.q.Refresh()
		sleep(30 * time.Second)
		share := map[string]int{}
		for _, a := range w.up.attempts {
			share[a.login]++
		}
		if share["bert"] < 14 {
			t.Errorf("shares %v", share)
		}
		w.end()
	})
}

// A window full of messages that wait for a busy upstream is turned over, so that others are found.
func TestBusyUpstreamDoesNotClogTheWindow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(o *queue.Options) { o.Window = 20 })
		w.up.free["slow"] = 0
		w.up.route = func(m *queue.Message) string {
			if m.Login == "login90" {
				return "fast"
			}
			return "slow"
		}
		for i := range 100 {
			w.stock(message(fmt.Sprintf("M%03d", i), fmt.Sprintf("login%02d", i)))
		}
		w.q.Refresh()
		sleep(time.Minute)
		w.wantGone("M090")
		if s := w.q.Stats(); s.Window > 20 {
			t.Errorf("window %+v", s)
		}
		w.end()
	})
}

// One message is asked for again after Wake, not all that wait for the same.
func TestBusyIsAskedOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.free["office"] = 0
		for i := range 500 {
			w.submit(message(fmt.Sprintf("M%03d", i), fmt.Sprintf("login%d", i%50)))
		}
		wait()
		before := w.up.reserves
		for range 100 {
			w.q.Wake()
			wait()
		}
		if n := w.up.reserves - before; n > 101 {
			t.Errorf("%d questions for 100 calls of Wake", n)
		}
		w.end()
	})
}

// Progress does not depend on a dispatcher that calls Wake.
func TestForgetfulDispatcher(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.silent = true
		w.up.free["office"] = 0
		w.submit(message("M1", "anna"), message("M2", "anna"))
		sleep(10 * time.Second)
		w.up.mu.Lock()
		w.up.free["office"] = 1
		w.up.mu.Unlock()
		sleep(2 * time.Second)
		w.wantGone("M1", "M2")
		w.end()
	})
}

// A paused upstream: its mail is postponed in batches, the mail of others goes on, and everything is there
// at once when the pause ends before its time.
func TestPauseAndReturn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.route = func(m *queue.Message) string { return m.Login }
		w.up.paused["anna"] = time.Now().Add(24 * time.Hour)
		for i := range 200 {
			w.stock(message(fmt.Sprintf("A%03d", i), "anna"))
		}
		w.stock(message("B1", "bert"))
		w.q.Refresh()
		sleep(time.Second)
		w.submit(message("A999", "anna"))
		sleep(time.Second)
		w.wantGone("B1")
		if n := w.store.Ops("postpone"); n > 4 {
			t.Errorf("%d commits to postpone", n)
		}
		if m := w.inStore("A999"); m.WaitingFor != "anna" || m.Attempts != 0 || !m.NextAttempt.After(time.Now().Add(time.Hour)) {
			t.Errorf("A999 was not added as postponed: %+v", m)
		}
		w.wantKinds("A000", trace.Attempt)
		sleep(time.Hour)
		if s := w.q.Stats(); s.Window != 0 || s.Paused != 1 {
			t.Errorf("window %+v", s)
		}
		w.up.pause("anna", time.Time{})
		sleep(3 * time.Second)
		if list, _ := w.store.List(context.Background(), queue.Filter{}); len(list) != 0 {
			t.Errorf("%d messages left three seconds after the return", len(list))
		}
		w.end()
	})
}

// The first success after a back-off wakes what was postponed beyond it.
func TestSuccessWakesWhatWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.paused["office"] = time.Now().Add(10 * time.Hour)
		w.submit(message("M1", "anna"))
		sleep(time.Second)
		w.up.silent = true
		w.up.mu.Lock()
		delete(w.up.paused, "office")
		w.up.mu.Unlock()
		w.submit(message("M2", "anna"))
		sleep(time.Second)
		w.wantGone("M1", "M2")
		w.end()
	})
}

// Mail that never gets a place because its upstream is paused is reported as late, and as failed in the
// end; not before.
func TestPausedMailIsReported(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.route = func(m *queue.Message) string { return m.Login }
		w.up.paused["anna"] = time.Now().Add(1000 * time.Hour)
		start := time.Now()
		w.submit(message("M1", "anna"))
		sleep(100 * time.Hour)
		delays, failures := w.notices(queue.Delay), w.notices(queue.Failure)
		if len(delays) != 1 || delays[0].Time.Sub(start) > 4*time.Hour+2*time.Minute || delays[0].Time.Sub(start) < 4*time.Hour {
			t.Errorf("delay reports %v", delays)
		}
		if len(failures) != 1 || failures[0].About[0].Status != "5.4.7" || failures[0].Time.Sub(start) < 48*time.Hour {
			t.Errorf("failure reports %v", failures)
		}
		if len(w.up.of("M1")) != 0 {
			t.Error("an attempt was made")
		}
		w.wantGone("M1")
		w.end()
	})
}

// A dead upstream with 10 000 messages costs a bounded number of questions and commits for each back-off.
func TestDeadUpstreamCostsLittle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		backoff := func() time.Time { return time.Now().Add(15 * time.Minute) }
		w.up.setAnswer(func(_ context.Context, m *queue.Message, _ mail.Content) []mail.Result {
			w.up.pause("office", backoff())
			return results(m, unreached)
		})
		w.up.free["office"] = 1
		var all []*queue.Message
		for i := range 10_000 {
			all = append(all, message(fmt.Sprintf("M%05d", i), fmt.Sprintf("login%d", i%7)))
		}
		w.stock(all...)
		w.q.Refresh()
		sleep(3 * time.Hour)
		attempts, postpones, due := w.up.count(), w.store.Ops("postpone"), w.store.Ops("due")
		if attempts > 13 {
			t.Errorf("%d attempts in 12 back-offs", attempts)
		}
		if w.up.reserves > 10_000+12*1500 {
			t.Errorf("%d questions", w.up.reserves)
		}
		if postpones > 12*20 || due > 12*30 {
			t.Errorf("%d commits to postpone, %d reads", postpones, due)
		}
		if rows := w.store.Ops("due.rows"); rows > 12*30_000 {
			t.Errorf("%d rows read", rows)
		}
		t.Logf("%d attempts, %d questions, %d postpones, %d reads of %d rows", attempts, w.up.reserves, postpones, due, w.store.Ops("due.rows"))
		w.up.setAnswer(nil)
		w.up.free["office"] = 10
		w.up.pause("office", time.Time{})
		sleep(20 * time.Minute)
		if s, _ := w.store.Stats(context.Background()); s.Messages != 0 {
			t.Errorf("%d messages left after the return", s.Messages)
		}
		w.end()
	})
}

// A lease lives as long as its attempt.
func TestLeaseIsExtended(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.setAnswer(slowly(time.Hour))
		w.submit(message("M1", "anna"))
		for range 59 {
			sleep(time.Minute)
			if m := w.inStore("M1"); !m.LeaseUntil.After(time.Now().Add(time.Minute)) {
				t.Fatalf("lease until %v at %v", m.LeaseUntil, time.Now())
			}
		}
		sleep(2 * time.Minute)
		w.wantGone("M1")
		if w.up.count() != 1 {
			t.Errorf("%d attempts", w.up.count())
		}
		w.end()
	})
}

// The outcome is kept while the store refuses it: no second attempt, and the place is free.
func TestOutcomeSurvivesStoreFailure(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		wait()
		var failing atomic.Bool
		w.store.Fault = func(op string) error {
			if failing.Load() && op != "get" {
				return errStore
			}
			return nil
		}
		w.up.setAnswer(func(_ context.Context, m *queue.Message, _ mail.Content) []mail.Result {
			failing.Store(true)
			return results(m, delivered)
		})
		w.submit(message("M1", "anna"))
		sleep(time.Hour) // far beyond the lease
		if s := w.q.Stats(); !s.StoreFailing || w.up.free["office"] != 10 {
			t.Errorf("stats %+v, %d places free", s, w.up.free["office"])
		}
		failing.Store(false)
		w.up.setAnswer(nil)
		sleep(time.Minute)
		w.wantGone("M1")
		if w.up.count() != 1 {
			t.Errorf("%d attempts", w.up.count())
		}
		if w.q.Stats() != (queue.WindowStats{}) {
			t.Errorf("stats %+v", w.q.Stats())
		}
		w.submit(message("M2", "anna"))
		wait()
		w.wantGone("M2")
		w.end()
	})
}

// No attempt without a committed lease, and a failing store is not hammered.
func TestFailingStorePausesScheduling(t *testing.T) {
	for _, broken := range []string{"lease", "due", "postpone", "content"} {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, nil)
			wait()
			var failing atomic.Bool
			failing.Store(true)
			var calls atomic.Int64
			w.store.Fault = func(op string) error {
				if op == broken && failing.Load() {
					calls.Add(1)
					return errStore
				}
				return nil
			}
			if broken == "postpone" {
				w.up.paused["office"] = time.Now().Add(time.Minute)
			}
			for i := range 20 {
				w.stock(message(fmt.Sprintf("M%02d", i), "anna"))
			}
			w.q.Wake()
			sleep(30 * time.Minute)
			if w.up.count() != 0 && broken != "postpone" {
				t.Errorf("%s: %d attempts", broken, w.up.count())
			}
			if n := calls.Load(); n > 1500 || n == 0 {
				t.Errorf("%s: called %d times in half an hour", broken, n)
			}
			failing.Store(false)
			sleep(8 * time.Hour)
			if s, _ := w.store.Stats(context.Background()); s.Messages != 0 {
				t.Errorf("%s: %d messages left", broken, s.Messages)
			}
			if w.up.free["office"] != 10 {
				t.Errorf("%s: %d places free", broken, w.up.free["office"])
			}
			w.end()
		})
	}
}

// What an attempt left out counts as a deferral.
func TestIncompleteResults(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.setAnswer(func(_ context.Context, m *queue.Message, _ mail.Content) []mail.Result {
			r := delivered
			r.Recipient = 1
			return []mail.Result{r, {Recipient: 7, Class: mail.Delivered}}
		})
		w.submit(message("M1", "anna", "a@example.net", "b@example.net"))
		wait()
		m := w.inStore("M1")
		if m.Recipients[0].Status != queue.Pending || m.Recipients[1].Status != queue.Delivered {
			t.Errorf("recipients %+v", m.Recipients)
		}
		w.wantKinds("M1", trace.Deferred, trace.Delivered)
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

// The limits of memory: messages and octets of content.
func TestMemoryIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(o *queue.Options) { o.Window, o.MaxContent = 10, 3*int64(len(body)) })
		w.up.free["office"] = 0
		wait()
		for i := range 100 {
			w.submit(message(fmt.Sprintf("M%03d", i), fmt.Sprintf("login%d", i%3)))
			if s := w.q.Stats(); s.Window > 10 || s.Content > 3*int64(len(body)) {
				t.Fatalf("stats %+v", s)
			}
		}
		w.up.mu.Lock()
		w.up.free["office"] = 5
		w.up.mu.Unlock()
		w.q.Wake()
		sleep(30 * time.Second)
		if s, _ := w.store.Stats(context.Background()); s.Messages != 0 {
			t.Errorf("%d messages left", s.Messages)
		}
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

func TestAdopt(t *testing.T) {
	adopt := func(w *world, id string) (chan []mail.Result, *queue.Message, error) {
		c := make(chan []mail.Result, 1)
		m := message(id, "anna")
		return c, m, w.q.Adopt(context.Background(), m, body, c)
	}
	t.Run("outcome comes later", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, nil)
			wait()
			c, m, err := adopt(w, "M1")
			if err != nil {
				t.Fatal(err)
			}
			sleep(20 * time.Minute)
			if in := w.inStore("M1"); in.LeaseOwner != "node1" || !in.LeaseUntil.After(time.Now()) || in.Attempts != 1 || w.up.count() != 0 {
				t.Errorf("in the store %+v", in)
			}
			c <- results(m, delivered)
			wait()
			w.wantGone("M1")
			w.wantKinds("M1", trace.Delivered)
			w.end()
		})
	})
	t.Run("attempt never answers", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, nil)
			wait()
			c, _, _ := adopt(w, "M1")
			close(c)
			sleep(2 * time.Minute)
			w.wantGone("M1") // tried again
			w.wantKinds("M1", trace.Deferred, trace.Delivered)
			w.end()
		})
	})
	t.Run("store refuses", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, nil)
			wait()
			w.store.Fault = func(string) error { return errStore }
			c, m, err := adopt(w, "M1")
			if reply, ok := mail.ReplyFor(err); !ok || reply.Code != 451 {
				t.Errorf("error %v", err)
			}
			c <- results(m, delivered)
			wait()
			w.wantKinds("M1", trace.Delivered, trace.Attempt)
			w.store.Fault = nil
			w.end()
		})
	})
	t.Run("outcome is known", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, nil)
			wait()
			w.up.setAnswer(always(greylisted))
			m := message("M1", "anna", "a@example.net", "b@example.net", "c@example.net")
			c := make(chan []mail.Result, 1)
			r := []mail.Result{delivered, unknown, greylisted}
			for i := range r {
				r[i].Recipient = i
			}
			c <- r
			if err := w.q.Adopt(context.Background(), m, body, c); err != nil {
				t.Fatal(err)
			}
			in := w.inStore("M1")
			for i, want := range []queue.Status{queue.Delivered, queue.Failed, queue.Pending} {
				if in.Recipients[i].Status != want {
					t.Errorf("recipient %d is %s", i, in.Recipients[i].Status)
				}
			}
			if in.LeaseOwner != "" || in.Attempts != 1 || w.store.Ops("add") != 1 || w.store.Ops("finish") != 0 {
				t.Errorf("in the store %+v after %d adds", in, w.store.Ops("add"))
			}
			if n := len(w.notices(queue.Failure)); n != 1 {
				t.Errorf("%d failure reports", n)
			}
			sleep(2 * time.Minute)
			if got := w.up.of("M1"); len(got) != 1 || got[0].number != 2 {
				t.Errorf("attempts %v", got)
			}
			w.end()
		})
	})
}

// A hand-off that settled everything writes nothing.
func TestSubmitAfterWritesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		m := message("M1", "anna")
		r := delivered
		if err := w.q.SubmitAfter(context.Background(), m, body, []mail.Result{r}); err != nil {
			t.Fatal(err)
		}
		if w.store.Ops("add") != 0 {
			t.Error("something was added")
		}
		w.wantKinds("M1", trace.Delivered)
		w.end()
	})
}

// Shutdown: no new attempts, running ones end and are recorded.
func TestShutdownDrains(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.free["office"] = 1
		w.up.setAnswer(slowly(20 * time.Second))
		w.submit(message("M1", "anna"), message("M2", "anna"))
		wait()
		start := time.Now()
		w.end()
		if took := time.Since(start); took != 20*time.Second {
			t.Errorf("drained in %v", took)
		}
		w.wantGone("M1")
		if m := w.inStore("M2"); m.LeaseOwner != "" || m.Attempts != 0 {
			t.Errorf("M2 %+v", m)
		}
		w.submit(message("M3", "anna")) // durable all the same
		if w.inStore("M3") == nil {
			t.Error("M3 was not stored")
		}
	})
}

// Attempts past the drain deadline are cut, and that is recorded too.
func TestShutdownCuts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.setAnswer(slowly(time.Hour))
		w.submit(message("M1", "anna"))
		wait()
		start := time.Now()
		w.end()
		if took := time.Since(start); took != 30*time.Second {
			t.Errorf("drained in %v", took)
		}
		if m := w.inStore("M1"); m.LeaseOwner != "" || m.Recipients[0].Reply != greylisted.Reply {
			t.Errorf("M1 %+v", m)
		}
	})
}

// A store that fails during shutdown does not keep the process for ever; Run says what was lost.
func TestShutdownWithFailingStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		wait()
		w.submit(message("M0", "anna"))
		wait()
		w.store.Fault = func(op string) error {
			if op == "finish" {
				return errStore
			}
			return nil
		}
		w.submit(message("M1", "anna"))
		wait()
		w.stop()
		start := time.Now()
		if err := <-w.done; err == nil || time.Since(start) > time.Minute {
			t.Errorf("Run: %v after %v", err, time.Since(start))
		}
	})
}

// What a killed process had leased is tried again by its next life, and by nobody else.
func TestRestartReleasesLeases(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.setAnswer(slowly(time.Hour))
		w.submit(message("M1", "anna"))
		wait()
		left := w.store.Fork() // kill -9
		w.stop()
		<-w.done

		other := &world{t: t, store: left, up: newUpstreams()}
		other.start(func(o *queue.Options) { o.Owner = "node2" })
		sleep(time.Minute)
		if other.up.count() != 0 {
			t.Error("another node took a leased message")
		}
		other.end()

		next := &world{t: t, store: left, up: newUpstreams()}
		next.start(nil)
		wait()
		next.wantGone("M1")
		if a := next.up.of("M1"); len(a) != 1 || a[0].number != 2 {
			t.Errorf("attempts %v", a)
		}
		next.end()
	})
}

func TestRunReturnsWhenLeasesStay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := &world{t: t, store: memstoreFailing("releaseleases"), up: newUpstreams()}
		w.start(nil)
		if err := <-w.done; !errors.Is(err, errStore) {
			t.Errorf("Run: %v", err)
		}
	})
}

// A read of the store that began before an attempt ended must not bring back what it saw.
func TestStaleReadIsIgnored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.free["office"] = 0
		w.submit(message("M1", "anna", "a@example.net", "b@example.net"))
		wait()
		w.up.setAnswer(func(_ context.Context, m *queue.Message, _ mail.Content) []mail.Result {
			r := results(m, greylisted)
			r[0].Class = mail.Delivered
			return r
		})
		slow := &slowDue{Store: w.store}
		w.end()
		w.start(func(o *queue.Options) { o.Store = slow })
		wait()
		sleep(time.Second) // the read has seen M1 as due and has not returned
		if slow.reads.Load() != 1 {
			t.Fatal("no read")
		}
		sleep(10 * time.Second)
		w.up.mu.Lock()
		w.up.free["office"] = 1
		w.up.mu.Unlock()
		w.q.Wake()
		sleep(40 * time.Second)
		for i, a := range w.up.of("M1") {
			if i > 0 && a.at.Sub(w.up.of("M1")[i-1].at) < time.Minute {
				t.Errorf("tried again too soon: %v", w.up.of("M1"))
			}
		}
		if n := len(w.kinds("M1")); n == 0 || slices.Index(w.kinds("M1"), trace.Delivered) != 0 {
			t.Errorf("trace %v", w.kinds("M1"))
		}
		w.end()
	})
}

// A place that got free belongs to who waits for it, not to the next Submit.
func TestSubmitDoesNotOvertake(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.free["office"] = 0
		wait()
		w.submit(message("P1", "anna"))
		wait()
		w.up.setAnswer(slowly(time.Second))
		w.up.mu.Lock()
		w.up.free["office"] = 1
		w.up.mu.Unlock()
		w.q.Wake()
		w.submit(message("B1", "newsletter"))
		wait()
		if len(w.up.of("P1")) != 1 || len(w.up.of("B1")) != 0 {
			t.Errorf("attempts %v", w.up.attempts)
		}
		w.end()
	})
}

// In a window that one login filled there is room for another at once, with its content.
func TestSubmitDisplacesBulk(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(o *queue.Options) { o.Window = 10 })
		w.up.free["office"] = 0
		wait()
		for i := range 10 {
			w.submit(message(fmt.Sprintf("B%d", i), "newsletter"))
		}
		wait()
		w.submit(message("P1", "anna"))
		wait()
		w.up.setAnswer(slowly(time.Hour))
		w.up.mu.Lock()
		w.up.free["office"] = 2
		w.up.mu.Unlock()
		w.q.Wake()
		wait()
		if len(w.up.of("P1")) != 1 || w.store.Ops("content") != 0 {
			t.Errorf("attempts %v, %d contents read", w.up.attempts, w.store.Ops("content"))
		}
		w.end()
	})
}
