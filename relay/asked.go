package relay

import (
	"context"
	"time"

	relaystore "postern/relay/store"
)

// tracePoll is how often the daemon looks whether somebody waits for the trace.
const tracePoll = 200 * time.Millisecond

// answerTrace writes events down as soon as a command wants to show them: who looks right after a message finds it.
func (s *Server) answerTrace(ctx context.Context) {
	answered, _ := s.store.Generation(ctx, relaystore.TopicTraceAnswered)
	tick := time.NewTicker(tracePoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		asked, err := s.store.Generation(ctx, relaystore.TopicTraceAsked)
		if err != nil || asked == answered {
			continue
		}
		if err := s.trace.Flush(ctx); err != nil {
			continue // the recorder has said so
		}
		if err := s.store.AnswerEvents(ctx, asked); err != nil {
			if ctx.Err() == nil {
				s.log.Warn("events could not be written for a command that shows the trace", "err", err)
			}
			continue
		}
		answered = asked
	}
}
