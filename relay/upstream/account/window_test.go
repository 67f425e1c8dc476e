package account

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestWindowOpensWhenTheOldestLeaves(t *testing.T) {
	w := window{limit: 3, span: time.Minute}
	w.count(epoch, 1)
	w.count(epoch.Add(30*time.Second), 2)
	if n := w.room(epoch.Add(59 * time.Second)); n != 0 {
		t.Errorf("room for %d", n)
	}
	if at := w.until(epoch.Add(59*time.Second), 1); !at.Equal(epoch.Add(61 * time.Second)) {
		t.Errorf("room for one at %v", at)
	}
	if at := w.until(epoch.Add(59*time.Second), 2); !at.Equal(epoch.Add(91 * time.Second)) {
		t.Errorf("room for two at %v", at)
	}
	if n := w.room(epoch.Add(61 * time.Second)); n != 1 {
		t.Errorf("room for %d when one has left", n)
	}
	if n := w.room(epoch.Add(time.Hour)); n != 3 {
		t.Errorf("room for %d after an hour", n)
	}
	w.flying = 3
	if at := w.until(epoch.Add(time.Hour), 1); !at.IsZero() {
		t.Errorf("knows when what is under way ends: %v", at)
	}
}

// A clock that is set back makes nobody wait for longer than a window, and forgets nothing.
func TestWindowWithAClockSetBack(t *testing.T) {
	w := window{limit: 3, span: time.Minute}
	w.count(epoch, 3)
	back := epoch.Add(-24 * time.Hour)
	if n := w.room(back); n != 0 {
		t.Errorf("room for %d", n)
	}
	if at := w.until(back, 1); at.Sub(back) > 62*time.Second {
		t.Errorf("waits for %v", at.Sub(back))
	}
}

// Whatever is asked when, nobody sees more than the limit within a span, and whoever waits as long as he is told gets
// room.
func TestWindowNeverExceedsItsLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		span := time.Duration(rapid.Int64Range(1, 48*3600).Draw(t, "span")) * time.Second
		w := window{limit: rapid.Int64Range(1, 20).Draw(t, "limit"), span: span}
		now := epoch
		var flying []int64
		type seen struct {
			at time.Time
			n  int64
		}
		var provider []seen
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(span)/4).Draw(t, "step")))
			if n := rapid.Int64Range(1, 5).Draw(t, "n"); w.room(now) >= n {
				w.flying += n
				flying = append(flying, n)
				provider = append(provider, seen{now, n}) // as early as may be; the end is counted later
			} else if at := w.until(now, min(n, w.limit)); !at.IsZero() && len(flying) == 0 {
				now = at
				if w.room(now) < min(n, w.limit) {
					t.Fatalf("no room at %v", at)
				}
			}
			for len(flying) > 0 && rapid.Bool().Draw(t, "ends") {
				w.flying -= flying[0]
				w.count(now, flying[0])
				flying = flying[1:]
			}
			total := int64(0)
			for _, s := range provider {
				if now.Sub(s.at) < span {
					total += s.n
				}
			}
			if total > w.limit {
				t.Fatalf("%d within %v, limit %d", total, span, w.limit)
			}
		}
	})
}
