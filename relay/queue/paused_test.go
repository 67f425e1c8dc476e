package queue

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var noon = time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)

func newPaused() *pausedRoutes { return &pausedRoutes{routes: make(map[string]*route)} }

// A pause that is over wakes a few, waits a minute for news of them, and asks before it wakes more.
func TestPausedRouteProbes(t *testing.T) {
	p, at := newPaused(), noon.Add(10*time.Minute)
	name := p.pause(Wait{Key: "office", Until: at}, &Message{ID: "M1"})
	p.asleep(noon, name)
	if name != "office" || !p.routes[name].closed(noon) || p.wantsWake(at.Add(-1)) || !p.wantsWake(at) {
		t.Fatalf("paused as %q: %+v", name, p.routes[name])
	}
	wakes := p.resume(at, 0, 100)
	if len(wakes) != 1 || wakes[0].limit != probes || p.wantsWake(at) {
		t.Fatalf("when the pause is over: %+v", wakes)
	}
	p.woken(at, wakes[0], probes, nil)
	later := at.Add(probeAgain)
	if ask := p.unheard(later.Add(-1)); ask != nil {
		t.Fatalf("asked too early: %v", ask)
	}
	ask := p.unheard(later)
	if len(ask) != 1 || ask[0].sample.ID != "M1" {
		t.Fatalf("asked about %v", ask)
	}
	for _, tt := range []struct {
		said  availability
		limit int // 0: none are woken
	}{{isPaused, 0}, {isBusy, probes}, {hasSlot, 50}} {
		p := copyOfPaused(p)
		p.answer(later, "office", tt.said, later.Add(time.Hour))
		wakes := p.resume(later, 0, 100)
		if tt.limit == 0 && len(wakes) == 0 && p.wakeAt.Equal(later.Add(time.Hour)) {
			continue
		}
		if len(wakes) != 1 || wakes[0].limit != tt.limit {
			t.Errorf("the dispatcher says %d: %+v", tt.said, wakes)
		}
	}
}

func copyOfPaused(p *pausedRoutes) *pausedRoutes {
	c := *p
	c.routes = make(map[string]*route)
	for name, r := range p.routes {
		copied := *r
		c.routes[name] = &copied
	}
	return &c
}

// News of a delivery ends a pause, unless it began while that was under way: then the dispatcher is asked.
func TestPausedRouteWorks(t *testing.T) {
	p := newPaused()
	p.pause(Wait{Key: "office", Until: noon.Add(time.Hour)}, &Message{ID: "M1"})
	if ask := p.works(noon, "another"); ask != nil || len(p.routes) != 1 {
		t.Fatal("a route that is not paused was noted")
	}
	ask := p.works(noon, "office")
	if len(ask) != 1 || p.routes["office"].open {
		t.Fatalf("asked %v", ask)
	}
	p.answer(noon, "office", isPaused, noon.Add(2*time.Hour))
	if !p.routes["office"].closed(noon.Add(90 * time.Minute)) {
		t.Fatal("the pause was not prolonged")
	}
	if ask := p.works(noon.Add(3*time.Hour), "office"); ask != nil || !p.routes["office"].open {
		t.Fatalf("behind the end of the pause: asked %v", ask)
	}
}

// After Wake closed routes are asked about, once a second at most.
func TestPausedRoutesArePolled(t *testing.T) {
	p := newPaused()
	p.pause(Wait{Key: "closed", Until: noon.Add(time.Hour)}, &Message{})
	p.pause(Wait{Key: "over", Until: noon.Add(-time.Hour)}, &Message{})
	p.asleep(noon, "never seen")
	if p.poll(noon) != nil {
		t.Fatal("polled without Wake")
	}
	p.polled = true
	if ask := p.poll(noon); len(ask) != 1 || ask[0].name != "closed" {
		t.Fatalf("asked %v", ask)
	}
	p.polled = true
	if p.poll(noon.Add(pollEvery-1)) != nil || p.at(noon.Add(time.Hour), true) != noon.Add(pollEvery) ||
		p.poll(noon.Add(pollEvery)) == nil {
		t.Fatal("not once a second")
	}
	p.answer(noon, "closed", isBusy, time.Time{})
	if !p.routes["closed"].open {
		t.Fatal("busy is not paused")
	}
}

