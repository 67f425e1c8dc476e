package queue

import (
	"testing"
	"time"
)

// The clock by which more time has passed counts: the monotonic one stands still while a machine sleeps, and that of
// the wall may be set.
func TestLeaseByBothClocks(t *testing.T) {
	noon := at(time.Now())
	later := func(wall, ran time.Duration) instant { return instant{noon.wall.Add(wall), noon.ran + ran} }
	for _, c := range []struct {
		what      string
		wall, ran time.Duration
		want      time.Duration
	}{
		{"nothing happened", time.Minute, time.Minute, 4 * time.Minute},
		{"the machine slept", 4 * time.Minute, time.Minute, time.Minute},
		{"the machine slept for longer than that", time.Hour, time.Second, -55 * time.Minute},
		{"the clock was set back", -time.Hour, 2 * time.Minute, 3 * time.Minute},
		{"the process was stopped while the clock was set back", -time.Hour, 6 * time.Minute, -time.Minute},
	} {
		l := &Lease{begun: true, end: later(5*time.Minute, 5*time.Minute)}
		if got := l.left(later(c.wall, c.ran)); got != c.want {
			t.Errorf("%s: %v left, want %v", c.what, got, c.want)
		}
	}
}

func TestLeaseEnds(t *testing.T) {
	noon := at(time.Now())
	after := func(d time.Duration) instant { return instant{noon.wall.Add(d), noon.ran + d} }
	run := func() *Lease { return &Lease{begun: true, end: after(5 * time.Minute)} }

	var none *Lease
	if none.Left() != forever || new(Lease).left(after(100*time.Hour)) != forever {
		t.Error("what is not stored has a lease that ends")
	}
	l := run()
	l.extendAt(after(4*time.Minute), after(9*time.Minute))
	if got := l.left(after(8 * time.Minute)); got != time.Minute {
		t.Errorf("extended in time: %v left", got)
	}
	l = run()
	l.extendAt(after(5*time.Minute), after(10*time.Minute)) // nobody had looked in between
	if got := l.left(after(6 * time.Minute)); got > 0 {
		t.Errorf("extended too late: %v left", got)
	}
	l = run()
	l.Lose()
	l.extendAt(after(time.Minute), after(6*time.Minute))
	if got := l.left(after(time.Minute)); got > 0 || l.ends(time.Hour) {
		t.Errorf("lost: %v left, to be extended: %t", got, l.ends(time.Hour))
	}
	l = &Lease{}
	l.extendAt(noon, after(5*time.Minute))
	if got := l.left(after(2 * time.Minute)); got != 3*time.Minute {
		t.Errorf("begun late: %v left", got)
	}
}
