package store

import (
	"math"
	"sync"
	"time"
)

// clock knows how far the clock of the database is ahead of ours. Times of the queue (when a message is due, until when
// it is leased) are stored by the clock of the database, so that nodes whose clocks differ agree on them. It counts by
// the monotonic clock since it was last set: a jump of the node's clock moves nothing. The zero clock is ours.
type clock struct {
	mu     sync.Mutex
	server int64     // guarded by mu; nanoseconds since 1970 in the database
	at     time.Time // guarded by mu; when that was
	unsure int64     // guarded by mu; a difference of less is not one, in nanoseconds
	used   int64     // guarded by mu; what ahead says
}

// sameTime is a difference that is not one, in nanoseconds: an answer takes that long, or longer under load. Times that
// come back from the store are then exactly what went into it.
const sameTime = int64(20 * time.Millisecond)

// set is told what the database said its time was, between two moments of ours.
func (c *clock) set(server int64, asked, answered time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	half := answered.Sub(asked) / 2
	c.server, c.at, c.unsure = server, asked.Add(half), max(sameTime, int64(half))
}

// ahead is how far the clock of the database is ahead of ours now, in nanoseconds.
func (c *clock) ahead() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() {
		return 0
	}
	now := time.Now()
	if real := c.server + int64(now.Sub(c.at)) - now.UnixNano(); real-c.used >= c.unsure || c.used-real >= c.unsure {
		c.used = real
	}
	return c.used
}

// nano is a time of ours as it is stored.
func (c *clock) nano(t time.Time) int64 {
	n := unixNano(t)
	if n == 0 || n == math.MinInt64 || n == math.MaxInt64 {
		return n
	}
	return n + c.ahead()
}

// there is a time of ours by the clock of the database, and here the other way round; a zero time stays one.
func (c *clock) there(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return fromNano(c.nano(t))
}

func (c *clock) here(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return c.time(unixNano(t))
}

// time is a stored time by our clock.
func (c *clock) time(n int64) time.Time {
	if n == 0 || n == math.MinInt64 || n == math.MaxInt64 {
		return fromNano(n)
	}
	return fromNano(n - c.ahead())
}
