package store

import (
	"context"
	"errors"
	"fmt"

	"postern/auth"
	"postern/relay/store/internal/db"
)

var _ auth.LockKeeper = (*Store)(nil)

// schemaLoginLock keeps the locks of logins whose accounts are in other sources. An account of the store has its lock
// in itself; one that is added with a login that is locked here is locked from the start.
const schemaLoginLock = `
CREATE TABLE login_lock (
	login TEXT PRIMARY KEY, reason TEXT NOT NULL, by TEXT NOT NULL, at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
`

// maxLoginLocks bounds the locks that people and policies make: as many as anybody would look through.
const maxLoginLocks = 10000

const selectLoginLock = "SELECT login, reason, by, at FROM login_lock"

func scanLoginLock(row db.Row) (auth.LoginLock, error) {
	return auth.LoginLock{Login: row.Text(0), Reason: row.Text(1), By: row.Text(2), At: fromNano(row.Int(3))}, nil
}

// LoginLock implements auth.LockKeeper. A lock of an account of the store holds for whom another source calls by its
// login, too.
func (s *Store) LoginLock(ctx context.Context, logins ...string) (l auth.LoginLock, err error) {
	err = s.readers.read(ctx, func(conn db.Conn) error {
		for _, login := range logins {
			found, err := list(conn, scanLoginLock, selectLoginLock+" WHERE login = ?", login)
			if err != nil {
				return err
			}
			if len(found) > 0 {
				l = found[0]
				return nil
			}
			u, err := getUser(conn, login)
			switch {
			case err == nil && u.Locked:
				l = auth.LoginLock{Login: login, Reason: u.LockReason, At: u.Changed}
				return nil
			case err != nil && !errors.Is(err, auth.ErrUnknownLogin):
				return err
			}
		}
		return auth.ErrUnknownLogin
	})
	return l, err
}

// LockedElsewhere returns the logins of LoginLocks as accounts of which nothing is known but the lock.
func (s *Store) LockedElsewhere(ctx context.Context) ([]auth.User, error) {
	locks, err := s.LoginLocks(ctx)
	users := make([]auth.User, len(locks))
	for i, l := range locks {
		users[i] = auth.User{Login: l.Login, Locked: true, LockReason: l.Reason, Changed: l.At}
	}
	return users, err
}

// lockedFromStart locks an account that is added with a login that was locked before.
func lockedFromStart(conn db.Conn, u *auth.User) error {
	found, err := list(conn, scanLoginLock, selectLoginLock+" WHERE login = ?", u.Login)
	if err == nil && len(found) > 0 {
		u.Locked, u.LockReason = true, found[0].Reason
	}
	return err
}

// LoginLocks returns the locks of logins that have no account in the store, in order of login.
func (s *Store) LoginLocks(ctx context.Context) ([]auth.LoginLock, error) {
	locks, err := readAll(ctx, s.readers, scanLoginLock, selectLoginLock+
		" WHERE login NOT IN (SELECT login FROM user) ORDER BY login")
	return locks, wrap(err, "list the locked logins")
}

// LockLogin locks a login whatever source its account is in. A lock that is there stays, and fresh says that there was
// none. ErrTooMany if 10 000 are locked.
func (s *Store) LockLogin(ctx context.Context, l auth.LoginLock) (fresh bool, err error) {
	err = s.write(ctx, func(t *tx) error {
		n, _, err := t.Int("SELECT count(*) FROM login_lock")
		if err != nil {
			return err
		}
		_, there, err := t.Int("SELECT at FROM login_lock WHERE login = ?", l.Login)
		if fresh = !there; err != nil || there {
			return err
		}
		if n >= maxLoginLocks {
			return refuse(fmt.Errorf("%w: %d logins are locked", ErrTooMany, n))
		}
		return errors.Join(t.Run("INSERT INTO login_lock VALUES (?, ?, ?, ?)", l.Login, l.Reason, l.By, unixNano(l.At)),
			endPersonSessions(t, l.Login), bump(t.Conn, TopicUsers))
	})
	return fresh, wrap(err, "lock login %q", l.Login)
}

// UnlockLogin ends the lock of LockLogin, and reports whether there was one.
func (s *Store) UnlockLogin(ctx context.Context, login string) (was bool, err error) {
	err = s.write(ctx, func(t *tx) error {
		if err := t.Run("DELETE FROM login_lock WHERE login = ?", login); err != nil {
			return err
		}
		if was = t.Changes() > 0; !was {
			return nil
		}
		return bump(t.Conn, TopicUsers)
	})
	return was, wrap(err, "unlock login %q", login)
}
