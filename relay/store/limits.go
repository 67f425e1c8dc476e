package store

import (
	"context"
	"time"

	"postern/policy"
	"postern/relay/store/internal/db"
)

var _ policy.LimitStore = (*Store)(nil)

// LoadLimits implements policy.LimitStore.
func (s *Store) LoadLimits(ctx context.Context, now time.Time) ([]policy.State, error) {
	states, err := readAll(ctx, s.readers, scanLimit, selectLimits, unixNano(now))
	return states, wrap(err, "load limits")
}

const selectLimits = "SELECT login, lim, tokens, at, full_at FROM limit_state WHERE full_at > ?"

func scanLimit(row db.Row) (policy.State, error) {
	return policy.State{Login: row.Text(0), Limit: row.Text(1), Tokens: row.Float(2), At: fromNano(row.Int(3)),
		Full: fromNano(row.Int(4))}, nil
}

// LimitsOf returns the states of a login that are not full. A daemon that uses this store is asked to write down what
// it has counted; complete: it did, or there is none.
func (s *Store) LimitsOf(ctx context.Context, now time.Time, login string) (states []policy.State, complete bool,
	err error) {
	complete = s.AwaitEvents(ctx)
	states, err = readAll(ctx, s.lookups, scanLimit, selectLimits+" AND login = ?", unixNano(now), login)
	return states, complete, wrap(err, "read the limits of %q", login)
}

var putLimit = upsert("limit_state", 2, "login", "lim", "tokens", "at", "full_at")

// SaveLimits implements policy.LimitStore. It is lazy: it waits for a commit that comes anyway.
func (s *Store) SaveLimits(ctx context.Context, now time.Time, states []policy.State) error {
	err := s.writer.do(ctx, &op{lazy: true, cost: int64(len(states)), run: func(t *tx) error {
		if err := t.Run("DELETE FROM limit_state WHERE full_at <= ?", unixNano(now)); err != nil {
			return err
		}
		for _, st := range states {
			err := t.Run(putLimit,
				st.Login, st.Limit, st.Tokens, unixNano(st.At), unixNano(st.Full))
			if err != nil {
				return err
			}
		}
		return nil
	}})
	return wrap(err, "save limits")
}

// NewRecipients implements policy.LimitStore.
func (s *Store) NewRecipients(ctx context.Context, login string, addrs []string) (fresh int, err error) {
	err = s.eachKnown(ctx, login, addrs, func(used int64) {
		if used == 0 {
			fresh++
		}
	})
	return fresh, wrap(err, "known recipients of %q", login)
}

// eachKnown calls f with when each address was last used, 0 for one that is not known.
func (s *Store) eachKnown(ctx context.Context, login string, addrs []string, f func(used int64)) error {
	return s.readers.read(ctx, func(conn db.Conn) error {
		for _, addr := range addrs {
			used, err := knownSince(conn, login, addr)
			if err != nil {
				return err
			}
			f(used)
		}
		return nil
	})
}

func knownSince(conn db.Conn, login, addr string) (used int64, err error) {
	used, _, err = conn.Int("SELECT max(used, 1) FROM known WHERE login = ? AND addr = ?", login, addr)
	return used, err
}

// knownAge is how exact it is remembered when a recipient was last used, so that a login that writes to
// the same people all day costs no write.
const knownAge = time.Hour

// RememberRecipients implements policy.LimitStore. Of each login the MaxKnown used last are kept.
func (s *Store) RememberRecipients(ctx context.Context, login string, addrs []string, now time.Time) error {
	stale := unixNano(now.Add(-knownAge))
	needed := false
	err := s.eachKnown(ctx, login, addrs, func(used int64) { needed = needed || used <= stale })
	if err == nil && needed {
		err = s.write(ctx, func(t *tx) error { return s.remember(t, login, addrs, unixNano(now)) })
	}
	return wrap(err, "known recipients of %q", login)
}

func (s *Store) remember(t *tx, login string, addrs []string, now int64) error {
	var fresh int64
	for _, addr := range addrs {
		used, err := knownSince(t.Conn, login, addr)
		if err != nil {
			return err
		}
		if used == 0 {
			fresh++
		}
		err = t.Run("INSERT INTO known VALUES (?, ?, ?) ON CONFLICT (login, addr) DO UPDATE SET "+
			"used = max(known.used, excluded.used)",
			login, addr, now)
		if err != nil {
			return err
		}
	}
	if fresh == 0 {
		return nil
	}
	count, err := addKnown(t, login, fresh)
	if err != nil || count <= s.opts.MaxKnown {
		return err
	}
	return dropOldest(t, login, count-s.opts.MaxKnown)
}

// addKnown changes how many recipients a login knows and returns the number.
func addKnown(t *tx, login string, by int64) (count int64, err error) {
	count, _, err = t.Int("INSERT INTO known_count VALUES (?, ?) ON CONFLICT (login) DO UPDATE SET "+
		"n = known_count.n + excluded.n RETURNING n", login, by)
	return count, err
}

func dropOldest(t *tx, login string, n int64) error {
	err := t.Run(`DELETE FROM known WHERE login = ?1 AND addr IN
		(SELECT addr FROM known INDEXED BY known_login_used WHERE login = ?1 ORDER BY used LIMIT ?2)`, login, n)
	if err != nil {
		return err
	}
	_, err = addKnown(t, login, -t.Changes())
	return err
}

// ForgetRecipients implements policy.LimitStore, in small transactions.
func (s *Store) ForgetRecipients(ctx context.Context, before time.Time) (total int64, err error) {
	total, err = s.inBatches(ctx, actionBatch, func(t *tx) (int64, error) { return forget(t, unixNano(before)) })
	return total, wrap(err, "forget recipients")
}

func forget(t *tx, before int64) (n int64, err error) {
	type known struct{ login, addr string }
	old, err := list(t.Conn, func(row db.Row) (known, error) { return known{row.Text(0), row.Text(1)}, nil },
		"SELECT login, addr FROM known INDEXED BY known_used WHERE used < ? ORDER BY used LIMIT ?", before, actionBatch)
	if err != nil {
		return 0, err
	}
	for _, k := range old {
		if err := t.Run("DELETE FROM known WHERE login = ? AND addr = ?", k.login, k.addr); err != nil {
			return 0, err
		}
		if _, err := addKnown(t, k.login, -1); err != nil {
			return 0, err
		}
	}
	return int64(len(old)), nil
}
