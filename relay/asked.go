package relay

import (
	"context"
	"log/slog"
	"time"

	relaystore "postern/relay/store"
	"postern/relay/trace"
)

// answerTrace writes events down as soon as a command wants to show them: who looks right after a message finds it.
func answerTrace(ctx context.Context, s *relaystore.SQLite, r *trace.Recorder, period time.Duration, log *slog.Logger) {
	answered, _ := s.Generation(ctx, relaystore.TopicTraceAnswered)
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		asked, err := s.Generation(ctx, relaystore.TopicTraceAsked)
		if err != nil || asked == answered {
			continue
		}
		if err := r.Flush(ctx); err != nil {
			continue // the recorder has said so
		}
		if err := s.AnswerEvents(ctx, asked); err != nil {
			if ctx.Err() == nil {
				log.Warn("events could not be written for a command that shows the trace", "err", err)
			}
			continue
		}
		answered = asked
	}
}
