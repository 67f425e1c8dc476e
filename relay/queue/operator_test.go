package queue_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"postern/relay/queue"
	"postern/relay/trace"
)

// bounce gives a message up as the command line does, and tells the queue.
func (w *world) bounce(id string) {
	w.t.Helper()
	if n, err := w.store.Bounce(context.Background(), queue.Filter{IDs: []string{id}}, time.Now()); n != 1 ||
		err != nil {
		w.t.Fatalf("bounce %s: %d, %v", id, n, err)
	}
	w.q.Refresh()
}

// What a person gives up while it is being put to sleep, or while its delay report is committed, is given up at once.
func TestBounceWhileGoingToSleep(t *testing.T) {
	var slow atomic.Value
	slowly := func(op string) error {
		if op == slow.Load() {
			time.Sleep(10 * time.Second)
		}
		return nil
	}
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.store.Fault = slowly
		w.up.silent = true
		w.up.route = func(m *queue.Message) string { return m.Login }
		w.up.setFree("anna", 0)
		w.up.paused["bert"] = time.Now().Add(time.Minute)
		w.submit(message("M1", "anna"), message("B1", "bert"))
		sleep(59 * time.Second)
		slow.Store("wake") // of B1
		sleep(2 * time.Second)
		w.up.pause("anna", time.Now().Add(10*time.Hour))
		sleep(2 * time.Second)
		w.bounce("M1")
		sleep(10 * time.Second)
		w.wantGone("M1")
		w.wantKinds("M1", trace.Attempt, trace.Failed, trace.Report) // it was told to sleep
		w.end()
	})
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.store.Fault = slowly
		slow.Store("finish")
		w.up.paused["office"] = time.Now().Add(10 * time.Hour)
		w.submit(message("M1", "anna"))
		sleep(4*time.Hour + time.Minute + 5*time.Second)
		w.bounce("M1")
		sleep(30 * time.Second)
		w.wantGone("M1")
		if n := len(w.notices(queue.Delay)); n != 1 {
			t.Errorf("%d delay reports", n)
		}
		w.end()
	})
}

// A person's word about mail that sleeps is heard, and what is not named sleeps on.
func TestOperatorWhileAsleep(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.paused["office"] = time.Now().Add(time.Hour)
		ids := []string{"bounced", "deleted", "held", "released", "retried", "left"}
		for _, id := range ids {
			w.submit(message(id, "anna"))
		}
		sleep(time.Minute)
		only := func(id string) queue.Filter { return queue.Filter{IDs: []string{id}} }
		ctx, now := context.Background(), time.Now()
		for _, id := range []string{"held", "released"} {
			if n, err := w.store.Hold(ctx, only(id), "why not"); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}
		if n, err := w.store.Delete(ctx, only("deleted")); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if n, err := w.store.Release(ctx, only("released"), now); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if n, err := w.store.Retry(ctx, only("retried"), now); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		w.bounce("bounced")
		sleep(time.Minute)
		w.wantGone("bounced", "deleted")
		if n := w.up.count(); n != 0 {
			t.Errorf("%d attempts while the upstream is paused", n)
		}
		for _, id := range []string{"released", "retried", "left"} {
			if m := w.inStore(id); m == nil || m.WaitingFor != "office" {
				t.Errorf("%s: %+v", id, m)
			}
		}
		sleep(time.Hour)
		w.wantGone("released", "retried", "left")
		if m := w.inStore("held"); m == nil || !m.Held || len(w.up.of("held")) > 0 {
			t.Errorf("held: %+v", m)
		}
		if _, err := w.store.Release(ctx, only("held"), time.Now()); err != nil {
			t.Fatal(err)
		}
		w.q.Refresh()
		sleep(5 * time.Second)
		w.wantGone("held")
		w.end()
	})
}
