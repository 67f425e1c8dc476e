package store

import (
	"context"
	"iter"
	"slices"

	"postern/relay/store/internal/db"
	"postern/relay/trace"
)

// events are events of the trace as they are read.
type events = iter.Seq2[*indexedEvent, error]

// maxTimeline is how many events of a message, and of its sessions, a timeline has at most.
const maxTimeline = 2000

// Timeline returns what happened to a message, or in a session, oldest first: all events of the message, and those of
// its sessions that belong to no other message, from the TLS handshake on. id is a message's or a session's. Of more
// than maxTimeline events of either, the newest are given and more is true. No event: nothing is recorded. In the
// daemon it waits as searches of who asks do; trace.ErrTooMany is of these.
func (s *Store) Timeline(ctx context.Context, by, id string) (all []trace.Event, more bool, err error) {
	if id == "" {
		return nil, false, nil
	}
	done, err := s.paced(ctx, by)
	if err != nil {
		return nil, false, wrap(err, "read the trace of %s", id)
	}
	defer done()
	err = s.lookups.snapshot(ctx, func(conn db.Conn) error {
		l := searching{conn: conn}
		var sessions []string
		byNumber := map[int64]trace.Event{}
		read := func(members events) (n int, err error) {
			for e, err := range members {
				if err != nil {
					return n, err
				}
				if n++; n > maxTimeline {
					more = true
					return n, nil
				}
				byNumber[e.n] = e.Event
				if e.Session != "" && !slices.Contains(sessions, e.Session) && len(sessions) < maxSessions {
					sessions = append(sessions, e.Session)
				}
			}
			return n, nil
		}
		n, err := read(l.members(&trace.Event{ID: id}))
		if err != nil {
			return err
		}
		if n == 0 {
			_, err := read(eventRows(conn, "SELECT n, kind, id, session, login, sender, rcpt, data FROM event "+
				"INDEXED BY event_session WHERE session = ? AND session <> '' ORDER BY n DESC LIMIT ?", id,
				maxTimeline+1))
			all = inOrder(byNumber)
			return err
		}
		for _, session := range slices.Clone(sessions) {
			if _, err := read(l.members(&trace.Event{Session: session})); err != nil {
				return err
			}
		}
		all = inOrder(byNumber)
		return nil
	})
	for i := range all {
		all[i].Time = s.clock.here(all[i].Time)
	}
	return all, more, wrap(err, "read the trace of %s", id)
}

// maxSessions is how many sessions of a message are looked at: a message has one.
const maxSessions = 8

func inOrder(byNumber map[int64]trace.Event) []trace.Event {
	numbers := make([]int64, 0, len(byNumber))
	for n := range byNumber {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	all := make([]trace.Event, len(numbers))
	for i, n := range numbers {
		all[i] = byNumber[n]
	}
	return all
}
