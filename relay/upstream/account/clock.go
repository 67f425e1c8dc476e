package account

import "time"

// clock is what is known of the database's clock: what it said between two moments of ours. Ours are monotonic; what a
// node takes for the time of day plays no part.
type clock struct {
	at        int64 // ns
	sent, got time.Time
	doubtful  time.Time // until then no lease of others is over
}

const (
	clockKept = time.Minute // two clocks do not drift apart so soon
	clockStep = time.Second // that is no step
)

// low is a time that the database's clock has reached; high one that it has not passed.
func (c *clock) low(now time.Time) int64  { return c.at + int64(now.Sub(c.got)) }
func (c *clock) high(now time.Time) int64 { return c.at + int64(now.Sub(c.sent)) }

// known reports that the clock may be reckoned on.
func (c *clock) known(now time.Time) bool { return !c.got.IsZero() && now.Sub(c.got) < clockKept }

// set notes what the clock said. When it was set, or another database took over, leases of others that were given by
// the former clock cannot be judged by the new one before they have been renewed. A node that has just begun cannot
// know whether it was.
func (c *clock) set(at int64, sent, got time.Time) (stepped time.Duration) {
	if c.got.IsZero() {
		c.doubtful = got.Add(leaseTime)
	} else {
		slack := int64(clockStep + got.Sub(c.got)/1000)
		if d := at - c.high(got); d > slack {
			stepped = time.Duration(d)
		} else if d := at - c.low(sent); d < -slack {
			stepped = time.Duration(d)
		}
		if stepped != 0 {
			c.doubtful = got.Add(leaseTime)
		}
	}
	c.at, c.sent, c.got = at, sent, got
	return stepped
}

// local turns a time of the database's clock that is still to come into one of ours: not earlier than it is.
func (c *clock) local(at int64, now time.Time) time.Time {
	return now.Add(time.Duration(at - c.low(now)))
}
