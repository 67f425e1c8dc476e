package queue_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"
)

// Without anything to do the scheduler sleeps.
func TestIdleCostsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		m := message("M1", "anna")
		m.NextAttempt = time.Now().Add(24 * time.Hour)
		w.stock(m)
		w.q.Wake()
		sleep(23 * time.Hour)
		if n, names := w.store.Ops("due"), w.store.Ops("waitedfor"); n > 2 || names > 25 {
			t.Errorf("%d reads in a day without work, %d of names", n, names)
		}
		w.wantKinds("M1")
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
		before := w.store.Ops("postpone")
		w.submit(message("A999", "anna"))
		sleep(time.Second)
		w.wantGone("B1")
		if n := w.store.Ops("postpone"); n > 4 || n != before {
			t.Errorf("%d commits to postpone, %d for what came later", n, n-before)
		}
		if m := w.inStore("A999"); m.WaitingFor != "anna" || m.Attempts != 0 ||
			!m.NextAttempt.After(time.Now().Add(time.Hour)) {
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
		if len(delays) != 1 || delays[0].Time.Sub(start) > 4*time.Hour+2*time.Minute ||
			delays[0].Time.Sub(start) < 4*time.Hour {
			t.Errorf("delay reports %v", delays)
		}
		if len(failures) != 1 || !failures[0].About[0].Expired || failures[0].Time.Sub(start) < 48*time.Hour {
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
		sleep(10 * time.Minute) // all of them fell asleep
		attempts, questions, commits, due, rows := w.up.count(), w.up.asked(),
			w.store.Ops("postpone")+w.store.Ops("wake"), w.store.Ops("due"), w.store.Ops("due.rows")
		if attempts != 1 || questions > 10_100 || rows > 10_100 {
			t.Errorf("%d attempts, %d questions, %d rows until they slept", attempts, questions, rows)
		}
		sleep(3 * time.Hour)
		attempts, questions, commits, due, rows = w.up.count()-attempts, w.up.asked()-questions,
			w.store.Ops("postpone")+w.store.Ops("wake")-commits, w.store.Ops("due")-due, w.store.Ops("due.rows")-rows
		if attempts > 13 || questions > 13*8 || commits > 13*4 || due > 13*8 || rows > 13*16 {
			t.Errorf("in 12 back-offs: %d attempts, %d questions, %d commits, %d reads of %d rows", attempts, questions,
				commits, due, rows)
		}
		w.up.setAnswer(nil)
		w.up.free["office"] = 10
		w.up.pause("office", time.Time{})
		sleep(time.Minute)
		if s, _ := w.store.Stats(context.Background()); s.Messages != 0 {
			t.Errorf("%d messages left after the return", s.Messages)
		}
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

// The end of a pause is not missed because the last question was a moment ago.
func TestPauseEndsBetweenQuestions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.paused["office"] = time.Now().Add(24 * time.Hour)
		wait()
		w.submit(message("M1", "anna"))
		sleep(500 * time.Millisecond)
		w.q.Wake() // asks now, and reads at one second
		sleep(400 * time.Millisecond)
		w.up.pause("office", time.Time{})
		sleep(3 * time.Second)
		w.wantGone("M1")
		w.end()
	})
}

// Mail deferred for the upstream's sake waits for the upstream, not for its own retry time.
func TestBackPressureWaitsForUpstream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.route = func(m *queue.Message) string { return m.Login }
		for login, tt := range map[string]struct {
			result mail.Result
			pauses bool // what the upstream does with the account
			want   string
		}{"anna": {unreached, true, "anna"}, "bert": {badLogin, true, "bert"}, "carl": {greylisted, true, ""},
			"dora": {badLogin, false, ""}} {
			w.up.setAnswer(func(_ context.Context, m *queue.Message, _ mail.Content) []mail.Result {
				if tt.pauses {
					w.up.pause(m.Login, time.Now().Add(time.Hour))
				}
				return results(m, tt.result)
			})
			w.submit(message("M-"+login, login))
			wait()
			if m := w.inStore("M-" + login); m.WaitingFor != tt.want {
				t.Errorf("%s after %s, paused: %v, waits for %q", login, tt.result.Class, tt.pauses, m.WaitingFor)
			}
		}
		w.end()
	})
}

// Mail for an upstream that never has a place ends all the same, and its sender hears of it.
func TestMailWithoutAPlaceIsReported(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.route = func(m *queue.Message) string {
			if m.Login == "" {
				return "other"
			}
			return "office"
		}
		w.up.free["office"] = 0
		start := time.Now()
		w.submit(message("M1", "anna"), message("M2", "bert"))
		sleep(60 * time.Hour)
		for kind, due := range map[queue.NoticeKind]time.Duration{queue.Delay: 4 * time.Hour,
			queue.Failure: 49 * time.Hour} {
			made := w.notices(kind)
			if len(made) != 2 {
				t.Fatalf("%d %s reports", len(made), kind)
			}
			if late := made[1].Time.Sub(start) - due; late < 0 || late > 2*time.Minute {
				t.Errorf("%s report %v late", kind, late)
			}
		}
		w.wantGone("M1", "M2")
		if w.q.Stats() != (queue.WindowStats{}) {
			t.Errorf("stats %+v", w.q.Stats())
		}
		w.end()
	})
}

