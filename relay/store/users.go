package store

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"postern/auth"
	"postern/relay/store/internal/db"
)

var _ auth.UserStore = (*Store)(nil)

// ErrExists: there is one already.
var ErrExists = errors.New("exists already")

// Generations returns a number for each topic that rises with every change of it by any process: of users, of DKIM
// keys, and of the queue by a person or by a process that is not the daemon. A topic that never changed is not there.
func (s *Store) Generations(ctx context.Context) (map[string]int64, error) {
	all := map[string]int64{}
	err := s.readers.read(ctx, func(conn db.Conn) error {
		for row, err := range conn.Rows("SELECT topic, n FROM generation") {
			if err != nil {
				return err
			}
			all[row.Text(0)] = row.Int(1)
		}
		return nil
	})
	return all, wrap(err, "look for changes")
}

func bump(conn db.Conn, topic string) error {
	return conn.Run("INSERT INTO generation VALUES (?, 1) ON CONFLICT (topic) DO UPDATE SET "+
		"n = generation.n + 1", topic)
}

// userData is how a user is stored, beside the login. auth.User's own JSON would hide the hash.
type userData struct {
	Hash       string         `json:"hash"`
	Generated  bool           `json:"generated,omitempty"`
	Device     bool           `json:"device,omitempty"`
	Locked     bool           `json:"locked,omitempty"`
	LockReason string         `json:"lock_reason,omitempty"`
	Senders    []string       `json:"senders,omitempty"`
	Groups     []string       `json:"groups,omitempty"`
	Networks   []netip.Prefix `json:"networks,omitempty"`
	Created    time.Time      `json:"created"`
	Changed    time.Time      `json:"changed"`
	Edited     time.Time      `json:"edited,omitzero"`
	Note       string         `json:"note,omitempty"`
}

func encodeUser(u auth.User) (string, error) {
	b, err := json.Marshal(userData{
		string(u.Hash), u.Generated, u.Device, u.Locked, u.LockReason, u.Senders, u.Groups, u.Networks, u.Created,
		u.Changed, u.Edited,
		u.Note,
	})
	return string(b), err
}

func scanUser(row db.Row) (auth.User, error) {
	login := row.Text(0)
	var d userData
	if err := json.Unmarshal(row.Blob(1), &d); err != nil {
		return auth.User{}, fmt.Errorf("user %q: its row is damaged: %w", login, err)
	}
	return auth.User{
		Login: login, Hash: auth.Secret(d.Hash), Generated: d.Generated, Device: d.Device, Locked: d.Locked,
		LockReason: d.LockReason,
		Senders:    d.Senders, Groups: d.Groups, Networks: d.Networks, Created: d.Created, Changed: d.Changed,
		Edited: d.Edited,
		Note:   d.Note,
	}, nil
}

// AddUser stores a new user; ErrExists if there is one with this login.
func (s *Store) AddUser(ctx context.Context, u auth.User) error {
	if u.Login == "" {
		return errors.New("a user needs a login")
	}
	err := s.ChangeUsers(ctx, []string{u.Login}, func(stored *auth.User, exists bool) error {
		if exists {
			return ErrExists
		}
		*stored = u
		return nil
	})
	return wrap(err, "user %q", u.Login)
}

// UpdateUser changes a user in one transaction: no change of somebody else in between is lost.
// auth.ErrUnknownLogin if there is none; an error of change leaves everything as it was. change may be
// called more than once and must not call the store.
func (s *Store) UpdateUser(ctx context.Context, login string, change func(*auth.User) error) error {
	err := s.ChangeUsers(ctx, []string{login}, func(u *auth.User, exists bool) error {
		if !exists {
			return auth.ErrUnknownLogin
		}
		return change(u)
	})
	return wrap(err, "user %q", login)
}

// ChangeUsers adds and changes users in one transaction, all of them or none. change is given each login in turn, with
// what is stored or, where it does not exist, with nothing but the login. Otherwise it is as in UpdateUser.
func (s *Store) ChangeUsers(ctx context.Context, logins []string, change func(u *auth.User, exists bool) error) error {
	return s.write(ctx, func(t *tx) error {
		rows := make([]string, len(logins))
		// all are checked before the first is written: a refusal must have changed nothing
		for i, login := range logins {
			u, err := getUser(t.Conn, login)
			exists := !errors.Is(err, auth.ErrUnknownLogin)
			if exists && err != nil {
				return err
			}
			if !exists {
				u = auth.User{Login: login}
			}
			if err := change(&u, exists); err != nil {
				return refuse(err)
			}
			if !exists {
				if err := lockedFromStart(t.Conn, &u); err != nil {
					return err
				}
			}
			if rows[i], err = encodeUser(u); err != nil {
				return refuse(err)
			}
		}
		for i, login := range logins {
			if err := storeUser(t.Conn, login, rows[i]); err != nil {
				return err
			}
		}
		return bump(t.Conn, TopicUsers)
	})
}

