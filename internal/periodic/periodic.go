// Package periodic sleeps, and repeats work at a fixed period, until a context ends.
package periodic

import (
	"context"
	"time"
)

// Run calls f once a period, the first time after one, until ctx ends. A call that takes longer than the period skips
// what it missed.
func Run(ctx context.Context, period time.Duration, f func()) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f()
		}
	}
}

// Sleep waits for d, or until ctx ends, whose error it returns then.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 { // a timer that is over at once crashes the race detector in a bubble of synctest (golang/go#78156)
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
