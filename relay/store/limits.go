package store

import (
	"context"
	"fmt"
	"time"

	"postern/policy"
	"postern/relay/store/internal/sqlite"
)

var _ policy.LimitStore = (*SQLite)(nil)

// LoadLimits implements policy.LimitStore.
func (s *SQLite) LoadLimits(ctx context.Context, now time.Time) (states []policy.State, err error) {
	err = s.readers.read(ctx, func(conn *sqlite.Conn) error {
		q, err := conn.Prepare("SELECT login, lim, tokens, at, full_at FROM limit_state WHERE full_at > ?")
		if err != nil {
			return err
		}
		defer q.Reset()
		q.BindInt(1, unixNano(now))
		for {
			row, err := q.Step()
			if err != nil || !row {
				return err
			}
			states = append(states, policy.State{Login: q.Text(0), Limit: q.Text(1), Tokens: q.Float(2), At: fromNano(q.Int(3)), Full: fromNano(q.Int(4))})
		}
	})
	if err != nil {
		return nil, fmt.Errorf("load limits: %w", err)
	}
	return states, nil
}

// SaveLimits implements policy.LimitStore. It is lazy: it waits for a commit that comes anyway.
func (s *SQLite) SaveLimits(ctx context.Context, now time.Time, states []policy.State) error {
	err := s.writer.do(ctx, &op{lazy: true, cost: int64(len(states)), run: func(t *tx) error {
		q, err := t.Prepare("DELETE FROM limit_state WHERE full_at <= ?")
		if err != nil {
			return err
		}
		q.BindInt(1, unixNano(now))
		if err := q.Run(); err != nil {
			return err
		}
		if q, err = t.Prepare("INSERT OR REPLACE INTO limit_state VALUES (?, ?, ?, ?, ?)"); err != nil {
			return err
		}
		for _, st := range states {
			q.BindText(1, st.Login)
			q.BindText(2, st.Limit)
			q.BindFloat(3, st.Tokens)
			q.BindInt(4, unixNano(st.At))
			q.BindInt(5, unixNano(st.Full))
			if err := q.Run(); err != nil {
				return err
			}
		}
		return nil
	}})
	if err != nil {
		return fmt.Errorf("save limits: %w", err)
	}
	return nil
}

// NewRecipients implements policy.LimitStore.
func (s *SQLite) NewRecipients(ctx context.Context, login string, addrs []string) (fresh int, err error) {
	err = s.eachKnown(ctx, login, addrs, func(used int64) {
		if used == 0 {
			fresh++
		}
	})
	if err != nil {
		return 0, fmt.Errorf("known recipients of %q: %w", login, err)
	}
	return fresh, nil
}

// eachKnown calls f with when each address was last used, 0 for one that is not known.
func (s *SQLite) eachKnown(ctx context.Context, login string, addrs []string, f func(used int64)) error {
	return s.readers.read(ctx, func(conn *sqlite.Conn) error {
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

func knownSince(conn *sqlite.Conn, login, addr string) (used int64, err error) {
	q, err := conn.Prepare("SELECT max(used, 1) FROM known WHERE login = ? AND addr = ?")
	if err != nil {
		return 0, err
	}
	defer q.Reset()
	q.BindText(1, login)
	q.BindText(2, addr)
	row, err := q.Step()
	if err != nil || !row {
		return 0, err
	}
	return q.Int(0), nil
}

// knownAge is how exact it is remembered when a recipient was last used, so that a login that writes to
// the same people all day costs no write.
const knownAge = time.Hour

// RememberRecipients implements policy.LimitStore. Of each login the MaxKnown used last are kept.
func (s *SQLite) RememberRecipients(ctx context.Context, login string, addrs []string, now time.Time) error {
	stale := unixNano(now.Add(-knownAge))
	needed := false
	err := s.eachKnown(ctx, login, addrs, func(used int64) { needed = needed || used <= stale })
	if err == nil && needed {
		err = s.write(ctx, func(t *tx) error { return s.remember(t, login, addrs, unixNano(now)) })
	}
	if err != nil {
		return fmt.Errorf("known recipients of %q: %w", login, err)
	}
	return nil
}

func (s *SQLite) remember(t *tx, login string, addrs []string, now int64) error {
	var fresh int64
	for _, addr := range addrs {
		used, err := knownSince(t.Conn, login, addr)
		if err != nil {
			return err
		}
		if used == 0 {
			fresh++
		}
		q, err := t.Prepare("INSERT INTO known VALUES (?, ?, ?) ON CONFLICT (login, addr) DO UPDATE SET used = max(used, excluded.used)")
		if err != nil {
			return err
		}
		q.BindText(1, login)
		q.BindText(2, addr)
		q.BindInt(3, now)
		if err := q.Run(); err != nil {
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
	q, err := t.Prepare("INSERT INTO known_count VALUES (?, ?) ON CONFLICT (login) DO UPDATE SET n = n + excluded.n RETURNING n")
	if err != nil {
		return 0, err
	}
	defer q.Reset()
	q.BindText(1, login)
	q.BindInt(2, by)
	if _, err := q.Step(); err != nil {
		return 0, err
	}
	count = q.Int(0)
	_, err = q.Step()
	return count, err
}

func dropOldest(t *tx, login string, n int64) error {
	q, err := t.Prepare(`DELETE FROM known WHERE login = ?1 AND addr IN
		(SELECT addr FROM known INDEXED BY known_login_used WHERE login = ?1 ORDER BY used LIMIT ?2)`)
	if err != nil {
		return err
	}
	q.BindText(1, login)
	q.BindInt(2, n)
	if err := q.Run(); err != nil {
		return err
	}
	_, err = addKnown(t, login, -t.Changes())
	return err
}

// ForgetRecipients implements policy.LimitStore, in small transactions.
func (s *SQLite) ForgetRecipients(ctx context.Context, before time.Time) (total int64, err error) {
	for {
		var n int64
		err := s.write(ctx, func(t *tx) error {
			n, err = forget(t, unixNano(before))
			return err
		})
		if err != nil {
			return total, fmt.Errorf("forget recipients: %w", err)
		}
		total += n
		if n < actionBatch {
			return total, nil
		}
	}
}

func forget(t *tx, before int64) (n int64, err error) {
	q, err := t.Prepare("SELECT login, addr FROM known INDEXED BY known_used WHERE used < ? ORDER BY used LIMIT ?")
	if err != nil {
		return 0, err
	}
	q.BindInt(1, before)
	q.BindInt(2, actionBatch)
	var old [][2]string
	for {
		row, err := q.Step()
		if err != nil {
			q.Reset()
			return 0, err
		}
		if !row {
			break
		}
		old = append(old, [2]string{q.Text(0), q.Text(1)})
	}
	q.Reset()
	for _, k := range old {
		gone, err := update(t, "DELETE FROM known WHERE login = ? AND addr = ?", k[1],
			func(u *sqlite.Stmt) int { u.BindText(1, k[0]); return 1 })
		if err != nil {
			return 0, err
		}
		if !gone {
			continue
		}
		n++
		if _, err := addKnown(t, k[0], -1); err != nil {
			return 0, err
		}
	}
	return n, nil
}