// What another process put to sleep is woken too; a wake that fails is repeated, and one that may have missed a message
// as well.
func TestPausedRoutesForgetNobody(t *testing.T) {
	p := newPaused()
	if !p.beginNames(noon) || p.beginNames(noon) || !p.beginNames(noon.Add(namesEvery)) {
		t.Fatal("names are read each hour")
	}
	p.names(noon, []string{"office"}, nil)
	wake := p.resume(noon, 0, 100)[0]
	p.woken(noon, wake, 0, errors.New("disk on fire"))
	again := noon.Add(storeBackoff)
	if p.wantsWake(again.Add(-1)) || !p.wantsWake(again) {
		t.Fatalf("after a failure at %v", p.wakeAt)
	}
	p.unheard(again) // nobody ever said that it is paused
	wake = p.resume(again, 80, 100)[0]
	p.asleep(again, "office")
	if back := p.woken(again, wake, 3, nil); back || !p.wantsWake(again) || wake.limit != 50 {
		t.Fatalf("joined while it was woken: %+v, back %v", p.routes["office"], back)
	}
	wake = p.resume(again, 80, 100)[0]
	if p.wantsWake(again) {
		t.Fatal("a full window gets a second")
	}
	if back := p.woken(again, wake, 2, nil); !back || wake.route.woken != 5 || len(p.routes) != 0 {
		t.Fatalf("back %v with %+v", back, wake.route)
	}
}

func TestPausedRoutesAreBounded(t *testing.T) {
	p := newPaused()
	for n := range maxPaused + 1 {
		name := p.pause(Wait{Key: fmt.Sprint(n), Until: noon.Add(time.Hour)}, &Message{})
		if full := n >= maxPaused; full != (name == "") {
			t.Fatalf("route %d is called %q", n, name)
		}
	}
	if wakes := p.resume(noon.Add(time.Hour), 0, 10); len(wakes) != resumeMost || !p.wantsWake(noon.Add(time.Hour)) {
		t.Fatalf("%d wakes at a time", len(wakes))
	}
}

// Whatever upstreams, store and messages do: mail of a paused route is hardly touched, and when upstreams and store
// have worked for a while nothing sleeps any more.
func TestPausedRoutesProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &sleepers{t: t, p: newPaused(), now: noon, asleep: map[string]int{}, until: map[string]time.Time{},
			tried: map[string]int{}}
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "route")
			switch rapid.IntRange(0, 4).Draw(t, "event") {
			case 0:
				s.until[name] = s.now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "minutes")) * time.Minute)
			case 1:
				s.until[name] = time.Time{}
				s.p.polled = rapid.Bool().Draw(t, "told")
			case 2:
				for range rapid.IntRange(1, 30).Draw(t, "messages") {
					s.arrive(name)
				}
			case 3:
				s.broken = !s.broken
			case 4:
				s.pass(time.Duration(rapid.IntRange(1, 7200).Draw(t, "seconds")) * time.Second)
			}
		}
		s.broken = false
		clear(s.until)
		s.pass(3 * time.Hour)
		if n := s.asleep["a"] + s.asleep["b"] + s.asleep["c"]; n > 0 {
			t.Fatalf("%d messages sleep though all works: %+v", n, s.p)
		}
	})
}

// sleepers is what stands around the machine: a store with messages that sleep, and a dispatcher.
type sleepers struct {
	t      *rapid.T
	p      *pausedRoutes
	now    time.Time
	asleep map[string]int
	until  map[string]time.Time // of pauses
	tried  map[string]int       // in vain, since the last look
	broken bool                 // the store
}

// arrive is a message that is due: it is delivered, or goes to sleep.
func (s *sleepers) arrive(name string) {
	if !s.until[name].After(s.now) {
		s.ask(s.p.works(s.now, name))
		return
	}
	s.tried[name]++
	s.asleep[name]++
	s.p.asleep(s.now, s.p.pause(Wait{Key: name, Until: s.until[name]}, &Message{}))
}

func (s *sleepers) ask(questions []question) {
	for _, q := range questions {
		said := hasSlot
		if s.until[q.name].After(s.now) {
			said = isPaused
		}
		s.p.answer(s.now, q.name, said, s.until[q.name])
	}
}

// pass lets time pass, doing what the machine wants when it wants it.
func (s *sleepers) pass(d time.Duration) {
	for end := s.now.Add(d); ; {
		next := s.p.at(end.Add(1), false)
		if next.After(end) {
			s.now = end
			return
		}
		s.now = later(s.now, next)
		s.p.beginNames(s.now)
		s.ask(s.p.poll(s.now))
		s.ask(s.p.unheard(s.now))
		wakes := s.p.resume(s.now, 0, 20)
		if s.p.at(end, false).Before(s.now) {
			s.t.Fatalf("it wants more at once: %+v", s.p)
		}
		for _, w := range wakes {
			s.wake(w)
		}
	}
}

func (s *sleepers) wake(w wake) {
	if s.broken {
		s.p.woken(s.now, w, 0, errors.New("disk on fire"))
		return
	}
	n, open := min(w.limit, s.asleep[w.name]), w.route.open
	s.asleep[w.name] -= n
	clear(s.tried)
	for range n {
		s.arrive(w.name)
	}
	if s.tried[w.name] > probes && !open {
		s.t.Fatalf("%d messages were tried at once while the route was not known to work", s.tried[w.name])
	}
	s.p.woken(s.now, w, n, nil)
}
