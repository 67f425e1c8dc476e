package store

import (
	"context"

	"postern/relay/store/internal/db"
)

// Room is how much there is for new mail, in octets.
type Room struct {
	Free   int64 // of the file system
	Within int64 // free pages inside the database file
	Floor  int64 // that must stay free; negative: nothing must
	Queued int64 // contents of messages that wait
	Max    int64 // from which new mail is refused; 0: no bound
	File   int64 // the database file
}

// Ample reports that there is clearly more room than Writable wants: a quarter more than the floor, and a quarter of
// Max, into which any message fits. Between the two a disk is about to be full, or not yet free.
func (r Room) Ample() bool {
	if r.Floor >= 0 && (r.Free+r.Within < r.Floor+r.Floor/4 || r.Free < r.Floor/2) {
		return false
	}
	return r.Max <= 0 || r.Queued <= r.Max-r.Max/4
}

// Room looks at the disk and the queue.
func (s *Store) Room(ctx context.Context) (r Room, err error) {
	r.Floor, r.Max = -1, s.opts.MaxBytes
	if err := s.engine.measure(ctx, &r); err != nil {
		return r, err
	}
	err = s.readers.read(ctx, func(conn db.Conn) error {
		c, err := readCounters(conn, s.engine.layout())
		r.Queued = c.bytes
		return err
	})
	return r, err
}

// Sleeping is how many messages wait for the same upstreams.
type Sleeping struct {
	For      string
	Messages int64
}

// Sleeping counts the messages that sleep until their upstreams work, the most first, at most so many kinds. It reads
// an index of them all, so it is for people who ask, not for each message.
func (s *Store) Sleeping(ctx context.Context, most int) (all []Sleeping, err error) {
	all, err = readAll(ctx, s.readers, func(row db.Row) (Sleeping, error) {
		return Sleeping{row.Text(0),
			row.Int(1)}, nil
	},
		`SELECT waiting_for, count(*) FROM message INDEXED BY message_waiting
		WHERE waiting_for <> '' AND held = 0 GROUP BY waiting_for ORDER BY count(*) DESC, waiting_for LIMIT ?`, most)
	return all, wrap(err, "count what waits for upstreams")
}
