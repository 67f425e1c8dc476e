package queue_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"
)

// cutShort begins a queue whose store does not come to commit outcomes, lets it try one message, and returns what a
// kill leaves.
func cutShort(t *testing.T, w *world, j *journal, m *queue.Message) (left *world) {
	t.Helper()
	w.store.Fault = func(op string) error {
		if op == "finish" {
			time.Sleep(24 * time.Hour)
			return errStore
		}
		return nil
	}
	w.submit(m)
	sleep(time.Minute)
	left = &world{t: t, store: w.store.Fork(), up: newUpstreams()}
	left.start(func(o *queue.Options) { o.Journal = j })
	return left
}

// What an upstream took is not sent again, though the process ended before it was committed.
func TestKilledBeforeTheCommit(t *testing.T) {
	withJournal := func(j *journal) func(*queue.Options) {
		return func(o *queue.Options) { o.Journal = j }
	}
	t.Run("taken", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			var j journal
			w := newWorld(t, withJournal(&j))
			left := cutShort(t, w, &j, message("M1", "anna"))
			sleep(time.Hour)
			if n := left.up.count(); n != 0 {
				t.Errorf("%d attempts in the next life", n)
			}
			left.wantGone("M1")
			left.wantKinds("M1", trace.Delivered)
			if j.len() != 0 {
				t.Error("the journal was not cleared")
			}
			left.end()
			w.stop()
			sleep(48 * time.Hour)
		})
	})
	t.Run("taken for some", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			var j journal
			w := newWorld(t, withJournal(&j))
			w.up.setAnswer(func(_ context.Context, m *queue.Message, _ mail.Content) []mail.Result {
				out := []mail.Result{delivered, unknown, greylisted}
				for i := range out {
					out[i].Recipient = i
				}
				return out
			})
			left := cutShort(t, w, &j, message("M1", "anna", "a@example.net", "b@example.net", "c@example.net"))
			wait()
			in := left.inStore("M1")
			var states []queue.Status
			for _, to := range in.Recipients {
				states = append(states, to.Status)
			}
			if want := []queue.Status{queue.Delivered, queue.Failed, queue.Pending}; !slices.Equal(states, want) {
				t.Errorf("recipients are %v, want %v", states, want)
			}
			if in.LeaseOwner != "" || len(left.notices(queue.Failure)) != 1 {
				t.Errorf("in the store %+v after %d failure reports", in, len(left.notices(queue.Failure)))
			}
			sleep(time.Hour)
			if got := left.up.of("M1"); len(got) != 1 || got[0].number != 2 {
				t.Errorf("attempts %v", got)
			}
			left.wantGone("M1")
			left.end()
			w.stop()
			sleep(48 * time.Hour)
		})
	})
	t.Run("taken for some, then cut", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			var j journal
			w := newWorld(t, withJournal(&j))
			w.up.meanwhile = func(_ *queue.Message, taken func([]mail.Result)) {
				taken([]mail.Result{delivered}) // of the first recipient
				time.Sleep(48 * time.Hour)
			}
			left := cutShort(t, w, &j, message("M1", "anna", "a@example.net", "b@example.net"))
			sleep(time.Hour)
			got := left.up.of("M1")
			if len(got) != 1 || got[0].pending != 1 {
				t.Errorf("attempts %+v, want one for one recipient", got)
			}
			left.end()
			w.stop()
			sleep(96 * time.Hour)
		})
	})
	t.Run("nothing taken", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			var j journal
			w := newWorld(t, withJournal(&j))
			w.up.setAnswer(always(greylisted))
			left := cutShort(t, w, &j, message("M1", "anna"))
			sleep(time.Hour)
			if got := left.up.of("M1"); len(got) != 1 {
				t.Errorf("attempts %v", got)
			}
			left.end()
			w.stop()
			sleep(48 * time.Hour)
		})
	})
	t.Run("a note of an earlier attempt", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			var j journal
			if _, err := j.Note(queue.Note{ID: "M1", Attempt: 1,
				Results: []mail.Result{{Class: mail.Delivered, Reply: delivered.Reply}}}); err != nil {
				t.Fatal(err)
			}
			if _, err := j.Note(queue.Note{ID: "gone", Attempt: 1,
				Results: []mail.Result{{Class: mail.Delivered, Reply: delivered.Reply}}}); err != nil {
				t.Fatal(err)
			}
			w := &world{t: t, store: memstoreFailing(""), up: newUpstreams()}
			m := message("M1", "anna")
			m.LeaseOwner, m.LeaseUntil, m.Attempts = "node1", time.Now().Add(time.Hour), 2
			w.stock(m)
			w.start(withJournal(&j))
			sleep(time.Second)
			if got := w.up.of("M1"); len(got) != 0 { // another node has recorded something of its own since
				t.Errorf("attempts %v", got)
			}
			w.wantGone("M1")
			w.end()
		})
	})
}