func storeUser(conn db.Conn, login, data string) error {
	return conn.Run("INSERT INTO user VALUES (?, ?) ON CONFLICT (login) DO UPDATE SET data = excluded.data", login,
		data)
}

func getUser(conn db.Conn, login string) (auth.User, error) {
	users, err := list(conn, scanUser, "SELECT login, data FROM user WHERE login = ?", login)
	if err == nil && len(users) == 0 {
		err = auth.ErrUnknownLogin
	}
	if err != nil {
		return auth.User{}, err
	}
	return users[0], nil
}

// hasUser refuses a login that has no account.
func hasUser(t *tx, login string) error {
	_, err := getUser(t.Conn, login)
	if errors.Is(err, auth.ErrUnknownLogin) {
		return refuse(err)
	}
	return err
}

// User implements auth.UserStore.
func (s *Store) User(ctx context.Context, login string) (u auth.User, err error) {
	err = s.readers.read(ctx, func(conn db.Conn) error {
		u, err = getUser(conn, login)
		return err
	})
	return u, err
}

// Users returns all users in order of login.
func (s *Store) Users(ctx context.Context) ([]auth.User, error) {
	users, err := readAll(ctx, s.readers, scanUser, "SELECT login, data FROM user ORDER BY login")
	return users, wrap(err, "list users")
}

// DeleteUser removes a user with its app passwords and what its limits remembered; auth.ErrUnknownLogin if there is
// none. Its queued mail stays. check, unless it is nil, may refuse; it is called as change in UpdateUser is.
func (s *Store) DeleteUser(ctx context.Context, login string, check func(auth.User) error) error {
	err := s.write(ctx, func(t *tx) error {
		u, err := getUser(t.Conn, login)
		if errors.Is(err, auth.ErrUnknownLogin) {
			return refuse(err)
		}
		if err != nil {
			return err
		}
		if check != nil {
			if err := check(u); err != nil {
				return refuse(err)
			}
		}
		if e, ok := s.engine.(*server); ok {
			if err := e.lockLimits(t, login); err != nil {
				return err
			}
		}
		for _, table := range []string{"user", "limit_state", "known", "known_count", "scram_keys", "cram_keys",
			"login_certificate"} {
			if err := t.Run("DELETE FROM "+table+" WHERE login = ?", login); err != nil {
				return err
			}
		}
		if err := t.Run("DELETE FROM device_place WHERE login = ?", login); err != nil {
			return err
		}
		if err := forgetPersonOf(t, login); err != nil {
			return err
		}
		return errors.Join(bump(t.Conn, TopicUsers), bump(t.Conn, TopicDevices))
	})
	return wrap(err, "user %q", login)
}

// Secret returns n random octets that were made once for this installation under this name. They are stored sealed.
func (s *Store) Secret(ctx context.Context, name string, n int) ([]byte, error) {
	secret, err := s.secret(ctx, name, n)
	if err == nil && secret == nil {
		fresh := make([]byte, n)
		rand.Read(fresh) // never fails
		if err = s.putSecret(ctx, name, fresh,
			"INSERT INTO secret (value, name) VALUES (?, ?) ON CONFLICT DO NOTHING"); err == nil {
			secret, err = s.secret(ctx, name, n) // another process may have been first
		}
	}
	return secret, wrap(err, "secret %s", name)
}

func secretLabel(name string) string { return "postern secret\x00" + name }

func (s *Store) putSecret(ctx context.Context, name string, secret []byte, query string) error {
	return s.writer.do(ctx, &op{run: func(t *tx) error {
		return t.Run(query, s.sealer.Seal(secretLabel(name), secret), name)
	}})
}

// secret reads one, nil if there is none. One that an earlier version stored in clear, told by its length, is sealed
// now.
func (s *Store) secret(ctx context.Context, name string, n int) (secret []byte, err error) {
	err = s.readers.read(ctx, func(conn db.Conn) error {
		for row, err := range conn.Rows("SELECT value FROM secret WHERE name = ?", name) {
			if err != nil {
				return err
			}
			secret = row.Blob(0)
		}
		return nil
	})
	switch {
	case err != nil || secret == nil:
		return nil, err
	case len(secret) == n:
		return secret, s.putSecret(ctx, name, secret, "UPDATE secret SET value = ? WHERE name = ?")
	}
	if secret, err = s.sealer.Open(secretLabel(name), secret); err != nil {
		return nil, s.explainSeal(err)
	}
	if len(secret) != n {
		return nil, fmt.Errorf("it has %d octets, not %d", len(secret), n)
	}
	return secret, nil
}
