package relay

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/testkit"
)

// TestWorkThatPanics: work beside mail that panics is told of and begins again, and ends with its context.
func TestWorkThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testkit.Log
		ctx, cancel := context.WithTimeout(t.Context(), 3*guardPause)
		defer cancel()
		var began []time.Duration
		start := time.Now()
		guarded(ctx, slog.New(slog.NewTextHandler(&log, nil)), func(ctx context.Context) {
			began = append(began, time.Since(start))
			if len(began) < 3 {
				panic("a record that nobody thought of")
			}
			<-ctx.Done()
		})
		if len(began) != 3 || began[2] != 2*guardPause || time.Since(start) != 3*guardPause {
			t.Errorf("began at %v, ended after %s", began, time.Since(start))
		}
		if got := log.String(); strings.Count(got, "a record that nobody thought of") != 2 {
			t.Errorf("log %s", got)
		}
		guarded(t.Context(), slog.New(slog.DiscardHandler), func(context.Context) {}) // ends by itself
	})
}