// Mail that slept when the process ended is woken by the next one, whatever it slept for.
func TestSleepersSurviveARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.route = func(m *queue.Message) string { return m.Login }
		w.up.paused["anna"] = time.Now().Add(10 * time.Hour)
		for i := range 100 {
			w.submit(message(fmt.Sprintf("M%02d", i), "anna"))
		}
		w.end()
		w.up.paused["anna"] = time.Now().Add(time.Hour)
		w.start(nil)
		sleep(50 * time.Minute)
		if n := w.up.count(); n != 0 {
			t.Errorf("%d attempts while the upstream is paused", n)
		}
		sleep(11 * time.Minute)
		if s, _ := w.store.Stats(context.Background()); s.Messages != 0 {
			t.Errorf("%d messages left", s.Messages)
		}
		w.end()
	})
}

// Another process put messages to sleep whose upstream is fine here.
func TestSleepersOfOthersAreFound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		wait()
		for i := range 20 {
			w.stock(message(fmt.Sprintf("M%02d", i), "anna"))
			if err := w.store.Postpone(context.Background(), []queue.Version{{ID: fmt.Sprintf("M%02d", i)}},
				time.Now().Add(20*time.Hour), "no longer configured"); err != nil {
				t.Fatal(err)
			}
		}
		sleep(time.Hour + time.Minute)
		if s, _ := w.store.Stats(context.Background()); s.Messages != 0 {
			t.Errorf("%d messages left", s.Messages)
		}
		w.end()
	})
}

// What sleeps for two upstreams is woken when either returns, though the other is dead and others sleep for it alone.
func TestSleepersWakeWithAnyUpstreamOfTheirRoute(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.also = map[string]string{"anna": "backup"}
		w.up.paused["office"], w.up.paused["backup"] = time.Now().Add(10*time.Hour), time.Now().Add(11*time.Hour)
		wait()
		for i := range 50 {
			w.submit(message(fmt.Sprintf("A%02d", i), "anna"), message(fmt.Sprintf("B%02d", i), "bert"))
		}
		if m := w.inStore("A00"); m.WaitingFor != "office, backup" {
			t.Errorf("A00 waits for %q", m.WaitingFor)
		}
		sleep(time.Minute)
		w.up.pause("backup", time.Time{})
		sleep(time.Minute)
		for i := range 50 {
			w.wantGone(fmt.Sprintf("A%02d", i))
			if w.inStore(fmt.Sprintf("B%02d", i)) == nil {
				t.Errorf("B%02d is gone", i)
			}
		}
		w.end()
	})
}

// A route whose line is that of another's upstream does not sleep with it.
func TestPauseOfOneRouteIsNotThatOfAnother(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.also = map[string]string{"anna": "backup"}
		w.up.free["office"] = 0
		for i := range 20 {
			w.submit(message(fmt.Sprintf("B%02d", i), "bert"), message(fmt.Sprintf("A%02d", i), "anna"))
		}
		sleep(time.Second)
		w.up.pause("office", time.Now().Add(10*time.Hour))
		sleep(time.Minute)
		for i := range 20 {
			w.wantGone(fmt.Sprintf("A%02d", i))
		}
		w.end()
	})
}

// A window full of mail for a busy upstream does not keep asleep what waited for another one.
func TestSleepersWakeBesideABusyUpstream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(o *queue.Options) { o.Window = 20 })
		w.up.route = func(m *queue.Message) string { return m.Login }
		w.up.paused["anna"] = time.Now().Add(time.Hour)
		w.up.free["bulk"] = 0
		for i := range 100 {
			w.submit(message(fmt.Sprintf("A%03d", i), "anna"), message(fmt.Sprintf("B%03d", i), "bulk"))
		}
		sleep(time.Hour + 5*time.Minute)
		for i := range 100 {
			w.wantGone(fmt.Sprintf("A%03d", i))
		}
		w.end()
	})
}

// A pause that ends while a message is being added as asleep does not leave it behind.
func TestPauseEndsWhileAMessageIsAdded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.paused["office"] = time.Now().Add(time.Minute)
		wait()
		w.store.Fault = func(op string) error {
			if op == "add" {
				time.Sleep(10 * time.Minute) // the pause is over and forgotten when it is committed
			}
			return nil
		}
		w.submit(message("M1", "anna"))
		sleep(time.Minute)
		w.wantGone("M1")
		w.wantKinds("M1", trace.Attempt, trace.Delivered) // it was told to sleep
		w.end()
	})
}

// A store that cannot wake does not leave anything asleep, nor does a pause that begins anew meanwhile.
func TestWakingSurvivesAFailingStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		begin := time.Now()
		w.up.paused["office"] = begin.Add(time.Minute)
		var fails atomic.Bool
		w.store.Fault = func(op string) error {
			if op == "wake" && fails.Load() {
				time.Sleep(3 * time.Second)
				return errStore
			}
			return nil
		}
		for i := range 50 {
			w.submit(message(fmt.Sprintf("M%02d", i), "anna"))
		}
		sleep(59 * time.Second)
		fails.Store(true)
		sleep(2 * time.Second)
		w.up.pause("office", begin.Add(time.Hour))
		sleep(time.Second)
		w.submit(message("N1", "anna")) // is told of it
		fails.Store(false)
		sleep(57 * time.Minute)
		if n := w.up.count(); n != 0 {
			t.Errorf("%d attempts while the upstream was paused", n)
		}
		sleep(3 * time.Minute)
		if s, _ := w.store.Stats(context.Background()); s.Messages != 0 {
			t.Errorf("%d messages left", s.Messages)
		}
		w.end()
	})
}
