package periodic

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began, called := time.Now(), []time.Duration(nil)
		Run(ctx, time.Second, func() {
			called = append(called, time.Since(began))
			switch len(called) {
			case 2:
				time.Sleep(2500 * time.Millisecond) // two more pass, of which one is kept
			case 4:
				cancel()
			}
		})
		want := []time.Duration{time.Second, 2 * time.Second, 4500 * time.Millisecond, 5 * time.Second}
		if !slices.Equal(called, want) {
			t.Errorf("called after %v, want %v", called, want)
		}
	})
}
