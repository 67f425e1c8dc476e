package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"postern/auth"
	"postern/relay/store/internal/db"
)

// ConsoleUser is a person who may into the console. Name, normalised as logins are, is what names them.
type ConsoleUser struct {
	Name string
	Role string // as operate.Role spells it
	// Provider and Subject are the issuer and subject of somebody who logs in by OpenID Connect, and has neither
	// password nor factors here; "": everybody else.
	Provider, Subject string
	Hash              auth.Secret       // of auth.HashChosen; "": the invitation was not accepted yet
	TOTP              auth.Secret       // base32, "": none. It is stored sealed
	TOTPStep          int64             // of the last code that was taken: it and those before are not taken again
	WrongCodes        int               // since the last right one
	Passkeys          []json.RawMessage // credentials of go-webauthn
	Disabled          bool
	Created           time.Time
	LastLogin         time.Time // zero: never
	// Generation rises with whatever ends the open sessions.
	Generation int64
}

// Active reports whether the user has all that is needed to log in.
func (u *ConsoleUser) Active() bool {
	return !u.Disabled && (u.Provider != "" || u.Hash != "" && (u.TOTP != "" || len(u.Passkeys) > 0))
}

// ErrNoConsoleUser: nobody in the console has this name. ErrTooMany: a bound of the store is reached.
var (
	ErrNoConsoleUser = errors.New("no such user of the console")
	ErrTooMany       = errors.New("too many")
)

// maxConsoleUsers bounds who may into the console.
const maxConsoleUsers = 1000

// consoleData is how a user is stored, beside name and TOTP secret: auth.Secret would hide the hash.
type consoleData struct {
	Role       string            `json:"role"`
	Provider   string            `json:"provider,omitempty"`
	Subject    string            `json:"subject,omitempty"`
	Hash       string            `json:"hash,omitempty"`
	TOTPStep   int64             `json:"totp_step,omitempty"`
	WrongCodes int               `json:"wrong_codes,omitempty"`
	Passkeys   []json.RawMessage `json:"passkeys,omitempty"`
	Disabled   bool              `json:"disabled,omitempty"`
	Created    time.Time         `json:"created"`
	LastLogin  time.Time         `json:"last_login,omitzero"`
	Generation int64             `json:"generation"`
}

func totpLabel(name string) string { return "postern console totp\x00" + name }

var putConsoleUser = upsert("console_user", 1, "name", "data", "totp")

func (s *Store) putConsoleUser(t *tx, u ConsoleUser) error {
	data, err := json.Marshal(consoleData{u.Role, u.Provider, u.Subject, string(u.Hash), u.TOTPStep, u.WrongCodes,
		u.Passkeys, u.Disabled, u.Created, u.LastLogin, u.Generation})
	if err != nil {
		return err
	}
	secret := []byte{}
	if u.TOTP != "" {
		secret = s.sealer.Seal(totpLabel(u.Name), []byte(u.TOTP))
	}
	return t.Run(putConsoleUser, u.Name, string(data), secret)
}

func (s *Store) scanConsoleUser(row db.Row) (ConsoleUser, error) {
	name := row.Text(0)
	var d consoleData
	if err := json.Unmarshal(row.Blob(1), &d); err != nil {
		return ConsoleUser{}, fmt.Errorf("user %q of the console: its row is damaged: %w", name, err)
	}
	u := ConsoleUser{name, d.Role, d.Provider, d.Subject, auth.Secret(d.Hash), "", d.TOTPStep, d.WrongCodes, d.Passkeys,
		d.Disabled, d.Created, d.LastLogin, d.Generation}
	if sealed := row.Blob(2); len(sealed) > 0 {
		secret, err := s.sealer.Open(totpLabel(name), sealed)
		if err != nil {
			return ConsoleUser{}, fmt.Errorf("user %q of the console: %w", name, s.explainSeal(err))
		}
		u.TOTP = auth.Secret(secret)
	}
	return u, nil
}

const selectConsoleUsers = "SELECT name, data, totp FROM console_user"

// ConsoleUsers returns who may into the console, in order of name.
func (s *Store) ConsoleUsers(ctx context.Context) ([]ConsoleUser, error) {
	users, err := readAll(ctx, s.readers, s.scanConsoleUser, selectConsoleUsers+" ORDER BY name")
	return users, wrap(err, "list the users of the console")
}

// ConsoleUser returns one; ErrNoConsoleUser if there is none.
func (s *Store) ConsoleUser(ctx context.Context, name string) (u ConsoleUser, err error) {
	err = s.readers.read(ctx, func(conn db.Conn) error {
		u, err = s.consoleUser(conn, name)
		return err
	})
	return u, wrap(err, "user %q", name)
}

func (s *Store) consoleUser(conn db.Conn, name string) (ConsoleUser, error) {
	found, err := list(conn, s.scanConsoleUser, selectConsoleUsers+" WHERE name = ?", name)
	if err == nil && len(found) == 0 {
		err = ErrNoConsoleUser
	}
	if err != nil {
		return ConsoleUser{}, err
	}
	return found[0], nil
}

// ChangeConsoleUser changes a user in one transaction. change is given what is stored, nothing but the name where it
// does not exist, and all users; it returns false to have the user removed. Sessions of another generation end with
// it. An error of change leaves everything as it was; it may be called more than once and must not call the store.
func (s *Store) ChangeConsoleUser(ctx context.Context, name string,
	change func(u *ConsoleUser, exists bool, all []ConsoleUser) (keep bool, err error)) error {
	err := s.write(ctx, func(t *tx) error { return s.changeConsoleUser(t, name, change) })
	return wrap(err, "user %q of the console", name)
}

