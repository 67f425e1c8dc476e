package queue_test

import (
	"context"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"
)

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
