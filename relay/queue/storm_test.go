package queue_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
)

// Mail that its upstream refuses for its sender's sake, while the upstream works, keeps to its retry times, though
// there is enough of it to fill windows, and though other mail of its route sleeps or slept.
func TestRefusedSendersKeepTheirRetryTimes(t *testing.T) {
	for _, slept := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, func(o *queue.Options) { o.Window = 20 })
			w.up.setAnswer(func(_ context.Context, m *queue.Message, _ mail.Content) []mail.Result {
				refused := badLogin
				refused.RetryAfter = 15 * time.Minute
				return results(m, refused)
			})
			if slept {
				w.up.paused["office"] = time.Now().Add(time.Hour)
			}
			for i := range 100 {
				w.submit(message(fmt.Sprintf("M%02d", i), "anna"))
			}
			sleep(3*time.Hour + 30*time.Minute)
			for i := range 100 {
				if n := len(w.up.of(fmt.Sprintf("M%02d", i))); n > 15 {
					t.Fatalf("slept: %v: M%02d was tried %d times in three hours", slept, i, n)
				}
			}
			w.end()
		})
	}
}

// What was under way when an upstream began to refuse, and is taken after that, wakes nobody: they would only be put
// off again.
func TestSuccessOfBeforeWakesNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(o *queue.Options) { o.Window = 100 })
		w.up.setFree("office", 20)
		var begun atomic.Int64
		w.up.setAnswer(func(ctx context.Context, m *queue.Message, c mail.Content) []mail.Result {
			return slowly(time.Duration(min(begun.Add(1), 20))*10*time.Second)(ctx, m, c)
		})
		for i := range 200 {
			w.submit(message(fmt.Sprintf("M%03d", i), "anna"))
		}
		sleep(time.Second)
		w.up.pause("office", time.Now().Add(2*time.Hour))
		sleep(5 * time.Second)
		postponed := w.store.Ops("postpone")
		sleep(time.Hour)
		if n := w.store.Ops("wake"); n != 0 {
			t.Errorf("the store was asked to wake %d times while the upstream was paused", n)
		}
		if n := w.store.Ops("postpone") - postponed; n != 0 {
			t.Errorf("mail was put off %d times more", n)
		}
		sleep(4 * time.Hour)
		if s, _ := w.store.Stats(context.Background()); s.Messages != 0 {
			t.Errorf("%d messages left", s.Messages)
		}
		w.end()
	})
}

// However long an upstream is paused, what sleeps for it is looked at each day.
func TestSleepLastsADayAtMost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(o *queue.Options) { o.Schedule.Expire, o.Schedule.WarnAfter = 30*24*time.Hour, 0 })
		w.up.paused["office"] = time.Now().Add(20 * 24 * time.Hour)
		w.submit(message("M1", "anna"))
		for range 10 {
			sleep(23 * time.Hour)
			if m := w.inStore("M1"); m.WaitingFor != "office" || time.Until(m.NextAttempt) > 24*time.Hour {
				t.Errorf("waits for %q until %v", m.WaitingFor, m.NextAttempt)
			}
		}
		sleep(12 * 24 * time.Hour)
		w.wantGone("M1")
		w.end()
	})
}

// lateAdd is a store where a message is added in the moment when a Wake has looked and not returned yet.
type lateAdd struct {
	queue.Store
	wakes, gate chan struct{}
}

func (s *lateAdd) Wake(ctx context.Context, name string, now time.Time, limit int) (int, error) {
	n, err := s.Store.Wake(ctx, name, now, limit)
	select {
	case s.wakes <- struct{}{}:
		<-s.gate
	default:
	}
	return n, err
}

func (s *lateAdd) Add(ctx context.Context, news ...queue.NewMessage) error {
	if news[0].Message.ID == "late" {
		<-s.wakes
	}
	return s.Store.Add(ctx, news...)
}

