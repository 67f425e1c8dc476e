package queue

import "time"

// How often the store is read for due messages.
const (
	pollEvery = time.Second            // for Wake
	dueEvery  = 100 * time.Millisecond // for messages that become due
	moreEvery = time.Second            // while the store has more than the window and some mail moves
	turnEvery = 3 * time.Second        // while none moves, each read showing us other messages
)

// reader decides when the store is read for due messages, and remembers what a read said. It is pure: no lock, no
// store, no clock.
type reader struct {
	changed bool      // read at once
	polled  bool      // Wake was called since the last read
	more    bool      // the store has due messages that are not in the window
	nextDue time.Time // zero: nothing known
	after   string    // the last login that the last read got to
	began   time.Time // when the last read began
	rows    int       // what it returned
	moved   int       // messages that left the lines since

	reading bool
	left    map[string]struct{} // forgotten while reading: what the read says of them is old
}

// due notes that a message will be due.
func (r *reader) due(at time.Time) {
	if !at.IsZero() && (r.nextDue.IsZero() || at.Before(r.nextDue)) {
		r.nextDue = at
	}
}

// at is when the store is to be read next; false: nothing calls for it.
func (r *reader) at() (at time.Time, wanted bool) {
	want := func(t time.Time) {
		if !wanted || t.Before(at) {
			at, wanted = t, true
		}
	}
	if r.changed {
		want(r.began.Add(10 * time.Millisecond))
	}
	if r.polled {
		want(r.began.Add(pollEvery))
	}
	if !r.nextDue.IsZero() {
		want(later(r.nextDue, r.began.Add(dueEvery)))
	}
	switch {
	case !r.more:
	case 2*r.moved >= r.rows:
		want(r.began)
	case r.moved > 0:
		want(r.began.Add(moreEvery))
	default:
		want(r.began.Add(turnEvery))
	}
	return at, wanted
}

// begin starts a read, which answers everything that called for it. The read is to go on behind the login named by
// after.
func (r *reader) begin(now time.Time) (after string) {
	r.changed, r.polled, r.more, r.nextDue = false, false, false, time.Time{}
	r.began, r.moved, r.reading = now, 0, true
	return r.after
}

// forgot notes that the window forgot a message.
func (r *reader) forgot(id string) {
	if r.reading {
		r.left[id] = struct{}{}
	}
}

// old reports that what the read says of a message is old.
func (r *reader) old(id string) bool {
	_, left := r.left[id]
	return left
}

// failed ends a read that brought nothing.
func (r *reader) failed() {
	r.changed, r.reading, r.rows = true, false, 0
	clear(r.left)
}

// end ends a read of at most limit messages, perLogin of each login, after the window took in what it has room for. One
// that came back more than half full may not have been all: messages can vanish while they are read.
func (r *reader) end(due []*Message, next time.Time, perLogin, limit int) {
	r.rows = len(due)
	r.more = r.more || 2*len(due) > limit
	count := make(map[string]int)
	for _, m := range due {
		count[m.Login]++
		r.more = r.more || 2*count[m.Login] > perLogin
	}
	r.due(next)
	r.reading = false
	clear(r.left)
}
