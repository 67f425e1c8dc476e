package store

import (
	"context"
	"time"

	"postern/relay/queue"
)

// Resend makes recipients of waiting messages pending again that were given up, and the messages due. Their time to
// expire is moved to expires where it is earlier. It leaves alone what is held, what is tried just now, and messages
// without such a recipient.
func (s *Store) Resend(ctx context.Context, f queue.Filter, now, expires time.Time) (int64, error) {
	return s.act(ctx, "resend", f, func(t *tx, id string) (bool, error) {
		// From here on nobody leases it.
		if _, err := t.find(id); err != nil {
			if _, gone := err.(refusal); gone {
				err = nil
			}
			return false, err
		}
		m, err := s.clock.getMessage(t.Conn, id)
		if err != nil || m == nil || m.Held || m.LeaseUntil.After(now) {
			return false, err
		}
		again := false
		for i := range m.Recipients {
			if r := &m.Recipients[i]; r.Status == queue.Failed || r.Status == queue.Unclear {
				r.Status, r.Doubts, again = queue.Pending, 0, true
			}
		}
		if !again {
			return false, nil
		}
		until := max(s.clock.nano(m.Expires), s.clock.nano(expires))
		return update(t, t.layout.resend, id, encodeRecipients(nil, m.Recipients), s.clock.nano(now), until)
	})
}