// A message that is committed as asleep while the last wake of its pause is on its way back is not left behind.
func TestAddedWhileTheLastWakeReturns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &lateAdd{wakes: make(chan struct{}), gate: make(chan struct{})}
		w := newWorld(t, func(o *queue.Options) { s.Store, o.Store = o.Store, s })
		w.up.paused["office"] = time.Now().Add(time.Minute)
		w.submit(message("M1", "anna"))
		w.submit(message("late", "anna")) // returns once the wake has looked
		close(s.gate)
		sleep(5 * time.Second)
		w.wantGone("M1", "late")
		w.end()
	})
}

// Probes that are deferred for reasons of their own, beside an upstream that other mail keeps busy, keep nobody asleep.
func TestSleepersWakeBesideASaturatedUpstream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.also = map[string]string{"anna": "backup"}
		w.up.setFree("office", 1)
		begin := time.Now()
		w.up.paused["office"], w.up.paused["backup"] = begin.Add(10*time.Minute), begin.Add(48*time.Hour)
		var mu sync.Mutex
		grey := make(map[string]bool)
		w.up.setAnswer(func(_ context.Context, m *queue.Message, _ mail.Content) []mail.Result {
			mu.Lock()
			defer mu.Unlock()
			if m.Login == "anna" && len(grey) < 4 { // the probes
				grey[m.ID] = true
			}
			if grey[m.ID] {
				return results(m, greylisted)
			}
			time.Sleep(5 * time.Second)
			return results(m, delivered)
		})
		for i := range 20 {
			w.submit(message(fmt.Sprintf("A%02d", i), "anna"))
		}
		sleep(10 * time.Minute)
		for i := range 800 { // others come as fast as they go
			w.stock(message(fmt.Sprintf("B%03d", i), fmt.Sprintf("bert%d", i%7)))
		}
		w.q.Wake()
		sleep(50 * time.Minute)
		for i := range 20 {
			if id := fmt.Sprintf("A%02d", i); !grey[id] {
				w.wantGone(id)
			}
		}
		w.end()
	})
}

// slowWake is a store in which each wake takes a second.
func slowWake(op string) error {
	if op == "wake" {
		time.Sleep(time.Second)
	}
	return nil
}

// Thousands of identities to wake, as after a restart, do not hold up mail that is due.
func TestManyNamesDoNotHoldUpDueMail(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := &world{t: t, store: memstoreFailing(""), up: newUpstreams()}
		w.up.route = func(m *queue.Message) string { return m.Login }
		for i := range 2000 {
			id := fmt.Sprintf("S%04d", i)
			w.stock(message(id, fmt.Sprintf("user%04d", i)))
			if err := w.store.Postpone(context.Background(), []queue.Version{{ID: id}}, time.Now().Add(20*time.Hour),
				fmt.Sprintf("name%04d", i)); err != nil {
				t.Fatal(err)
			}
		}
		w.stock(message("due", "anna"))
		w.store.Fault = slowWake
		w.start(nil)
		sleep(3 * time.Minute)
		w.wantGone("due")
		sleep(2 * time.Hour)
		if s, _ := w.store.Stats(context.Background()); s.Messages != 0 {
			t.Errorf("%d messages left", s.Messages)
		}
		w.end()
	})
}

// More routes are paused than are remembered: those beyond come back by their time, and none sleeps on when all work
// again.
func TestMorePausesThanAreRemembered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const identities = 4200
		w := newWorld(t, nil)
		w.up.route = func(m *queue.Message) string { return m.Login }
		until := time.Now().Add(time.Hour)
		for i := range identities {
			w.up.paused[fmt.Sprintf("user%04d", i)] = until
		}
		for i := range identities {
			w.submit(message(fmt.Sprintf("M%04d", i), fmt.Sprintf("user%04d", i)))
		}
		sleep(50 * time.Minute)
		if s := w.q.Stats(); s.Paused == 0 || s.Paused == identities || s.Window != 0 || w.up.count() != 0 {
			t.Errorf("stats %+v after %d attempts", s, w.up.count())
		}
		sleep(20 * time.Minute)
		if s, _ := w.store.Stats(context.Background()); s.Messages != 0 {
			t.Errorf("%d messages left", s.Messages)
		}
		if s := w.q.Stats(); s.Paused != 0 {
			t.Errorf("stats %+v", s)
		}
		w.end()
	})
}
