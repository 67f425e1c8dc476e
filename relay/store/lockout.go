package store

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"postern/auth"
	"postern/relay/store/internal/sqlite"
)

// TopicLockouts changes when a person lifts a lockout.
const TopicLockouts = "lockouts"

// schemaLockout keeps what the lockout must know after a restart: from where logins were used, hashed, and who is
// locked out, which is also how the command line sees it. A lock without a login is of an address, one without an address of a
// login.
const schemaLockout = `
CREATE TABLE lockout_place (digest BLOB PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX lockout_place_at ON lockout_place (at);
CREATE TABLE lockout (
	login TEXT NOT NULL, client TEXT NOT NULL, until INTEGER NOT NULL, failures INTEGER NOT NULL,
	PRIMARY KEY (login, client)
) STRICT, WITHOUT ROWID;
CREATE INDEX lockout_until ON lockout (until);
`

// What is kept at most; the oldest go first.
const (
	placesFor   = 7 * 24 * time.Hour
	maxPlaces   = 32768
	maxLockouts = 16384
)

// SaveLockout writes down what changed. It is lazy: it waits for a commit that comes anyway.
func (s *SQLite) SaveLockout(ctx context.Context, now time.Time, u auth.Unsaved) error {
	cost := int64(len(u.Places) + len(u.Locks))
	err := s.writer.do(ctx, &op{lazy: true, cost: cost, run: func(t *tx) error {
		for _, p := range u.Places {
			if err := putPlace(t, p); err != nil {
				return err
			}
		}
		for _, l := range u.Locks {
			if err := putLock(t, l); err != nil {
				return err
			}
		}
		if len(u.Places) > 0 {
			err := runAll(t, map[string]int64{
				"DELETE FROM lockout_place WHERE at < ?": unixNano(now.Add(-placesFor)),
				"DELETE FROM lockout_place WHERE digest IN (SELECT digest FROM lockout_place ORDER BY at DESC LIMIT -1 OFFSET ?)": maxPlaces,
			})
			if err != nil {
				return err
			}
		}
		return runAll(t, map[string]int64{
			"DELETE FROM lockout WHERE until <= ?": unixNano(now),
			"DELETE FROM lockout WHERE (login, client) IN (SELECT login, client FROM lockout ORDER BY until DESC LIMIT -1 OFFSET ?)": maxLockouts,
		})
	}})
	if err != nil {
		return fmt.Errorf("save the lockout: %w", err)
	}
	return nil
}

func runAll(t *tx, queries map[string]int64) error {
	for query, arg := range queries {
		q, err := t.Prepare(query)
		if err != nil {
			return err
		}
		q.BindInt(1, arg)
		if err := q.Run(); err != nil {
			return err
		}
	}
	return nil
}

func putPlace(t *tx, p auth.Place) error {
	q, err := t.Prepare("INSERT OR REPLACE INTO lockout_place VALUES (?, ?)")
	if err != nil {
		return err
	}
	q.BindBlob(1, p.Digest[:])
	q.BindInt(2, unixNano(p.At))
	return q.Run()
}

func putLock(t *tx, l auth.Lock) error {
	if l.Until.IsZero() {
		return dropLock(t, l)
	}
	q, err := t.Prepare("INSERT OR REPLACE INTO lockout VALUES (?, ?, ?, ?)")
	if err != nil {
		return err
	}
	q.BindText(1, l.Login)
	q.BindText(2, prefixText(l.Client))
	q.BindInt(3, unixNano(l.Until))
	q.BindInt(4, int64(l.Failures))
	return q.Run()
}

func dropLock(t *tx, l auth.Lock) error {
	q, err := t.Prepare("DELETE FROM lockout WHERE login = ? AND client = ?")
	if err != nil {
		return err
	}
	q.BindText(1, l.Login)
	q.BindText(2, prefixText(l.Client))
	return q.Run()
}

func prefixText(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

// Places returns from where logins were used within the last week.
func (s *SQLite) Places(ctx context.Context, now time.Time) (places []auth.Place, err error) {
	err = s.readers.read(ctx, func(conn *sqlite.Conn) error {
		places = nil
		q, err := conn.Prepare("SELECT digest, at FROM lockout_place WHERE at >= ?")
		if err != nil {
			return err
		}
		defer q.Reset()
		q.BindInt(1, unixNano(now.Add(-placesFor)))
		for {
			row, err := q.Step()
			if err != nil || !row {
				return err
			}
			p := auth.Place{At: fromNano(q.Int(1))}
			copy(p.Digest[:], q.Blob(0))
			places = append(places, p)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("load from where logins are used: %w", err)
	}
	return places, nil
}

// Lockouts returns who is locked out now: addresses first, then logins.
func (s *SQLite) Lockouts(ctx context.Context, now time.Time) (locks []auth.Lock, err error) {
	err = s.readers.read(ctx, func(conn *sqlite.Conn) error {
		locks, err = lockouts(conn, now)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list who is locked out: %w", err)
	}
	return locks, nil
}

func lockouts(conn *sqlite.Conn, now time.Time) (locks []auth.Lock, err error) {
	q, err := conn.Prepare("SELECT login, client, until, failures FROM lockout WHERE until > ? ORDER BY login, client")
	if err != nil {
		return nil, err
	}
	defer q.Reset()
	q.BindInt(1, unixNano(now))
	for {
		row, err := q.Step()
		if err != nil || !row {
			return locks, err
		}
		l := auth.Lock{Login: q.Text(0), Until: fromNano(q.Int(2)), Failures: int(q.Int(3))}
		l.Client, _ = netip.ParsePrefix(q.Text(1)) // "" is no address
		locks = append(locks, l)
	}
}

// LiftLockouts ends the lockouts that a person chooses and returns them. The daemon hears of it and lets in whom they kept
// out. chosen may be called more than once for each.
func (s *SQLite) LiftLockouts(ctx context.Context, now time.Time, chosen func(auth.Lock) bool) (lifted []auth.Lock, err error) {
	err = s.write(ctx, func(t *tx) error {
		locks, err := lockouts(t.Conn, now)
		if err != nil {
			return err
		}
		lifted = slices.DeleteFunc(locks, func(l auth.Lock) bool { return !chosen(l) })
		if len(lifted) == 0 {
			return nil
		}
		for _, l := range lifted {
			if err := dropLock(t, l); err != nil {
				return err
			}
		}
		return bump(t.Conn, TopicLockouts)
	})
	if err != nil {
		return nil, fmt.Errorf("lift lockouts: %w", err)
	}
	return lifted, nil
}
