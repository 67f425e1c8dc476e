package store

import (
	"context"
	"errors"
	"time"

	"postern/relay/store/internal/db"
	"postern/relay/store/internal/postgres"
)

// Whether the database answers is found out by a look, once a second: a question on a connection that is for nothing
// else, so that it waits neither for those who read and write nor for their locks. Where no answer comes for lookFor, a
// new connection is tried, for what is left of twice that: the way of the old one may be what is gone. With the request
// to cancel that a question may need at its end, a look that finds nothing is over after 10 seconds at most, and a
// database that answers within lookFor, however slowly all else goes, is never away.
const lookFor = 4 * time.Second

// looker opens the connection for looks, whatever others have just met.
func (s *server) looker(ctx context.Context) (db.Conn, error) {
	conn, err := postgres.Open(ctx, s.config)
	if err != nil {
		err = away(err)
	}
	return conn, err
}

// writable looks whether the database answers, and has room.
func (s *server) writable() error {
	if err := reason(&s.ousted, &s.away); err != nil {
		return err
	}
	began := time.Now()
	err := s.lookBy(began.Add(s.look))
	if noAnswer(err) {
		err = s.lookBy(began.Add(2 * s.look))
	}
	if !noAnswer(err) {
		if s.silent.Swap(nil) != nil {
			s.refused.Store(nil) // what others met before is over
		}
		if gone := reason(&s.ousted, &s.away); gone != nil { // others have met it meanwhile
			return gone
		}
		return err
	}
	err = away(err)
	s.silent.Store(&failure{err})
	return err
}

func noAnswer(err error) bool {
	return errors.Is(err, ErrAway) || errors.Is(err, context.DeadlineExceeded)
}

// lookBy asks how much is queued, until a moment.
func (s *server) lookBy(end time.Time) error {
	ctx, cancel := context.WithDeadline(context.Background(), end)
	defer cancel()
	return s.looking.read(ctx, func(conn db.Conn) error { return fullAt(conn, serverLayout, s.opts.MaxBytes) })
}
