package store

import (
	"context"
	"math"
	"time"

	"postern/relay/store/internal/db"
)

// How a command that shows the trace, or what is left of limits, gets what the daemon has not written down yet: it asks
// with a number, and the daemon says which number it has answered: of several nodes each in its row.
const (
	TopicTraceAsked    = "trace-asked"
	TopicTraceAnswered = "trace-answered"
)

// askForEvents asks the daemon to write down the events that it still keeps. Once the number, or a higher one, is
// answered, everything that happened before is to be found.
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

// AwaitEvents waits until what daemons that use this store saw and counted up to now is here, and reports whether it
// is. Without a daemon everything is. One that has died is waited for as long as it may live.
func (s *Store) AwaitEvents(ctx context.Context) bool {
	if !s.served(ctx) {
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

// answered reports whether all daemons have answered a number.
func (s *Store) answered(ctx context.Context, asked int64) bool {
	if !s.Shared() {
		now, err := s.Generations(ctx)
		return err == nil && now[TopicTraceAnswered] >= asked || !s.served(ctx)
	}
	silent, err := s.silent(ctx, asked)
	return err == nil && silent == 0
}

// silent is how many nodes live that have not answered a number.
func (s *Store) silent(ctx context.Context, asked int64) (n int64, err error) {
	err = s.readers.read(ctx, func(conn db.Conn) error {
		n, _, err = conn.Int("SELECT count(*) FROM node, ("+serverTime+" AS now) t WHERE until > t.now AND "+
			"answered < ?", asked)
		return err
	})
	return n, err
}

// served reports whether a daemon uses the store: of this machine, or of any at a server.
func (s *Store) served(ctx context.Context) bool {
	if !s.Shared() {
		return Serving(s.opts)
	}
	silent, err := s.silent(ctx, math.MaxInt64)
	return err != nil || silent > 0
}

// AnswerEvents says that what this daemon was asked for under a number is written down.
func (s *Store) AnswerEvents(ctx context.Context, n int64) error {
	err := s.write(ctx, func(t *tx) error {
		if m := s.member; m != nil {
			return t.Run("UPDATE node SET answered = ? WHERE name = ? AND boot = ?", n, m.name, m.boot)
		}
		return t.Run("INSERT INTO generation VALUES (?, ?) ON CONFLICT (topic) DO UPDATE SET n = excluded.n",
			TopicTraceAnswered, n)
	})
	return wrap(err, "say that the newest events are written")
}