// A node that has another name now finds what it noted, though the lease is of the name before: it runs out still.
func TestKilledUnderAnotherName(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, owner := range []string{"former", ""} { // "": another node has put the message off since
			var j journal
			if _, err := j.Note(queue.Note{ID: "M1", Attempt: 1, Results: []mail.Result{delivered}}); err != nil {
				t.Fatal(err)
			}
			w := &world{t: t, store: newMemstore(), up: newUpstreams()}
			m := message("M1", "anna")
			m.LeaseOwner, m.LeaseUntil, m.Attempts = owner, time.Now().Add(time.Minute), 1
			w.stock(m)
			w.start(func(o *queue.Options) { o.Journal = &j })
			sleep(time.Hour)
			if got := w.up.of("M1"); len(got) != 0 {
				t.Errorf("owner %q: it is sent again: %v", owner, got)
			}
			w.wantGone("M1")
			w.end()
		}
	})
}

// A message that is gone before its outcome is committed leaves no note behind, here or at the next start.
func TestNoteOfAMessageThatIsGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var j journal
		w := newWorld(t, func(o *queue.Options) { o.Journal = &j })
		w.up.meanwhile = func(m *queue.Message, taken func([]mail.Result)) { taken([]mail.Result{delivered}) }
		gone := func(op string) error {
			if op == "finish" {
				return queue.ErrNotFound
			}
			return nil
		}
		w.store.Fault = gone
		w.submit(message("M1", "anna", "a@example.net", "b@example.net"))
		sleep(time.Second)
		if n := j.len(); n != 0 || j.forgot != 2 {
			t.Errorf("%d notes are kept, %d were forgotten", n, j.forgot)
		}
		w.end()

		left := &world{t: t, store: memstoreFailing("nothing"), up: newUpstreams()}
		m := message("M3", "anna")
		m.LeaseOwner, m.LeaseUntil, m.Attempts = "node1", time.Now().Add(time.Hour), 1
		left.stock(m)
		if _, err := j.Note(queue.Note{ID: "M3", Attempt: 1,
			Results: []mail.Result{{Class: mail.Delivered, Reply: delivered.Reply}}}); err != nil {
			t.Fatal(err)
		}
		left.store.Fault = gone
		left.start(func(o *queue.Options) { o.Journal = &j })
		select {
		case err := <-left.done:
			t.Errorf("Run ended: %v", err)
		default:
			left.end()
		}
	})
}

// Run waits for hand-offs that are under way when it is to stop, however late they end: what they brought is in the
// journal, which is closed when Run has returned, and the next life repeats none.
func TestStopWhileHandOffsRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var j journal
		w := newWorld(t, func(o *queue.Options) { o.Journal = &j })
		w.store.Fault = func(op string) error {
			if op == "finish" {
				return errStore
			}
			return nil
		}
		var released atomic.Int32
		adopt := func(id string, takes time.Duration) {
			c := make(chan []mail.Result, 1)
			go func() {
				time.Sleep(takes)
				c <- []mail.Result{delivered}
			}()
			if err := w.q.Adopt(context.Background(), message(id, "anna"), body, new(queue.Lease), c,
				func() { released.Add(1) }); err != nil {
				t.Fatal(err)
			}
		}
		adopt("M1", time.Second)      // before the drain deadline
		adopt("M2", 35*time.Second)   // while outcomes may still be recorded
		adopt("M3", 50*time.Second)   // later
		adopt("M4", 1000*time.Second) // much later
		w.stop()
		if err := <-w.done; err == nil {
			t.Error("outcomes are missing, and Run does not say so")
		}
		adopt("M5", 10*time.Second) // nobody is there any more
		j.close()
		if n := released.Load(); n != 5 || j.len() != 5 {
			t.Errorf("%d places were given back and %d answers noted, want 5", n, j.len())
		}
		sleep(time.Hour)
		w.store.Fault, j.closed = nil, false
		next := &world{t: t, store: w.store, up: newUpstreams()}
		next.start(func(o *queue.Options) { o.Journal = &j })
		sleep(time.Hour)
		next.wantGone("M1", "M2", "M3", "M4", "M5")
		if n := next.up.count(); n != 0 {
			t.Errorf("%d attempts in the next life", n)
		}
		next.end()
	})
}

// With a journal the place is free before the commit; a journal that fails keeps it until then.
func TestJournalFreesThePlace(t *testing.T) {
	for _, refuses := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			j := journal{refuses: refuses}
			w := newWorld(t, func(o *queue.Options) { o.Journal = &j })
			w.up.setFree("office", 1)
			w.store.Fault = func(op string) error {
				if op == "finish" {
					time.Sleep(time.Minute)
				}
				return nil
			}
			w.submit(message("M1", "anna"), message("M2", "bert"))
			sleep(10 * time.Second)
			if got := len(w.up.of("M2")) == 1; got == refuses {
				t.Errorf("the journal refuses: %v, the second message was tried before the commit: %v", refuses, got)
			}
			sleep(time.Hour)
			w.wantGone("M1", "M2")
			if j.len() != 0 || !refuses && j.forgot != 2 {
				t.Errorf("%d notes are kept, %d were forgotten", j.len(), j.forgot)
			}
			w.end()
		})
	}
}
