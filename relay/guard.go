package relay

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"
)

// guardPause is how long work beside mail rests after a panic. What brought it out may still be there.
const guardPause = time.Minute

// guarded works until ctx ends, or the work itself does. A panic in work beside mail, a fault of ours that an answer of
// DNS or of a directory brings out, must not end mail, again after each restart: it is logged, and the work begins
// again after a pause.
func guarded(ctx context.Context, log *slog.Logger, work func(context.Context)) {
	for panics(ctx, log, work) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(guardPause):
		}
	}
}

func panics(ctx context.Context, log *slog.Logger, work func(context.Context)) (did bool) {
	defer func() {
		if p := recover(); p != nil {
			did = true
			log.Error("work in the background failed by a fault of ours; it begins again in a minute",
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	work(ctx)
	return false
}
