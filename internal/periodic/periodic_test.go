package periodic

import (
	"context"
	"errors"
	"slices"
	"sync"
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

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		for _, step := range []struct {
			d    time.Duration
			want error
			at   time.Duration
		}{
			{-time.Second, nil, 0},
			{0, nil, 0},
			{3 * time.Second, nil, 3 * time.Second},
			{3 * time.Second, context.DeadlineExceeded, 5 * time.Second},
			{0, context.DeadlineExceeded, 5 * time.Second},
		} {
			if err := Sleep(ctx, step.d); !errors.Is(err, step.want) || time.Since(began) != step.at {
				t.Errorf("%s: %v after %s, want %v after %s", step.d, err, time.Since(began), step.want, step.at)
			}
		}
	})
}

// TestSleepTogether are sleepers whose time is over when they begin.
func TestSleepTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sleepers sync.WaitGroup
		for range 8 {
			sleepers.Go(func() {
				for range 2000 {
					_ = Sleep(t.Context(), 0)
				}
			})
		}
		sleepers.Wait()
	})
}
