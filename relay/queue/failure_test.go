package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"
)

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

// What a refused message tells of its route is not forgotten: a pause that turns out shorter ends in time for others.
func TestRefusedMessageTellsOfItsRoute(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.paused["office"] = time.Now().Add(20 * time.Hour)
		m := message("M1", "anna")
		m.Envelope.From = mail.Address{} // no report is due meanwhile
		w.submit(m)
		wait()
		w.up.paused["office"] = time.Now().Add(time.Minute)
		w.store.Fault = func(op string) error {
			if op == "add" {
				return errStore
			}
			return nil
		}
		if err := w.q.Submit(context.Background(), message("M2", "anna"), body); err == nil {
			t.Fatal("not refused")
		}
		sleep(2 * time.Minute)
		w.wantGone("M1")
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

// What a person gave up is not tried again because the store failed when that was to be recorded.
func TestBounceWhileStoreFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		wait()
		var failing atomic.Bool
		failing.Store(true)
		w.store.Fault = func(op string) error {
			if op == "lease" && failing.Load() {
				return errStore
			}
			return nil
		}
		m := message("M1", "anna")
		m.Bounce = true
		w.stock(m)
		w.q.Refresh()
		sleep(time.Minute)
		failing.Store(false)
		sleep(time.Minute)
		w.wantGone("M1")
		if len(w.up.of("M1")) != 0 {
			t.Error("an attempt was made")
		}
		w.end()
	})
}

// A failure that cannot be reported keeps its message for a day past its end, and not for ever.
func TestUnreportableFailureEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		broken := 0
		w := newWorld(t, func(o *queue.Options) {
			o.Report = func(queue.Notice) (*queue.NewMessage, error) {
				broken++
				return nil, errStore
			}
		})
		w.up.setAnswer(always(unknown))
		w.submit(message("M1", "anna"))
		sleep(71 * time.Hour) // it expires after 48
		if m := w.inStore("M1"); m == nil || m.Recipients[0].Status != queue.Pending {
			t.Fatalf("a failure that nobody was told of: %+v", m)
		}
		sleep(12 * time.Hour)
		w.wantGone("M1")
		if kinds := w.kinds("M1"); broken < 3 || kinds[len(kinds)-1] != trace.Report {
			t.Errorf("%d tries to report, trace %v", broken, kinds)
		}
		w.end()
	})
}

// A report that brings out a fault of ours is one that cannot be made: what it is about waits, and other mail goes on.
func TestReportThatPanics(t *testing.T) {
	bubble(t, func(t *testing.T) {
		panics := 0
		w := newWorld(t, func(o *queue.Options) {
			o.Report = func(queue.Notice) (*queue.NewMessage, error) {
				panics++
				panic("a reply that nobody thought of")
			}
		})
		w.up.setAnswer(always(unknown))
		w.submit(message("M1", "anna"))
		sleep(time.Hour)
		if m := w.inStore("M1"); panics == 0 || m == nil || m.Recipients[0].Status != queue.Pending {
			t.Fatalf("%d panics, %+v", panics, m)
		}
		w.up.setAnswer(always(delivered))
		w.submit(message("M2", "bert"))
		sleep(time.Minute)
		w.wantGone("M2")
		sleep(24 * time.Hour)
		w.wantGone("M1")
		w.end()
	})
}
