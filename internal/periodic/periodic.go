// Package periodic repeats work at a fixed period.
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
