package queue_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"
)

// leaseOf is the lease of the nth attempt.
func (u *fakeUpstreams) leaseOf(id string, n int) *queue.Lease { return u.of(id)[n].lease }

// hold makes attempts end when the test says so.
func hold(r mail.Result) (answer func(context.Context, *queue.Message, mail.Content) []mail.Result, end func()) {
	over := make(chan struct{})
	return func(_ context.Context, m *queue.Message, _ mail.Content) []mail.Result {
		<-over
		return results(m, r)
	}, func() { close(over) }
}

func TestLeaseIsExtendedWhileAnAttemptRuns(t *testing.T) {
	for _, queued := range []bool{false, true} { // leased by Submit, or from the store
		bubble(t, func(t *testing.T) {
			w := newWorld(t, nil)
			answer, end := hold(delivered)
			w.up.setAnswer(answer)
			if m := message("M1", "anna"); queued {
				w.stock(m)
				w.q.Wake()
			} else {
				w.submit(m)
			}
			sleep(2 * time.Second)
			for range 60 {
				sleep(time.Minute)
				left := w.up.leaseOf("M1", 0).Left()
				if in := w.inStore("M1"); left < time.Minute || left > time.Until(in.LeaseUntil) {
					t.Fatalf("%v left for the attempt, %v in the store", left, time.Until(in.LeaseUntil))
				}
			}
			end()
			wait()
			w.wantGone("M1")
			w.end()
		})
	}
}

// While the store cannot be reached a lease runs out, and then stays over: by the time the store is back another node
// may have had the message.
func TestLeaseRunsOutWithoutTheStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := newMemstore()
		var away atomic.Bool
		away.Store(true)
		store.Fault = func(op string) error {
			if op == "extend" && away.Load() {
				return errStore
			}
			return nil
		}
		w := newWorld(t, func(o *queue.Options) { o.Store = store })
		w.store = store
		answer, end := hold(greylisted)
		w.up.setAnswer(answer)
		w.submit(message("M1", "anna"))
		wait()
		lease := w.up.leaseOf("M1", 0)
		sleep(4 * time.Minute)
		if left := lease.Left(); left <= 0 || left > time.Minute {
			t.Errorf("%v left after 4 minutes", left)
		}
		away.Store(false)
		sleep(20 * time.Second) // it is tried again soon
		if left := lease.Left(); left < 4*time.Minute {
			t.Errorf("%v left when the store is back", left)
		}
		away.Store(true)
		sleep(6 * time.Minute)
		if left := lease.Left(); left > 0 {
			t.Errorf("%v left after 6 minutes", left)
		}
		away.Store(false)
		sleep(2 * time.Minute)
		if left := lease.Left(); left > 0 {
			t.Errorf("%v left of a lease that had run out", left)
		}
		if in := w.inStore("M1"); in.LeaseOwner != "node1" || !in.LeaseUntil.After(time.Now()) {
			t.Errorf("the outcome has no lease: %+v", in)
		}
		end()
		wait()
		if in := w.inStore("M1"); in.LeaseOwner != "" || in.Recipients[0].Status != queue.Pending {
			t.Errorf("in the store %+v", in)
		}
		w.up.setAnswer(always(delivered))
		sleep(10 * time.Minute)
		w.wantGone("M1")
		w.end()
	})
}

// anotherNode takes over the message, as one does when the lease has run out, and keeps it.
func (w *world) anotherNode(id string) {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	r := w.store.rows[id]
	r.LeaseOwner, r.LeaseUntil = "node2", time.Now().Add(time.Hour)
	r.Attempts++
}

// Once another node has the message, the attempt here is told so at the next extension, and its outcome changes
// nothing, unless it delivered the message: that is recorded.
func TestLeaseOfAnotherNode(t *testing.T) {
	for _, c := range []struct {
		what   string
		result mail.Result
		kinds  []trace.Kind
		gone   bool
	}{
		{"deferred", greylisted, []trace.Kind{trace.Deferred, trace.Attempt}, false},
		{"refused", unknown, []trace.Kind{trace.Failed, trace.Attempt}, false},
		{"delivered", delivered, []trace.Kind{trace.Delivered}, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				notes := &journal{}
				w := newWorld(t, func(o *queue.Options) { o.Journal = notes })
				answer, end := hold(c.result)
				w.up.setAnswer(answer)
				w.submit(message("M1", "anna"))
				wait()
				lease := w.up.leaseOf("M1", 0)
				w.anotherNode("M1")
				sleep(3 * time.Minute)
				if left := lease.Left(); left > 0 {
					t.Errorf("%v left of what is another node's", left)
				}
				ops := w.store.Ops("extend")
				sleep(4 * time.Minute)
				if n := w.store.Ops("extend"); n != ops {
					t.Errorf("%d more extensions of a lost lease", n-ops)
				}
				before := w.inStore("M1")
				end()
				wait()
				if in := w.inStore("M1"); c.gone != (in == nil) {
					t.Errorf("the other node's message is %+v", in)
				} else if in != nil && (in.LeaseOwner != "node2" || in.Attempts != before.Attempts ||
					in.Recipients[0].Status != queue.Pending || !in.LeaseUntil.Equal(before.LeaseUntil)) {
					t.Errorf("the other node's message is %+v, was %+v", in, before)
				}
				if n := len(w.store.Fork().rows); n > 1 {
					t.Errorf("%d messages in the store: a report was added", n)
				}
				if notes.len() != 0 {
					t.Error("the journal keeps what another node decides")
				}
				w.wantKinds("M1", c.kinds...)
				w.end()

				// nor does the next life record it
				w.start(func(o *queue.Options) { o.Journal = notes })
				sleep(time.Second)
				if in := w.inStore("M1"); !c.gone && (in == nil || in.LeaseOwner != "node2") {
					t.Errorf("after a restart %+v", in)
				}
				w.end()
			})
		})
	}
}

