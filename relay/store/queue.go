package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postern/relay/queue"
	"postern/relay/store/internal/db"
)

var _ queue.Store = (*Store)(nil)

// The topics of Generation.
const (
	TopicUsers = "users"
	TopicKeys  = "keys"
	TopicQueue = "queue"
)

// Add implements queue.Store.
func (s *Store) Add(ctx context.Context, news ...queue.NewMessage) error {
	if len(news) == 0 {
		return nil
	}
	rows, size, err := newRows(news)
	if err != nil {
		return err
	}
	if err := s.engine.room(ctx); err != nil {
		return fmt.Errorf("add %s: %w", rows[0].m.ID, err)
	}
	err = s.writer.do(ctx, &op{cost: size, bulk: addBulk{s, rows, size}, run: func(t *tx) error {
		if err := s.fits(t, len(rows), size); err != nil {
			return err
		}
		return s.insertAll(t, rows)
	}})
	return wrap(err, "add %s", rows[0].m.ID)
}

func (s *Store) insertAll(t *tx, rows []*row) error {
	for _, r := range rows {
		if err := r.insert(t); err != nil {
			return err
		}
	}
	if !s.opts.Daemon {
		return bump(t.Conn, TopicQueue)
	}
	return nil
}

// fits refuses contents that would exceed MaxBytes, or for which the disk has no room.
func (s *Store) fits(t *tx, messages int, size int64) error {
	if s.opts.MaxBytes > 0 {
		counts, err := t.count()
		if err != nil {
			return err
		}
		if counts.bytes+size > s.opts.MaxBytes {
			return refuse(fullQueue(counts.bytes, s.opts.MaxBytes))
		}
	}
	err := s.engine.claim(t.Conn, messages, size)
	if errors.Is(err, queue.ErrFull) {
		return refuse(err)
	}
	return err
}

func fullQueue(have, most int64) error {
	return fmt.Errorf("%w: the queue holds %d MB and may hold %d MB", queue.ErrFull, have/1e6, most/1e6)
}

// Lease implements queue.Store.
func (s *Store) Lease(ctx context.Context, id, owner string, now, until time.Time) error {
	if owner == "" {
		return fmt.Errorf("lease %s: a lease needs an owner", id)
	}
	if e, ok := s.engine.(*server); ok {
		if f := e.ousted.Load(); f != nil {
			return fmt.Errorf("lease %s: %w", id, f.error)
		}
	}
	return s.change(ctx, "lease", id, leaseBulk{id, owner, now, until}, func(t *tx) error {
		p, err := find(t.Conn, id)
		if err != nil {
			return err
		}
		if p.held || p.leased(s.clock.nano(now)) && p.owner != owner {
			return refuse(queue.ErrNotFound)
		}
		return t.Run("UPDATE message SET attempts = attempts + 1, lease_owner = ?, lease_until = ?, waiting_for = "+
			"'' WHERE id = ?",
			owner, max(s.clock.nano(until), 1), id)
	})
}

// change runs a write that concerns one message.
func (s *Store) change(ctx context.Context, what, id string, together bulk, run func(*tx) error) error {
	if err := s.writer.do(ctx, &op{bulk: together, run: run}); err != nil {
		return fmt.Errorf("%s %s: %w", what, id, err)
	}
	return nil
}

// ours finds a message whose lease belongs to owner, also one that ran out and that nobody else took.
func ours(t *tx, id, owner string) (location, error) {
	p, err := find(t.Conn, id)
	if err != nil {
		return p, err
	}
	if p.until == 0 || p.owner != owner {
		return p, refuse(queue.ErrNotFound)
	}
	return p, nil
}

// Extend implements queue.Store.
func (s *Store) Extend(ctx context.Context, id, owner string, until time.Time) error {
	return s.change(ctx, "extend the lease of", id, extendBulk{id, owner, until}, func(t *tx) error {
		if _, err := ours(t, id, owner); err != nil {
			return err
		}
		return t.Run("UPDATE message SET lease_until = ? WHERE id = ?", max(s.clock.nano(until), 1), id)
	})
}

