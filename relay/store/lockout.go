package store

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"postern/auth"
	"postern/relay/store/internal/sqlite"
)

// TopicLockouts changes when a person lifts a lockout.
const TopicLockouts = "lockouts"

// schemaLockout keeps what the lockout must know after a restart: from where logins were used, hashed, and who is
// locked out, which is also how the command line sees it. A lock without a login is of an address, one without an
// address of a login.
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
func (s *Store) SaveLockout(ctx context.Context, now time.Time, u auth.Unsaved) error {
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
				"DELETE FROM lockout_place WHERE digest IN (SELECT digest FROM lockout_place ORDER BY at DESC LIMIT " +
					"-1 OFFSET ?)": maxPlaces,
			})
			if err != nil {
				return err
			}
		}
		return runAll(t, map[string]int64{
			"DELETE FROM lockout WHERE until <= ?": unixNano(now),
			"DELETE FROM lockout WHERE (login, client) IN (SELECT login, client FROM lockout ORDER BY until DESC " +
				"LIMIT -1 OFFSET ?)": maxLockouts,
		})
	}})
	return wrap(err, "save the lockout")
}

func runAll(t *tx, queries map[string]int64) error {
	for query, arg := range queries {
		if err := t.Run(query, arg); err != nil {
			return err
		}
	}
	return nil
}

func putPlace(t *tx, p auth.Place) error {
	return t.Run("INSERT OR REPLACE INTO lockout_place VALUES (?, ?)", p.Digest[:], unixNano(p.At))
}

func putLock(t *tx, l auth.Lock) error {
	if l.Until.IsZero() {
		return dropLock(t, l)
	}
	return t.Run("INSERT OR REPLACE INTO lockout VALUES (?, ?, ?, ?)", l.Login, prefixText(l.Client), unixNano(l.Until),
		l.Failures)
}

func dropLock(t *tx, l auth.Lock) error {
	return t.Run("DELETE FROM lockout WHERE login = ? AND client = ?", l.Login, prefixText(l.Client))
}

func prefixText(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

// Places returns from where logins were used within the last week.
func (s *Store) Places(ctx context.Context, now time.Time) ([]auth.Place, error) {
	places, err := readAll(ctx, s.readers, func(row *sqlite.Stmt) (auth.Place, error) {
		p := auth.Place{At: fromNano(row.Int(1))}
		copy(p.Digest[:], row.Blob(0))
		return p, nil
	}, "SELECT digest, at FROM lockout_place WHERE at >= ?", unixNano(now.Add(-placesFor)))
	return places, wrap(err, "load from where logins are used")
}

const selectLockouts = "SELECT login, client, until, failures FROM lockout WHERE until > ? ORDER BY login, client"

func scanLockout(row *sqlite.Stmt) (auth.Lock, error) {
	l := auth.Lock{Login: row.Text(0), Until: fromNano(row.Int(2)), Failures: int(row.Int(3))}
	l.Client, _ = netip.ParsePrefix(row.Text(1)) // "" is no address
	return l, nil
}

// Lockouts returns who is locked out now: addresses first, then logins.
func (s *Store) Lockouts(ctx context.Context, now time.Time) ([]auth.Lock, error) {
	locks, err := readAll(ctx, s.readers, scanLockout, selectLockouts, unixNano(now))
	return locks, wrap(err, "list who is locked out")
}

// LiftLockouts ends the lockouts that a person chooses and returns them. The daemon hears of it and lets in whom they
// kept out. chosen may be called more than once for each.
func (s *Store) LiftLockouts(ctx context.Context, now time.Time, chosen func(auth.Lock) bool) (lifted []auth.Lock,
	err error) {
	err = s.write(ctx, func(t *tx) error {
		locks, err := list(t.Conn, scanLockout, selectLockouts, unixNano(now))
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
	return lifted, wrap(err, "lift lockouts")
}
