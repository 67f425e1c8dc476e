package submission

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/relay/queue"
)

// crowd is messages that wait, and how long each did.
type crowd struct {
	patience
	stop   chan struct{}
	done   sync.WaitGroup
	mu     sync.Mutex // guards what follows
	waited map[time.Duration]int
	tries  int
}

// wait has one more wait. until is when there is what it waits for.
func (c *crowd) wait(key string, most time.Duration, until time.Time) {
	c.done.Go(func() {
		began := time.Now()
		c.patience.wait(key, most, c.stop, func(now time.Time) bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.tries++
			return !now.Before(until)
		})
		c.mu.Lock()
		defer c.mu.Unlock()
		c.waited[time.Since(began)]++
	})
	synctest.Wait()
}

func (c *crowd) want(t *testing.T, what string, waited map[time.Duration]int) {
	t.Helper()
	c.done.Wait()
	if fmt.Sprint(c.waited) != fmt.Sprint(waited) {
		t.Errorf("%s: they waited %v, want %v", what, c.waited, waited)
	}
	clear(c.waited)
}

func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const soonFree, ms = 100 * time.Millisecond, time.Millisecond
		c := &crowd{stop: make(chan struct{}), waited: map[time.Duration]int{}}
		soon := func() time.Time { return time.Now().Add(soonFree) }
		never := time.Now().Add(time.Hour)

		for range 20 { // however often
			c.wait("a", time.Minute, soon())
			c.wait("a", time.Minute, soon())
			c.want(t, "soon free", map[time.Duration]int{soonFree: 2})
		}

		c.wait("a", time.Minute, never)
		time.Sleep(200 * ms)
		c.wait("a", time.Minute, soon()) // it is not its turn
		c.wait("b", time.Minute, soon())
		c.want(t, "in vain: nothing waits on", map[time.Duration]int{patienceLasts: 1, patienceLasts - 200*ms: 1,
			soonFree: 1})

		for range 100 {
			c.wait("a", time.Minute, soon())
		}
		c.wait("b", time.Minute, soon())
		c.want(t, "at rest", map[time.Duration]int{0: 100, soonFree: 1})
		time.Sleep(patienceRests)
		c.wait("a", time.Minute, soon())
		c.want(t, "rested", map[time.Duration]int{soonFree: 1})

		c.wait("a", 50*ms, never)
		c.wait("a", time.Minute, soon())
		c.want(t, "one with less time", map[time.Duration]int{50 * ms: 1, soonFree: 1})

		c.tries = 0
		for range patientMost + 20 {
			c.wait("c", time.Minute, soon())
		}
		c.want(t, "many", map[time.Duration]int{soonFree: patientMost, 0: 20})
		if most := patientMost + int(soonFree/askAgain) + 1; c.tries > most {
			t.Errorf("%d asked %d times, want %d at most", patientMost, c.tries, most)
		}

		for i := range 1000 {
			c.wait(fmt.Sprint(i), time.Minute, time.Now())
		}
		c.done.Wait()
		clear(c.waited)
		if n := len(c.lines); n > 2 {
			t.Errorf("it knows %d keys where nothing waits", n)
		}

		c.wait("d", time.Minute, never)
		time.Sleep(50 * ms)
		close(c.stop)
		c.want(t, "in the shutdown", map[time.Duration]int{50 * ms: 1})
	})
}

// counter is a way out with some slots. Each is used for a while.
type counter struct {
	Outbound
	mu      sync.Mutex // guards what follows
	free    int
	waiting int // in the queue
}

type lent struct {
	queue.Slot
	c *counter
}

func (c *counter) ReserveNow(time.Time, *queue.Message) (queue.Slot, queue.Wait) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.free == 0 {
		return nil, queue.Wait{Key: "sink"}
	}
	c.free--
	return lent{c: c}, queue.Wait{Key: "sink"}
}

func (l lent) Release() {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.c.free++
}

