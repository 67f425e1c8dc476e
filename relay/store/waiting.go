package store

import (
	"context"
	"fmt"
	"time"

	"postern/relay/store/internal/db"
)

// schema4: what waits for the same upstreams is in order of login, so that logins take turns when it is woken. Held
// messages wait for a person.
const schema4 = `
DROP INDEX message_waiting;
CREATE INDEX message_waiting ON message (waiting_for, login) WHERE waiting_for <> '' AND held = 0;
`

// Wake implements queue.Store.
func (s *Store) Wake(ctx context.Context, waitingFor string, now time.Time, limit int) (total int, err error) {
	for waitingFor != "" && total < limit {
		n, woken := min(limit-total, actionBatch), 0
		err := s.write(ctx, func(t *tx) error {
			ids, err := sleepers(t.Conn, waitingFor, n)
			if err != nil {
				return err
			}
			for _, id := range ids {
				if err := t.Run("UPDATE message SET next = ?, waiting_for = '' WHERE id = ? AND waiting_for = ?",
					s.clock.nano(now), id, waitingFor); err != nil {
					return err
				}
			}
			woken = len(ids)
			return nil
		})
		if err != nil {
			return total, fmt.Errorf("wake what waits for %s: %w", waitingFor, err)
		}
		if total += woken; woken < n {
			break
		}
	}
	return total, nil
}

// sleepers returns up to limit messages that wait for the same, as even a number of each login as there is.
func sleepers(conn db.Conn, waitingFor string, limit int) (ids []string, err error) {
	logins, err := list(conn, text, `SELECT login FROM message INDEXED BY message_waiting
		WHERE waiting_for = ?1 AND waiting_for <> '' AND held = 0 ORDER BY login LIMIT 1`, waitingFor)
	if err != nil || len(logins) == 0 {
		return nil, err
	}
	for len(logins) < limit { // one seek for each login, however many messages it has
		more, err := list(conn, text, `SELECT login FROM message INDEXED BY message_waiting
			WHERE waiting_for = ?1 AND waiting_for <> '' AND held = 0 AND login > ?2 ORDER BY login LIMIT 1`,
			waitingFor, logins[len(logins)-1])
		if err != nil {
			return nil, err
		}
		if len(more) == 0 {
			break
		}
		logins = append(logins, more[0])
	}
	last := make(map[string]string, len(logins))
	for len(logins) > 0 && len(ids) < limit {
		share := (limit - len(ids) + len(logins) - 1) / len(logins)
		rest := logins[:0]
		for _, login := range logins {
			n := min(share, limit-len(ids))
			if n == 0 {
				break
			}
			more, err := list(conn, text, `SELECT id FROM message INDEXED BY message_waiting
				WHERE waiting_for = ?1 AND waiting_for <> '' AND held = 0 AND login = ?2 AND id > ?3
				ORDER BY id LIMIT ?4`,
				waitingFor, login, last[login], n)
			if err != nil {
				return nil, err
			}
			ids = append(ids, more...)
			if len(more) == n {
				last[login] = more[n-1]
				rest = append(rest, login)
			}
		}
		logins = rest
	}
	return ids, nil
}

// WaitedFor implements queue.Store. Each name is one seek.
func (s *Store) WaitedFor(ctx context.Context, after string, limit int) (names []string, err error) {
	err = s.readers.read(ctx, func(conn db.Conn) error {
		for len(names) < limit {
			next, err := list(conn, text, `SELECT waiting_for FROM message INDEXED BY message_waiting
				WHERE waiting_for > ?1 AND waiting_for <> '' AND held = 0 ORDER BY waiting_for LIMIT 1`, after)
			if err != nil || len(next) == 0 {
				return err
			}
			after = next[0]
			names = append(names, after)
		}
		return nil
	})
	return names, wrap(err, "list what messages wait for")
}
