package store

import (
	"context"
	"errors"
	"time"

	"postern/relay/store/internal/db"
)

// ConsoleSession is a browser that somebody has logged in with.
type ConsoleSession struct {
	Digest     [32]byte // SHA-256 of its cookie
	Name       string
	Generation int64 // of the user when it began
	Created    time.Time
	Used       time.Time // to the minute
	Strong     time.Time // when the second factor was last given; zero: never
	Client     string    // address that it began from
}

// ErrNoSession: there is no such session, or not any more.
var ErrNoSession = errors.New("no such session")

// sessionsOfUser bounds how many sessions of a user are open at once; the oldest end.
const sessionsOfUser = 20

// AddConsoleSession stores a session. It ends the one that it replaces, unless that is nil, with ErrNoSession if that
// one is not there any more, and all that began, or were used, before the moments given.
func (s *Store) AddConsoleSession(ctx context.Context, c ConsoleSession, replaces *[32]byte,
	began, used time.Time) error {
	err := s.write(ctx, func(t *tx) error {
		if replaces != nil {
			gone, err := update(t, "DELETE FROM console_session WHERE digest = ?", replaces[:])
			if err == nil && !gone {
				err = refuse(ErrNoSession)
			}
			if err != nil {
				return err
			}
		}
		if err := putSession(t, c); err != nil {
			return err
		}
		err := t.Run("DELETE FROM console_session WHERE created < ? OR used < ?", unixNano(began), unixNano(used))
		return errors.Join(err, t.Run("DELETE FROM console_session WHERE digest IN (SELECT digest FROM "+
			"console_session "+
			"WHERE name = ? ORDER BY created DESC LIMIT -1 OFFSET ?)", c.Name, sessionsOfUser))
	})
	return wrap(err, "session of %q", c.Name)
}

func putSession(t *tx, c ConsoleSession) error {
	return t.Run("INSERT INTO console_session VALUES (?, ?, ?, ?, ?, ?, ?)", c.Digest[:], c.Name, c.Generation,
		unixNano(c.Created), unixNano(c.Used), unixNano(c.Strong), c.Client)
}

const selectSessions = "SELECT name, generation, created, used, strong, client, digest FROM console_session"

func scanSession(row db.Row) (ConsoleSession, error) {
	c := ConsoleSession{Name: row.Text(0), Generation: row.Int(1), Created: fromNano(row.Int(2)),
		Used: fromNano(row.Int(3)), Strong: fromNano(row.Int(4)), Client: row.Text(5)}
	copy(c.Digest[:], row.Blob(6))
	return c, nil
}

// ConsoleSessions returns the sessions of a user that began, and were last used, after the moments given: those used
// last come first.
func (s *Store) ConsoleSessions(ctx context.Context, name string, began, used time.Time) ([]ConsoleSession, error) {
	found, err := readAll(ctx, s.readers, scanSession,
		selectSessions+" WHERE name = ? AND created > ? AND used > ? ORDER BY used DESC, created DESC", name,
		unixNano(began), unixNano(used))
	return found, wrap(err, "sessions of %q", name)
}

// ConsoleSession returns a session and its user; ErrNoSession if there is none, or if something has happened to the
// user that ended it.
func (s *Store) ConsoleSession(ctx context.Context, digest [32]byte) (c ConsoleSession, u ConsoleUser, err error) {
	err = s.readers.read(ctx, func(conn db.Conn) error {
		found, err := list(conn, scanSession, selectSessions+" WHERE digest = ?", digest[:])
		if err == nil && len(found) == 0 {
			err = ErrNoSession
		}
		if err != nil {
			return err
		}
		c = found[0]
		u, err = s.consoleUser(conn, c.Name)
		if errors.Is(err, ErrNoConsoleUser) || err == nil && (u.Generation != c.Generation || !u.Active()) {
			err = ErrNoSession
		}
		return err
	})
	return c, u, err
}

// TouchConsoleSession says that a session is used.
func (s *Store) TouchConsoleSession(ctx context.Context, digest [32]byte, now time.Time) error {
	err := s.write(ctx, func(t *tx) error {
		return t.Run("UPDATE console_session SET used = max(used, ?) WHERE digest = ?", unixNano(now), digest[:])
	})
	return wrap(err, "session")
}

// EndConsoleSession ends a session, if it is there.
func (s *Store) EndConsoleSession(ctx context.Context, digest [32]byte) error {
	err := s.write(ctx, func(t *tx) error {
		return t.Run("DELETE FROM console_session WHERE digest = ?", digest[:])
	})
	return wrap(err, "end a session")
}

// EndOtherSessions ends, for a session that is there still, another one of its user, or all others where other is nil.
// ErrNoSession: the one that asks has ended.
func (s *Store) EndOtherSessions(ctx context.Context, name string, asks [32]byte, other *[32]byte) error {
	err := s.write(ctx, func(t *tx) error {
		_, there, err := t.Int("SELECT 1 FROM console_session WHERE digest = ? AND name = ?", asks[:], name)
		switch {
		case err != nil:
			return err
		case !there:
			return refuse(ErrNoSession)
		case other != nil:
			return t.Run("DELETE FROM console_session WHERE name = ? AND digest = ?", name, other[:])
		}
		return t.Run("DELETE FROM console_session WHERE name = ? AND digest <> ?", name, asks[:])
	})
	return wrap(err, "end other sessions of %q", name)
}
