package monitor

import (
	"context"
	"time"

	"postern/relay/status"
	relaystore "postern/relay/store"
)

// learningStatus says whose devices may send without login now. What cannot be read is not said: the queue, which is in
// the same store, says why.
func learningStatus(ctx context.Context, r *status.Report, s *relaystore.Store, now time.Time) {
	known, err := s.KnownDevices(ctx)
	if err != nil {
		return
	}
	for _, l := range known.Learnings {
		if now.Before(l.Until) {
			r.Learning = append(r.Learning, l)
		}
	}
}
