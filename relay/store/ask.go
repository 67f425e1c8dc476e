package store

import (
	"context"
	"math"
	"time"

	"postern/relay/store/internal/db"
)

// How a command that shows the trace, or what is left of limits, gets what the daemon has not written down yet: it asks
// with a number, and the daemon says which number it has answered. Of several nodes each says so for itself.
const (
	TopicTraceAsked    = "trace-asked"
	TopicTraceAnswered = "trace-answered"
)

// TraceAnswered is the topic of what this daemon has answered.
func (s *Store) TraceAnswered() string {
	if s.member == nil {
		return TopicTraceAnswered
	}
	return TopicTraceAnswered + "/" + s.member.name
}

// askForEvents asks daemons to write down the events that they still keep. Once each has answered with the number, or a
// higher one, everything that happened before is to be found.
func (s *Store) askForEvents(ctx context.Context) (n int64, err error) {
	err = s.write(ctx, func(t *tx) error {
		if err := bump(t.Conn, TopicTraceAsked); err != nil {
			return err
		}
		n, _, err = t.Int("SELECT n FROM generation WHERE topic = ?", TopicTraceAsked)
		return err
	})
	return n, wrap(err, "ask for the newest events")
}

// maxAnswer is how long a command waits for the daemon, which looks several times a second.
const maxAnswer = 3 * time.Second

// AwaitEvents waits until what daemons that use this store saw and counted up to now is here, and reports whether it is.
// Without a daemon everything is.
func (s *Store) AwaitEvents(ctx context.Context) bool {
	if s.answered(ctx, math.MaxInt64) {
		return true
	}
	asked, err := s.askForEvents(ctx)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, maxAnswer)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if s.answered(ctx, asked) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// answered reports whether all daemons that use the store have answered what was asked for under a number: that of this
// machine, or all that live at a server.
func (s *Store) answered(ctx context.Context, asked int64) bool {
	if !s.Shared() {
		now, err := s.Generations(ctx)
		return err == nil && now[TopicTraceAnswered] >= asked || !Serving(s.opts)
	}
	missing := int64(1)
	err := s.readers.read(ctx, func(conn db.Conn) (err error) {
		missing, _, err = conn.Int(`SELECT count(*) FROM node n CROSS JOIN (`+serverTime+` AS now) t
			LEFT JOIN generation g ON g.topic = ? || n.name
			WHERE n.until > t.now AND coalesce(g.n, 0) < ?`, TopicTraceAnswered+"/", asked)
		return err
	})
	return err == nil && missing == 0
}

// AnswerEvents says that what was asked for under a number is written down.
func (s *Store) AnswerEvents(ctx context.Context, n int64) error {
	err := s.write(ctx, func(t *tx) error {
		return t.Run("INSERT INTO generation VALUES (?, ?) ON CONFLICT (topic) DO UPDATE SET n = excluded.n",
			s.TraceAnswered(), n)
	})
	return wrap(err, "say that the newest events are written")
}
