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
func (s *Store) Lease(ctx context.Context, v queue.Version, owner string, now, until time.Time) error {
	if owner == "" {
		return fmt.Errorf("lease %s: a lease needs an owner", v.ID)
	}
	if e, ok := s.engine.(*server); ok {
		if f := e.ousted.Load(); f != nil {
			return fmt.Errorf("lease %s: %w", v.ID, f.error)
		}
	}
	return s.change(ctx, "lease", v.ID, leaseBulk{v, owner, now, until}, func(t *tx) error {
		p, err := t.find(v.ID)
		if err != nil {
			return err
		}
		begun := p.attempts == int64(v.Attempts)+1 && p.until > 0 && p.owner == owner
		if p.held || !begun && (!p.is(v) || p.leased(s.clock.nano(now))) {
			return refuse(queue.ErrNotFound)
		}
		return t.Run("UPDATE message SET attempts = ?, lease_owner = ?, lease_until = ?, waiting_for = '' WHERE id = ?",
			v.Attempts+1, owner, max(s.clock.nano(until), 1), v.ID)
	})
}

// is reports whether a message is as a version says: neither an attempt was begun since, nor has one ended.
func (p location) is(v queue.Version) bool {
	return p.attempts == int64(v.Attempts) && p.owner == v.Owner
}

// change runs a write that concerns one message.
func (s *Store) change(ctx context.Context, what, id string, together bulk, run func(*tx) error) error {
	if err := s.writer.do(ctx, &op{bulk: together, run: run}); err != nil {
		return fmt.Errorf("%s %s: %w", what, id, err)
	}
	return nil
}

// ours finds a version of a message whose lease belongs to owner, also one that ran out and that nobody else took.
func ours(t *tx, v queue.Version, owner string) (location, error) {
	p, err := t.find(v.ID)
	if err != nil {
		return p, err
	}
	if p.until == 0 || p.owner != owner || p.attempts != int64(v.Attempts) {
		return p, refuse(queue.ErrNotFound)
	}
	return p, nil
}

// Extend implements queue.Store.
func (s *Store) Extend(ctx context.Context, v queue.Version, owner string, until time.Time) error {
	return s.change(ctx, "extend the lease of", v.ID, extendBulk{v, owner, until}, func(t *tx) error {
		if _, err := ours(t, v, owner); err != nil {
			return err
		}
		return t.Run("UPDATE message SET lease_until = ? WHERE id = ?", max(s.clock.nano(until), 1), v.ID)
	})
}

// Finish implements queue.Store. It is let through when Add is not: what leaves makes room.
func (s *Store) Finish(ctx context.Context, v queue.Version, owner string, o queue.Outcome) error {
	f, size, err := newFinish(v, owner, o)
	if err == nil {
		err = s.writer.do(ctx, &op{cost: size, bulk: f, run: func(t *tx) error {
			p, err := ours(t, v, owner)
			if err != nil {
				return err
			}
			return s.settle(t, p, f)
		}})
	}
	return wrap(err, "finish %s", v.ID)
}

// Record implements queue.Store. It is rare, and never part of a batch.
func (s *Store) Record(ctx context.Context, v queue.Version, owner string, o queue.Outcome) error {
	f, size, err := newFinish(v, owner, o)
	if err == nil {
		err = s.writer.do(ctx, &op{cost: size, run: func(t *tx) error {
			p, err := t.find(v.ID)
			if err != nil {
				return err
			}
			if !p.is(v) {
				return refuse(queue.ErrNotFound)
			}
			if err := t.Run("UPDATE message SET attempts = attempts + 1 WHERE id = ?", v.ID); err != nil {
				return err
			}
			return s.settle(t, p, f)
		}})
	}
	return wrap(err, "record the late outcome of %s", v.ID)
}

// settle writes an outcome, with its reports.
func (s *Store) settle(t *tx, p location, f *finishBulk) (err error) {
	if f.outcome.Remove {
		err = p.remove(t, f.v.ID)
	} else {
		err = p.record(t, f)
	}
	if err != nil {
		return err
	}
	return s.insertAll(t, f.reports)
}

// record writes the outcome of a message that stays, and ends its lease unless that is somebody else's.
func (p location) record(t *tx, f *finishBulk) error {
	o, id := f.outcome, f.v.ID
	if p.owner != f.owner {
		return t.Run(t.layout.recordLate, id, f.recipients, f.reply)
	}
	next := t.clock.nano(o.NextAttempt)
	if p.bounce {
		next = min(next, p.next) // asked for while the attempt ran: not put off by it
	}
	return t.Run(t.layout.record, id, f.recipients, next, o.WaitingFor, o.Warned, f.reply)
}

// actionBatch is how many messages one transaction of Postpone, Wake or an operator's action changes, so
// that it holds up mail for some milliseconds only.
const actionBatch = 250

// Postpone implements queue.Store.
func (s *Store) Postpone(ctx context.Context, vs []queue.Version, until time.Time, waitingFor string) error {
	for len(vs) > 0 {
		n := min(len(vs), actionBatch)
		batch := vs[:n]
		vs = vs[n:]
		err := s.write(ctx, func(t *tx) error {
			now := s.clock.nano(time.Now())
			for _, v := range batch {
				err := t.Run(`UPDATE message SET next = ?, waiting_for = ?, lease_owner = '', lease_until = 0
					WHERE id = ? AND attempts = ? AND lease_owner = ? AND held = 0 AND bounce = 0 AND lease_until <= ?`,
					s.clock.nano(until), waitingFor, v.ID, v.Attempts, v.Owner, now)
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
	if m := s.member; m != nil && m.moved && owner == m.owner() { // they run out
		return 0, nil
	}
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
		c, err := readCounters(conn, s.engine.layout())
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
	if e, ok := s.engine.(*server); ok {
		return e.writable()
	}
	ctx := context.Background()
	if err := s.engine.room(ctx); err != nil || s.opts.MaxBytes <= 0 {
		return err
	}
	return s.readers.read(ctx, func(conn db.Conn) error { return fullAt(conn, s.engine.layout(), s.opts.MaxBytes) })
}

// fullAt returns queue.ErrFull when so much is queued, in octets, or more.
func fullAt(conn db.Conn, l *layout, most int64) error {
	c, err := readCounters(conn, l)
	if err == nil && most > 0 && c.bytes >= most {
		return fullQueue(c.bytes, most)
	}
	return err
}
