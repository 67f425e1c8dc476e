package account

import "time"

// cells is how finely a window remembers: what happened in one cell leaves the window together.
const cells = 60

// window counts what happened within the last span. It never forgets too early: an event counts for at least span, and
// for at most a sixtieth longer. What was taken and has not been counted yet (it is under way) has no time and counts
// always, so that the other side, which sees it some time between the two, never sees more than limit in a span.
//
// It is pure: the caller passes the time and holds the lock.
type window struct {
	limit  int64 // 0: it only remembers
	span   time.Duration
	head   int64 // number of the newest cell, counted from the Unix epoch
	used   [cells + 1]uint32
	sum    int64 // of used
	flying int64
}

func (w *window) cell() int64 { return max(int64(w.span)/cells, 1) }

// advance lets leave what is too old. A clock that was set back by more than the window makes everything recent: it is
// better to wait once more than to forget.
func (w *window) advance(now time.Time) {
	at := now.UnixNano() / w.cell()
	switch {
	case at > w.head+cells:
		w.used, w.sum = [cells + 1]uint32{}, 0
	case at < w.head-cells:
		sum := w.sum
		w.used = [cells + 1]uint32{}
		w.used[w.index(at)] = uint32(sum)
	case at <= w.head:
		return
	default:
		for n := w.head + 1; n <= at; n++ {
			w.sum -= int64(w.used[w.index(n)])
			w.used[w.index(n)] = 0
		}
	}
	w.head = at
}

func (w *window) index(cell int64) int64 { return ((cell % (cells + 1)) + cells + 1) % (cells + 1) }

// room is how much more may be taken now.
func (w *window) room(now time.Time) int64 {
	w.advance(now)
	return w.limit - w.sum - w.flying
}

// count notes that n happened now.
func (w *window) count(now time.Time, n int64) {
	w.advance(now)
	w.used[w.index(w.head)] += uint32(n)
	w.sum += n
}

// until is when there will be room for n more, zero if only the end of what is under way can tell.
func (w *window) until(now time.Time, n int64) time.Time {
	missing := n - w.room(now)
	for c := w.head - cells; c <= w.head; c++ {
		if missing -= int64(w.used[w.index(c)]); missing <= 0 {
			return w.leaves(c)
		}
	}
	return time.Time{}
}

// leaves is when a cell is out of the window.
func (w *window) leaves(cell int64) time.Time { return time.Unix(0, (cell+cells+1)*w.cell()) }

// oldest is when the first of what is remembered leaves the window; zero if nothing is.
func (w *window) oldest(now time.Time) time.Time {
	w.advance(now)
	for c := w.head - cells; c <= w.head; c++ {
		if w.used[w.index(c)] > 0 {
			return w.leaves(c)
		}
	}
	return time.Time{}
}
