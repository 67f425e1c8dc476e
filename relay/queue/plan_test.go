package queue

import (
	"context"
	"fmt"
	"testing"
	"time"

	"postern/mail"
)

// askFunc is a Dispatcher.
type askFunc func(m *Message) (free bool, w Wait)

func (f askFunc) Reserve(_ time.Time, m *Message) (Slot, Wait) {
	free, w := f(m)
	if free {
		return noSlot{}, w
	}
	return nil, w
}

type noSlot struct{}

func (noSlot) Release() {}
func (noSlot) Attempt(context.Context, *Message, mail.Content, *Lease, func([]mail.Result)) []mail.Result {
	return nil
}

// Why a message is not tried now: docs/queue.md, as the plan sees it.
func TestPlanWhyNotNow(t *testing.T) {
	var (
		free   = func(*Message) (bool, Wait) { return true, Wait{Key: "office"} }
		busy   = func(*Message) (bool, Wait) { return false, Wait{Key: "office"} }
		paused = func(*Message) (bool, Wait) { return false, Wait{Key: "office", Until: noon.Add(time.Hour)} }
	)
	for _, tt := range []struct {
		name   string
		says   askFunc
		change func(*plan, *Message)
		want   string // attempts, reviews, postponed, waiting
		then   string // a minute later
	}{
		{"a slot is free", free, nil, "1 0 0 0", "1 0 0 0"},
		{"all slots are taken", busy, nil, "0 0 0 1", "0 0 0 1"},
		{"its route is paused", paused, nil, "0 0 1 0", "0 0 1 0"},
		{"its route was paused when it came", free, func(p *plan, m *Message) {
			p.routes.pause(Wait{Key: "office", Until: noon.Add(time.Hour)}, m)
			m.WaitingFor = "office"
		}, "0 0 1 0", "0 0 1 0"},
		{"its time is over, and its route is paused", paused, func(_ *plan, m *Message) {
			m.Expires = noon
		}, "0 1 0 0", "0 1 0 0"},
		{"its time is over, and all slots are taken", busy, func(_ *plan, m *Message) {
			m.Expires = noon.Add(-time.Minute)
		}, "0 0 0 1", "0 0 0 1"},
		{"its time is long over, and all slots are taken", busy, func(_ *plan, m *Message) {
			m.Expires = noon.Add(-maxWait)
		}, "0 0 0 1", "0 1 0 0"},
		{"a person gave it up", free, func(_ *plan, m *Message) { m.Bounce = true }, "0 1 0 0", "0 1 0 0"},
		{"the store fails", free, func(p *plan, _ *Message) { p.health.fails(noon, writes) }, "0 0 0 1", "1 0 0 0"},
		{"the window is full", free, func(p *plan, _ *Message) { p.window.size = 0 }, "0 0 0 0", "0 0 0 0"},
		{"it is held", free, func(_ *plan, m *Message) { m.Held = true }, "0 0 0 0", "0 0 0 0"},
		{"it is not due", free, func(_ *plan, m *Message) {
			m.NextAttempt = noon.Add(time.Minute)
		}, "0 0 0 0", "0 0 0 0"}, // a read finds it
	} {
		times := &timetable{}
		times.schedule.Store(&Schedule{Retry: []time.Duration{time.Minute}, Expire: 48 * time.Hour})
		p := newPlan(Options{Window: 10, LeaseFor: time.Minute, Dispatcher: tt.says}, times)
		m := &Message{ID: "M1", Login: "anna", NextAttempt: noon, Recipients: []Recipient{{Status: Pending}}}
		if tt.change != nil {
			tt.change(&p, m)
		}
		p.enter(noon, NewMessage{Message: m}, true)
		attempts, reviews := 0, 0
		for n, want := range []string{tt.want, tt.then} {
			do := p.turn(noon.Add(time.Duration(n)*sweepEvery), true)
			attempts, reviews = attempts+len(do.attempts), reviews+len(do.reviews)
			if got := fmt.Sprint(attempts, reviews, len(p.window.postpones), p.window.waiting); got != want {
				t.Errorf("%s, turn %d: attempts, reviews, postponed, waiting are %s, want %s", tt.name, n+1, got, want)
			}
		}
		if m.NextAttempt.After(noon) && p.reader.nextDue != m.NextAttempt || p.window.size == 0 && !p.reader.more {
			t.Errorf("%s: nobody will read it", tt.name)
		}
	}
}

// Who waits for a slot is asked for it again when one may be free, or after a second, and not before; only the first of
// a line is.
func TestPlanAsksOncePerLine(t *testing.T) {
	asked := 0
	p := newPlan(Options{Window: 10, LeaseFor: time.Minute, Dispatcher: askFunc(func(*Message) (bool, Wait) {
		asked++
		return false, Wait{Key: "office"}
	})}, &timetable{})
	for n := range 5 {
		p.enter(noon, NewMessage{Message: &Message{ID: fmt.Sprint(n), Login: "anna"}}, true)
	}
	for _, tt := range []struct {
		at    time.Duration
		freed bool
		want  int
	}{{0, true, 5}, {time.Millisecond, false, 5}, {time.Second / 2, true, 6}, {time.Second, false, 6},
		{2 * time.Second, false, 7}} {
		p.turn(noon.Add(tt.at), tt.freed)
		if asked != tt.want {
			t.Errorf("after %v: asked %d times, want %d", tt.at, asked, tt.want)
		}
	}
}