// What was noted before this node was killed is recorded although another node has the message now: it was delivered to
// one of two, and the other goes on with the rest.
func TestJournalOfALostLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		notes := &journal{}
		m := message("M1", "anna", "a@example.net", "b@example.net")
		if _, err := notes.Note(queue.Note{ID: "M1", Attempt: 1, Results: []mail.Result{delivered}}); err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, store: newMemstore(), up: newUpstreams()}
		m.LeaseOwner, m.LeaseUntil, m.Attempts = "node1", time.Now().Add(5*time.Minute), 1
		w.stock(m)
		w.anotherNode("M1")
		w.start(func(o *queue.Options) { o.Journal = notes })
		sleep(time.Second)
		if in := w.inStore("M1"); in == nil || in.LeaseOwner != "node2" || in.Attempts != 3 ||
			in.Recipients[0].Status != queue.Delivered || in.Recipients[1].Status != queue.Pending {
			t.Errorf("in the store %+v", in)
		}
		w.wantKinds("M1", trace.Delivered)
		w.end()
	})
}

// A hand-off has no lease until its message is stored, and loses it where the store refuses: the client was told to
// send the message again.
func TestLeaseOfAHandOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := newMemstore()
		var fails atomic.Value // the operation
		fails.Store("")
		store.Fault = func(op string) error {
			if op == fails.Load() {
				return errStore
			}
			return nil
		}
		w := newWorld(t, func(o *queue.Options) { o.Store = store })
		w.store = store
		lease := new(queue.Lease)
		sleep(time.Hour) // a slow upstream
		if left := lease.Left(); left < 24*time.Hour {
			t.Errorf("%v left of what is not stored", left)
		}
		c := make(chan []mail.Result, 1)
		m := message("M1", "anna")
		if err := w.q.Adopt(context.Background(), m, body, lease, c, func() {}); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if left := lease.Left(); left < time.Minute || left > time.Until(w.inStore("M1").LeaseUntil) {
				t.Errorf("%v left", left)
			}
			sleep(time.Minute)
		}
		fails.Store("extend")
		sleep(6 * time.Minute)
		if left := lease.Left(); left > 0 {
			t.Errorf("%v left without extension", left)
		}
		c <- results(m, greylisted)
		wait()
		if in := w.inStore("M1"); in.LeaseOwner != "" {
			t.Errorf("in the store %+v", in)
		}

		refused := new(queue.Lease)
		c = make(chan []mail.Result, 1)
		m = message("M2", "anna")
		fails.Store("add")
		err := w.q.Adopt(context.Background(), m, body, refused, c, func() {})
		if reply, ok := mail.ReplyFor(err); !ok || !strings.HasPrefix(reply.String(), "451") || refused.Left() > 0 {
			t.Errorf("refused by %v, %v left", err, refused.Left())
		}
		c <- results(m, greylisted)
		wait()
		w.end()
	})
}

// What waits here in memory is tried as another node has left it, or not at all.
func TestTriedByAnotherNodeMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.setFree("office", 0)
		m := message("M1", "anna", "a@example.net", "b@example.net")
		w.submit(m)
		sleep(time.Second)
		w.store.mu.Lock()
		r := w.store.rows["M1"]
		r.Attempts, r.Recipients[0].Status = 1, queue.Delivered
		w.store.mu.Unlock()
		w.up.setFree("office", 1)
		sleep(10 * time.Second)
		if got := w.up.of("M1"); len(got) != 1 || got[0].pending != 1 || got[0].number != 2 {
			t.Errorf("attempts %+v, want one for one recipient", got)
		}
		w.wantGone("M1")
		w.end()
	})
}

// Another node records late that it delivered to one of two: the attempt that runs learns of it by its lease, and its
// own outcome is recorded on top.
func TestAnotherNodeRecordsLate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		answer, end := hold(greylisted)
		w.up.setAnswer(answer)
		w.submit(message("M1", "anna", "a@example.net", "b@example.net"))
		wait()
		lease, in := w.up.leaseOf("M1", 0), w.inStore("M1")
		in.Recipients[0].Status = queue.Delivered
		late := queue.Outcome{Recipients: in.Recipients}
		if err := w.store.Record(t.Context(), in.Version(), "node2", late); err != nil {
			t.Fatal(err)
		}
		sleep(3 * time.Minute)
		if left := lease.Left(); left > 0 {
			t.Errorf("%v left of a message that has changed", left)
		}
		end()
		wait()
		in = w.inStore("M1")
		if in == nil || in.LeaseOwner != "" || in.Recipients[0].Status != queue.Delivered ||
			in.Recipients[1].Status != queue.Pending || !in.NextAttempt.After(time.Now()) {
			t.Errorf("in the store %+v", in)
		}
		w.up.setAnswer(always(delivered))
		sleep(time.Hour)
		if got := w.up.of("M1"); len(got) != 2 || got[1].pending != 1 {
			t.Errorf("attempts %+v, want a second one for one recipient", got)
		}
		w.wantGone("M1")
		w.end()
	})
}