// set makes some slots free, and has messages wait in the queue.
func (c *counter) set(free, waiting int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.free, c.waiting = free, waiting
}

func (c *counter) waiters(string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting
}

// Slots are given in the order in which messages came, those of the queue first.
func TestNobodyOvertakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{free: 1, waiting: 1}
		s := &Service{Options: Options{Outbound: c}, waiters: c.waiters}
		had := make(chan string, 4)
		var done sync.WaitGroup
		submit := func(id string) {
			done.Go(func() {
				if slot := s.slot(time.Now(), &queue.Message{}, time.Minute); slot != nil {
					had <- id
					time.Sleep(50 * time.Millisecond)
					slot.Release()
				}
			})
			synctest.Wait()
		}
		submit("a")
		time.Sleep(50 * time.Millisecond)
		submit("b")
		time.Sleep(50 * time.Millisecond)
		if len(had) > 0 {
			t.Errorf("%s had a slot before the queue", <-had)
		}
		c.set(1, 0)
		time.Sleep(25 * time.Millisecond)
		c.set(1, 0) // one more is free, and "b" has not noticed yet
		submit("c")
		done.Wait()
		submit("d")
		done.Wait()
		close(had)
		var order string
		for id := range had {
			order += id
		}
		if order != "abcd" || c.free != 2 || s.patience.waits("sink") {
			t.Errorf("they had slots in the order %s; %d are free, something waits: %v", order, c.free,
				s.patience.waits("sink"))
		}
	})
}

// More clients than slots all have one in time, without the queue.
func TestMoreClientsThanSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{free: 20}
		s := &Service{Options: Options{Outbound: c}, waiters: c.waiters}
		var done sync.WaitGroup
		longest := make([]time.Duration, 100)
		for client := range longest {
			done.Go(func() {
				for range 50 {
					began := time.Now()
					slot := s.slot(time.Now(), &queue.Message{}, time.Minute)
					longest[client] = max(longest[client], time.Since(began))
					if slot == nil {
						t.Errorf("client %d has no slot", client)
						return
					}
					time.Sleep(50 * time.Millisecond)
					slot.Release()
				}
			})
		}
		done.Wait()
		for client, d := range longest {
			if d > 250*time.Millisecond { // five turns
				t.Errorf("client %d waited %v", client, d)
			}
		}
	})
}

// What is paused goes to the queue at once.
func TestHandOffWaitsForASlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]busyCase{
			"free":      {got: true},
			"soon free": {free: 100 * time.Millisecond, waits: 100 * time.Millisecond, got: true},
			"busy":      {free: time.Hour, waits: patienceLasts},
			"paused":    {free: time.Hour, until: time.Hour},
		} {
			c.check(t, name, func(out Outbound) queue.Slot {
				s := &Service{Options: Options{Outbound: out}, waiters: func(string) int { return 0 }}
				return s.slot(time.Now(), &queue.Message{}, time.Minute)
			})
		}
	})
}

// routed is a way out whose messages have moved to another upstream since they began to wait.
type routed struct{ *counter }

func (r routed) ReserveNow(now time.Time, m *queue.Message) (queue.Slot, queue.Wait) {
	slot, _ := r.counter.ReserveNow(now, m)
	return slot, queue.Wait{Key: "other"}
}

// Who comes to another upstream by a new route does not overtake what waits for that one.
func TestNobodyOvertakesByAnotherRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{free: 1}
		s := &Service{Options: Options{Outbound: routed{c}}, waiters: c.waiters}
		first := s.patience.enter("other", time.Now())
		if slot, _ := s.slotNow(time.Now(), &queue.Message{}, "sink"); slot != nil || c.free != 1 {
			t.Errorf("it has a slot %v; %d are free", slot, c.free)
		}
		s.patience.leave("other", first)
		if slot, _ := s.slotNow(time.Now(), &queue.Message{}, "sink"); slot == nil {
			t.Error("it has no slot, though nothing waits")
		}
	})
}