// ChangeOwnConsoleUser changes, as ChangeConsoleUser does, the user of a session that is there still, else
// ErrNoSession. Unless next is nil it takes the session's place.
func (s *Store) ChangeOwnConsoleUser(ctx context.Context, name string, session [32]byte, next *ConsoleSession,
	change func(u *ConsoleUser, exists bool, all []ConsoleUser) (keep bool, err error)) error {
	err := s.write(ctx, func(t *tx) error {
		_, there, err := t.Int("SELECT 1 FROM console_session WHERE digest = ? AND name = ?", session[:], name)
		switch {
		case err != nil:
			return err
		case !there:
			return refuse(ErrNoSession)
		}
		if err := s.changeConsoleUser(t, name, change); err != nil || next == nil {
			return err
		}
		if err := t.Run("DELETE FROM console_session WHERE digest = ?", session[:]); err != nil {
			return err
		}
		return putSession(t, *next)
	})
	return wrap(err, "user %q of the console", name)
}

func (s *Store) changeConsoleUser(t *tx, name string,
	change func(u *ConsoleUser, exists bool, all []ConsoleUser) (keep bool, err error)) error {
	all, err := list(t.Conn, s.scanConsoleUser, selectConsoleUsers+" ORDER BY name")
	if err != nil {
		return err
	}
	u, exists := ConsoleUser{Name: name}, false
	for _, one := range all {
		if one.Name == name {
			u, exists = one, true
		}
	}
	keep, err := change(&u, exists, all)
	switch {
	case err != nil:
		return refuse(err)
	case keep && !exists && len(all) >= maxConsoleUsers:
		return refuse(fmt.Errorf("%w: the console has %d users", ErrTooMany, len(all)))
	case keep:
		err = s.putConsoleUser(t, u)
	default:
		u.Generation = -1 // of no session
		err = dropConsoleUser(t, name)
	}
	return errors.Join(err, endSessions(t, u))
}

func dropConsoleUser(t *tx, name string) error {
	return errors.Join(t.Run("DELETE FROM console_user WHERE name = ?", name),
		t.Run("UPDATE console_invite SET void = 1 WHERE name = ? AND used = 0", name))
}

// endSessions ends the sessions of a user that began in another generation, and says that something changed.
func endSessions(t *tx, u ConsoleUser) error {
	return errors.Join(
		t.Run("DELETE FROM console_session WHERE name = ? AND generation <> ?", u.Name, u.Generation),
		bump(t.Conn, TopicConsole))
}

// ConsoleInvite is a link by which somebody makes their password and second factor.
type ConsoleInvite struct {
	Digest  [32]byte // SHA-256 of what stands in the link
	Name    string
	Expires time.Time
	Used    time.Time // zero: not yet
	Void    bool      // a newer one took its place, or the user is gone
}

// ErrNoInvite: there is no such link, or not any more.
var ErrNoInvite = errors.New("no such invitation")

// invitesFor is how long a link that has ended is known as one that has.
const invitesFor = 30 * 24 * time.Hour

// AddConsoleInvite stores a link for a user, whose earlier ones it ends.
func (s *Store) AddConsoleInvite(ctx context.Context, i ConsoleInvite, now time.Time) error {
	err := s.write(ctx, func(t *tx) error {
		if err := t.Run("DELETE FROM console_invite WHERE expires < ?", unixNano(now.Add(-invitesFor))); err != nil {
			return err
		}
		err := t.Run("UPDATE console_invite SET void = 1 WHERE name = ? AND used = 0", i.Name)
		if err != nil {
			return err
		}
		return t.Run("INSERT INTO console_invite VALUES (?, ?, ?, 0, 0)", i.Digest[:], i.Name, unixNano(i.Expires))
	})
	return wrap(err, "invite %q", i.Name)
}

func getInvite(conn db.Conn, digest [32]byte) (ConsoleInvite, error) {
	found, err := list(conn, func(row db.Row) (ConsoleInvite, error) {
		return ConsoleInvite{digest, row.Text(0), fromNano(row.Int(1)), fromNano(row.Int(2)), row.Bool(3)}, nil
	}, "SELECT name, expires, used, void FROM console_invite WHERE digest = ?", digest[:])
	if err == nil && len(found) == 0 {
		err = ErrNoInvite
	}
	if err != nil {
		return ConsoleInvite{}, err
	}
	return found[0], nil
}

// ConsoleInvite returns a link; ErrNoInvite if there is none.
func (s *Store) ConsoleInvite(ctx context.Context, digest [32]byte) (i ConsoleInvite, err error) {
	err = s.readers.read(ctx, func(conn db.Conn) error {
		i, err = getInvite(conn, digest)
		return err
	})
	return i, err
}

// UseConsoleInvite uses a link up and changes its user in the same transaction, so that of two who come with it one is
// refused. accept is as change in ChangeConsoleUser; it judges the link too.
func (s *Store) UseConsoleInvite(ctx context.Context, digest [32]byte, now time.Time,
	accept func(i ConsoleInvite, u *ConsoleUser) error) error {
	return s.write(ctx, func(t *tx) error {
		i, err := getInvite(t.Conn, digest)
		if errors.Is(err, ErrNoInvite) {
			return refuse(err)
		}
		if err != nil {
			return err
		}
		u, err := s.consoleUser(t.Conn, i.Name)
		if errors.Is(err, ErrNoConsoleUser) {
			return refuse(err)
		}
		if err != nil {
			return err
		}
		if err := accept(i, &u); err != nil {
			return refuse(err)
		}
		err = t.Run("UPDATE console_invite SET used = ? WHERE digest = ?", unixNano(now), digest[:])
		return errors.Join(err, s.putConsoleUser(t, u), endSessions(t, u))
	})
}
