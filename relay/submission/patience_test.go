package submission

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/relay/queue"
)

// line is messages that wait for something, and how long each did.
type line struct {
	patience
	stop   chan struct{}
	done   sync.WaitGroup
	mu     sync.Mutex // guards what follows
	waited map[time.Duration]int
	tries  int
}

// wait has one more wait. until is when there is what it waits for.
func (l *line) wait(key string, most time.Duration, until time.Time) {
	l.done.Go(func() {
		began := time.Now()
		l.patience.wait(key, most, l.stop, func(now time.Time) bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.tries++
			return !now.Before(until)
		})
		l.mu.Lock()
		defer l.mu.Unlock()
		l.waited[time.Since(began)]++
	})
}

func (l *line) want(t *testing.T, what string, waited map[time.Duration]int) {
	t.Helper()
	l.done.Wait()
	if fmt.Sprint(l.waited) != fmt.Sprint(waited) {
		t.Errorf("%s: they waited %v, want %v", what, l.waited, waited)
	}
	clear(l.waited)
}

func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{stop: make(chan struct{}), waited: map[time.Duration]int{}}
		soon := func() time.Time { return time.Now().Add(100 * time.Millisecond) }
		never := time.Now().Add(time.Hour)

		for range 20 { // however often
			l.wait("a", time.Minute, soon())
			l.wait("a", time.Minute, soon())
			l.want(t, "soon free", map[time.Duration]int{100 * time.Millisecond: 2})
		}

		l.wait("a", time.Minute, never)
		time.Sleep(200 * time.Millisecond)
		l.wait("a", time.Minute, never)
		l.wait("b", time.Minute, soon())
		l.want(t, "in vain: nobody waits on", map[time.Duration]int{patienceLasts: 1,
			patienceLasts - 200*time.Millisecond: 1, 100 * time.Millisecond: 1})

		l.tries = 0
		for range 100 {
			l.wait("a", time.Minute, soon())
		}
		l.wait("b", time.Minute, soon())
		l.want(t, "at rest", map[time.Duration]int{0: 100, 100 * time.Millisecond: 1})
		time.Sleep(patienceRests)
		l.wait("a", time.Minute, soon())
		l.want(t, "rested", map[time.Duration]int{100 * time.Millisecond: 1})

		l.wait("a", 50*time.Millisecond, soon())
		l.want(t, "with less time", map[time.Duration]int{50 * time.Millisecond: 1})

		for range patientMost + 20 {
			l.wait("c", time.Minute, soon())
		}
		l.want(t, "many", map[time.Duration]int{100 * time.Millisecond: patientMost, 0: 20})

		for i := range 2 * keysMost {
			l.wait(fmt.Sprint(i), time.Minute, time.Now())
		}
		l.done.Wait()
		clear(l.waited)
		l.wait("d", time.Minute, time.Now())
		l.done.Wait()
		if n := len(l.keys); n > keysMost {
			t.Errorf("it knows %d keys", n)
		}
		clear(l.waited)

		l.wait("d", time.Minute, never)
		time.Sleep(50 * time.Millisecond)
		close(l.stop)
		l.want(t, "in the shutdown", map[time.Duration]int{50 * time.Millisecond: 1})
	})
}

// A message whose upstream is paused goes to the queue at once, and one that finds all slots taken has the first that
// gets free.
func TestHandOffWaitsForASlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			free, until, waits time.Duration
			got                bool
		}{
			"free":      {got: true},
			"soon free": {free: 100 * time.Millisecond, waits: 100 * time.Millisecond, got: true},
			"busy":      {free: time.Hour, waits: patienceLasts},
			"paused":    {free: time.Hour, until: time.Hour},
		} {
			began := time.Now()
			out := &busy{free: began.Add(c.free)}
			if c.until > 0 {
				out.until = began.Add(c.until)
			}
			u := &submission{now: began, message: &queue.Message{},
				service: &Service{Options: Options{Outbound: out, Queue: queue.New(queue.Options{})}}}
			got := u.slot(time.Minute) != nil
			if waited := time.Since(began); got != c.got || waited != c.waits {
				t.Errorf("%s: a slot %v after %s, want %v after %s", name, got, waited, c.got, c.waits)
			}
		}
	})
}
