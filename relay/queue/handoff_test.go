package queue_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"
)

func TestAdopt(t *testing.T) {
	released := 0
	release := func() { released++ }
	adopt := func(w *world, id string) (chan []mail.Result, *queue.Message, error) {
		c := make(chan []mail.Result, 1)
		m := message(id, "anna")
		released = 0
		return c, m, w.q.Adopt(context.Background(), m, body, new(queue.Lease), c, release)
	}
	wantReleased := func(t *testing.T, want int) {
		t.Helper()
		if released != want {
			t.Errorf("the place was given back %d times, want %d", released, want)
		}
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
			if in := w.inStore("M1"); in.LeaseOwner != "node1" || !in.LeaseUntil.After(time.Now()) ||
				in.Attempts != 1 || w.up.count() != 0 {
				t.Errorf("in the store %+v", in)
			}
			wantReleased(t, 0)
			c <- results(m, delivered)
			wait()
			w.wantGone("M1")
			w.wantKinds("M1", trace.Delivered)
			wantReleased(t, 1)
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
			wantReleased(t, 1)
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
			wantReleased(t, 1)
			w.store.Fault = nil
			w.end()
		})
	})
	t.Run("outcome is known", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, nil)
			wait()
			w.up.setAnswer(always(greylisted))
			w.up.setFree("office", 0) // the report stays where it is for now
			m := message("M1", "anna", "a@example.net", "b@example.net", "c@example.net")
			c := make(chan []mail.Result, 1)
			r := []mail.Result{delivered, unknown, greylisted}
			for i := range r {
				r[i].Recipient = i
			}
			c <- r
			released = 0
			if err := w.q.Adopt(context.Background(), m, body, new(queue.Lease), c, release); err != nil {
				t.Fatal(err)
			}
			wantReleased(t, 1)
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
			w.up.setFree("office", 10)
			w.q.Wake()
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

// A place is given back when the outcome is on record, so that a kill can repeat one message for each place; and when
// the store refuses to record it, since hand-offs can do without the store.
func TestPlaceIsKeptUntilTheOutcomeIsRecorded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.free["office"] = 1
		wait()
		var fails atomic.Bool
		w.store.Fault = func(op string) error {
			switch {
			case op != "finish":
			case fails.Load():
				return errStore
			default:
				time.Sleep(time.Minute) // a disk that syncs slowly
			}
			return nil
		}
		w.submit(message("M1", "anna"), message("M2", "bert"))
		sleep(time.Second)
		if len(w.up.of("M1")) != 1 || len(w.up.of("M2")) != 0 {
			t.Errorf("before the commit: attempts %v", w.up.attempts)
		}
		sleep(time.Minute)
		if len(w.up.of("M2")) != 1 {
			t.Errorf("after the commit: attempts %v", w.up.attempts)
		}
		sleep(2 * time.Minute)
		fails.Store(true)
		w.submit(message("M3", "anna"))
		wait()
		if len(w.up.of("M3")) != 1 || w.up.free["office"] != 1 {
			t.Errorf("the store refuses the outcome: %d places, attempts %v", w.up.free["office"], w.up.attempts)
		}
		fails.Store(false)
		sleep(time.Hour)
		w.wantGone("M1", "M2", "M3")
		w.end()
	})
}