// Finish implements queue.Store. It is let through when Add is not: what leaves makes room.
func (s *Store) Finish(ctx context.Context, id, owner string, o queue.Outcome) error {
	reports, size, err := newRows(o.Reports)
	if err != nil {
		return fmt.Errorf("finish %s: %w", id, err)
	}
	var recipients, reply []byte
	if !o.Remove {
		recipients, reply = encodeRecipients(nil, o.Recipients), encodeReply(o.LastReply)
	}
	together := finishBulk{id, owner, o, recipients, reply}
	err = s.writer.do(ctx, &op{cost: size, bulk: together, run: func(t *tx) error {
		p, err := ours(t, id, owner)
		if err != nil {
			return err
		}
		if o.Remove {
			err = p.remove(t, id)
		} else {
			err = p.record(t, id, o, recipients, reply)
		}
		if err != nil {
			return err
		}
		return s.insertAll(t, reports)
	}})
	return wrap(err, "finish %s", id)
}

// record writes the outcome of a message that stays, and ends its lease.
func (p location) record(t *tx, id string, o queue.Outcome, recipients, reply []byte) error {
	next := t.clock.nano(o.NextAttempt)
	if p.bounce {
		next = min(next, p.next) // asked for while the attempt ran: not put off by it
	}
	return t.Run(t.layout.record, id, recipients, next, o.WaitingFor, o.Warned, reply)
}

// actionBatch is how many messages one transaction of Postpone, Wake or an operator's action changes, so
// that it holds up mail for some milliseconds only.
const actionBatch = 250

// Postpone implements queue.Store.
func (s *Store) Postpone(ctx context.Context, ids []string, until time.Time, waitingFor string) error {
	for len(ids) > 0 {
		n := min(len(ids), actionBatch)
		batch := ids[:n]
		ids = ids[n:]
		err := s.write(ctx, func(t *tx) error {
			now := s.clock.nano(time.Now())
			for _, id := range batch {
				err := t.Run(`UPDATE message SET next = ?, waiting_for = ?, lease_owner = '', lease_until = 0
					WHERE id = ? AND held = 0 AND bounce = 0 AND lease_until <= ?`,
					s.clock.nano(until), waitingFor, id, now)
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("postpone %d messages: %w", n, err)
		}
	}
	return nil
}

// ReleaseLeases implements queue.Store. There are never more leases than attempts.
func (s *Store) ReleaseLeases(ctx context.Context, owner string) (n int64, err error) {
	err = s.write(ctx, func(t *tx) error {
		err := t.Run(`UPDATE message INDEXED BY message_lease SET lease_owner = '', lease_until = 0
			WHERE lease_until > 0 AND lease_owner = ?`, owner)
		n = t.Changes()
		return err
	})
	return n, wrap(err, "release the leases of %s", owner)
}

// Stats implements queue.Store. Oldest is when the message with the lowest ID came: IDs sort by time.
func (s *Store) Stats(ctx context.Context) (st queue.Stats, err error) {
	err = s.readers.read(ctx, func(conn db.Conn) error {
		c, err := readCounters(conn)
		if err != nil {
			return err
		}
		st = queue.Stats{Messages: c.messages, Held: c.held, Bytes: c.bytes}
		oldest, _, err := conn.Int("SELECT received FROM queued ORDER BY id LIMIT 1")
		if err != nil {
			return err
		}
		st.Oldest = s.clock.time(oldest)
		st.Leased, _, err = conn.Int("SELECT count(*) FROM message INDEXED BY message_lease WHERE lease_until > 0 "+
			"AND lease_until > ?",
			s.clock.nano(time.Now()))
		return err
	})
	return st, wrap(err, "count the queue")
}

// Writable returns nil when Add can be expected to succeed: queue.ErrFull when the file system or the
// queue is at its high-water mark, ErrFailed when the store has failed. It is cheap enough for every MAIL.
func (s *Store) Writable() error {
	if err := s.writer.failure(); err != nil {
		return err
	}
	if err := s.engine.room(context.Background()); err != nil {
		return err
	}
	if s.opts.MaxBytes <= 0 {
		return nil
	}
	ctx, cancel := context.Background(), func() {}
	if s.Shared() {
		ctx, cancel = context.WithTimeout(ctx, writableFor)
	}
	defer cancel()
	var have int64
	err := s.readers.read(ctx, func(conn db.Conn) error {
		c, err := readCounters(conn)
		have = c.bytes
		return err
	})
	switch {
	case err == nil && have >= s.opts.MaxBytes:
		return fullQueue(have, s.opts.MaxBytes)
	case err != nil && (ctx.Err() != nil || db.KindOf(err) == db.Gone):
		return fmt.Errorf("%w: %w", ErrAway, err)
	}
	return err
}

// writableFor is how long a server may take to say how much is queued before it counts as away.
const writableFor = 3 * time.Second
