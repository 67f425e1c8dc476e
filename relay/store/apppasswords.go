package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"postern/auth"
	"postern/relay/privacy"
	"postern/relay/store/internal/db"
)

var _ auth.AppStore = (*Store)(nil)

// TopicAppPasswords changes with every app password that is made or revoked, and when a person changes in what counts
// for them.
const TopicAppPasswords = "app-passwords"

// schemaAppPasswords keeps app passwords, as HMACs of them, and who makes them. A subject of OpenID Connect has one
// login, and a login one subject.
const schemaAppPasswords = `
CREATE TABLE person (
	login TEXT PRIMARY KEY, subject TEXT NOT NULL, seen INTEGER NOT NULL, data TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX person_subject ON person (subject) WHERE subject <> '';
CREATE TABLE app_password (
	id        TEXT PRIMARY KEY,
	login     TEXT NOT NULL,
	hash      TEXT NOT NULL UNIQUE,
	created   INTEGER NOT NULL,
	expires   INTEGER NOT NULL,
	used      INTEGER NOT NULL, -- 0: never
	used_from TEXT NOT NULL,
	data      TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX app_password_login ON app_password (login, created);
`

// Bounds of what is kept.
const (
	maxPersons = 100_000
	// MaxAppPasswords bounds those of one login, expired ones among them.
	MaxAppPasswords = 50
)

// ErrNoAppPassword: there is no such app password, or no such person.
var ErrNoAppPassword = errors.New("no such app password")

// BoundError is a login and a subject of OpenID Connect that do not belong together.
type BoundError struct {
	Login   string // that the subject has
	Subject string // that has the login; "" where the other is the reason, or a person without subject
}

func (e *BoundError) Error() string {
	return fmt.Sprintf("login %q belongs to another person (%q)", e.Login, e.Subject)
}

type personData struct {
	Name    string   `json:"name,omitempty"`
	Groups  []string `json:"groups,omitempty"`
	Senders []string `json:"senders,omitempty"`
	Source  string   `json:"source"`
}

type appPasswordData struct {
	Name     string         `json:"name"`
	Networks []netip.Prefix `json:"networks,omitempty"`
}

const (
	personColumns = "p.login, p.subject, p.seen, p.data"
	appColumns    = "a.id, a.login, a.hash, a.created, a.expires, a.used, a.used_from, a.data"
)

func scanPerson(row db.Row) (auth.Person, error) { return personAt(row, 0) }

func personAt(row db.Row, i int) (auth.Person, error) {
	p := auth.Person{Login: row.Text(i), Subject: row.Text(i + 1), Seen: fromNano(row.Int(i + 2))}
	var d personData
	if err := json.Unmarshal(row.Blob(i+3), &d); err != nil {
		return p, fmt.Errorf("person %q: the row is damaged: %w", p.Login, err)
	}
	p.Name, p.Groups, p.Senders, p.Source = d.Name, d.Groups, d.Senders, d.Source
	return p, nil
}

func scanAppPassword(row db.Row) (auth.AppPassword, error) {
	k := auth.AppPassword{ID: row.Text(0), Login: row.Text(1), Hash: auth.Secret(row.Text(2)),
		Created: fromNano(row.Int(3)), Expires: fromNano(row.Int(4)), LastUsed: fromNano(row.Int(5)),
		LastFrom: row.Text(6)}
	var d appPasswordData
	if err := json.Unmarshal(row.Blob(7), &d); err != nil {
		return k, fmt.Errorf("app password %q: the row is damaged: %w", k.ID, err)
	}
	k.Name, k.Networks = d.Name, d.Networks
	return k, nil
}

// AppPassword implements auth.AppStore.
func (s *Store) AppPassword(ctx context.Context, hash auth.Secret) (auth.Person, auth.AppPassword, error) {
	return s.appPassword(ctx, "a.hash", string(hash))
}

// AppPasswordOf implements auth.AppStore.
func (s *Store) AppPasswordOf(ctx context.Context, id string) (auth.Person, auth.AppPassword, error) {
	return s.appPassword(ctx, "a.id", id)
}

type ownedPassword struct {
	person   auth.Person
	password auth.AppPassword
}

func (s *Store) appPassword(ctx context.Context, column, value string) (auth.Person, auth.AppPassword, error) {
	found, err := readAll(ctx, s.readers, func(row db.Row) (o ownedPassword, err error) {
		if o.password, err = scanAppPassword(row); err == nil {
			o.person, err = personAt(row, 8)
		}
		return o, err
	}, "SELECT "+appColumns+", "+personColumns+" FROM app_password a JOIN person p ON p.login = a.login WHERE "+
		column+" = ?", value)
	if err == nil && len(found) == 0 {
		err = auth.ErrUnknownLogin
	}
	if err != nil {
		return auth.Person{}, auth.AppPassword{}, wrap(err, "app password")
	}
	return found[0].person, found[0].password, nil
}

// Person returns a person; ErrNoAppPassword if there is none with this login.
func (s *Store) Person(ctx context.Context, login string) (auth.Person, error) {
	found, err := readAll(ctx, s.readers, scanPerson, "SELECT "+personColumns+" FROM person p WHERE p.login = ?", login)
	if err == nil && len(found) == 0 {
		err = ErrNoAppPassword
	}
	if err != nil {
		return auth.Person{}, wrap(err, "person %q", login)
	}
	return found[0], nil
}

// Persons returns all in order of login.
func (s *Store) Persons(ctx context.Context) ([]auth.Person, error) {
	all, err := readAll(ctx, s.readers, scanPerson, "SELECT "+personColumns+" FROM person p ORDER BY p.login")
	return all, wrap(err, "list the people with app passwords")
}

// ProvidedPersons returns those who come by OpenID Connect, in order of login.
func (s *Store) ProvidedPersons(ctx context.Context) ([]auth.Person, error) {
	all, err := readAll(ctx, s.readers, scanPerson, "SELECT "+personColumns+
		" FROM person p WHERE p.subject <> '' AND NOT EXISTS (SELECT 1 FROM user u WHERE u.login = p.login)"+
		" ORDER BY p.login")
	return all, wrap(err, "list the people that a login provider knows")
}

// AppPasswords returns those of one login, or with "" of all, the newest first.
func (s *Store) AppPasswords(ctx context.Context, login string) ([]auth.AppPassword, error) {
	all, err := readAll(ctx, s.readers, scanAppPassword, "SELECT "+appColumns+
		" FROM app_password a WHERE ?1 IN ('', a.login) ORDER BY a.created DESC, a.id", login)
	return all, wrap(err, "list the app passwords")
}

// PutPerson stores who logs in to the page, or is given an app password. Seen never goes back. A
// login is bound to the first subject that has it, and a subject to its first login: else it is a *BoundError.
// ErrTooMany over 100 000 people. A login that is of another source than before is somebody else's: the app passwords
// and sessions that it had end, and those app passwords are returned.
func (s *Store) PutPerson(ctx context.Context, p auth.Person) (ended []auth.AppPassword, err error) {
	if p.Login == "" {
		return nil, errors.New("a person needs a login")
	}
	err = s.write(ctx, func(t *tx) error {
		before, err := personBefore(t, p)
		if err == nil {
			ended, err = putPerson(t, before, p)
		}
		return err
	})
	return ended, wrap(err, "person %q", p.Login)
}

// moved reports whether a login is of another source than before, and so somebody else's.
func moved(before *auth.Person, p auth.Person) bool {
	return before != nil && before.Source != p.Source
}

var putPersonRow = upsert("person", 1, "login", "subject", "seen", "data")

// putPerson does what PutPerson says, to whom personBefore does not refuse.
func putPerson(t *tx, before *auth.Person, p auth.Person) (ended []auth.AppPassword, err error) {
	if before != nil && before.Seen.After(p.Seen) {
		p.Seen = before.Seen
	}
	if moved(before, p) {
		ended, err = endAppPasswords(t, p.Login, "")
		if err = errors.Join(err, endPersonSessions(t, p.Login)); err != nil {
			return nil, err
		}
	}
	data, err := json.Marshal(personData{p.Name, p.Groups, p.Senders, p.Source})
	if err != nil {
		return nil, err
	}
	err = t.Run(putPersonRow, p.Login, p.Subject, unixNano(p.Seen), string(data))
	if err == nil && (before == nil || moved(before, p) || !slices.Equal(p.Groups, before.Groups) ||
		!slices.Equal(p.Senders, before.Senders)) {
		err = bump(t.Conn, TopicAppPasswords) // they are to be verified again
	}
	return ended, err
}

// personBefore is what is stored of a person, nil if nothing is. It refuses who cannot be stored.
func personBefore(t *tx, p auth.Person) (*auth.Person, error) {
	had, err := list(t.Conn, scanPerson, "SELECT "+personColumns+
		" FROM person p WHERE p.login = ?1 OR p.subject = ?2 AND ?2 <> ''", p.Login, p.Subject)
	if err != nil {
		return nil, err
	}
	n, _, err := t.Int("SELECT count(*) FROM person")
	switch {
	case err != nil:
		return nil, err
	case len(had) == 0 && n >= maxPersons:
		return nil, refuse(fmt.Errorf("%w: there are %d people", ErrTooMany, n))
	case len(had) == 0:
		return nil, nil
	}
	for _, h := range had {
		if h.Login != p.Login || h.Subject != p.Subject {
			return nil, refuse(&BoundError{h.Login, h.Subject})
		}
	}
	return &had[0], nil
}

// forgetPersonOf removes the person whose login was an account of the store, with all app passwords.
func forgetPersonOf(t *tx, login string) error {
	had, err := list(t.Conn, scanPerson, "SELECT "+personColumns+" FROM person p WHERE p.login = ?", login)
	if err != nil || len(had) == 0 || had[0].Source != storeSource || had[0].Subject != "" {
		return err
	}
	return errors.Join(t.Run("DELETE FROM person WHERE login = ?", login),
		t.Run("DELETE FROM app_password WHERE login = ?", login), bump(t.Conn, TopicAppPasswords))
}

// storeSource is the name of the source that accounts of the store have.
const storeSource = "store"

// ForgetPerson removes a person with all app passwords, and returns how many those were. Whoever logs in next as this
// login may have it. ErrNoAppPassword if there is no such person.
func (s *Store) ForgetPerson(ctx context.Context, login string) (n int, err error) {
	err = s.write(ctx, func(t *tx) error {
		gone, err := update(t, "DELETE FROM person WHERE login = ?", login)
		if err == nil && !gone {
			err = refuse(ErrNoAppPassword)
		}
		if err != nil {
			return err
		}
		if err := t.Run("DELETE FROM app_password WHERE login = ?", login); err != nil {
			return err
		}
		n = int(t.Changes())
		if err := endPersonSessions(t, login); err != nil {
			return err
		}
		return bump(t.Conn, TopicAppPasswords)
	})
	return n, wrap(err, "person %q", login)
}

// AddAppPassword stores a new one of a person, who is put as PutPerson does: ErrExists if another of the same login has
// its name, ErrTooMany if there are most already, ErrNoAppPassword if the person has been seen and is there no more.
// Expired ones make room.
func (s *Store) AddAppPassword(ctx context.Context, p auth.Person, k auth.AppPassword, most int, now time.Time) (
	ended []auth.AppPassword, err error) {
	data, err := json.Marshal(appPasswordData{k.Name, k.Networks})
	if err == nil && p.Login != k.Login {
		err = errors.New("an app password is of its person")
	}
	if err != nil {
		return nil, err
	}
	err = s.write(ctx, func(t *tx) error {
		before, err := personBefore(t, p)
		if err != nil {
			return err
		}
		if before == nil && !p.Seen.IsZero() {
			return refuse(ErrNoAppPassword) // forgotten meanwhile
		}
		var had []auth.AppPassword
		if !moved(before, p) {
			had, err = list(t.Conn, scanAppPassword, "SELECT "+appColumns+" FROM app_password a WHERE a.login = ?",
				k.Login)
		}
		if err != nil {
			return err
		}
		if slices.ContainsFunc(had, func(h auth.AppPassword) bool {
			return h.Name == k.Name && now.Before(h.Expires)
		}) {
			return refuse(ErrExists)
		}
		live := slices.DeleteFunc(slices.Clone(had), func(h auth.AppPassword) bool { return !now.Before(h.Expires) })
		if len(live) >= min(most, MaxAppPasswords) {
			return refuse(fmt.Errorf("%w: there are %d app passwords", ErrTooMany, len(live)))
		}
		if ended, err = putPerson(t, before, p); err != nil {
			return err
		}
		if err := dropExpired(t, had, k, now); err != nil {
			return err
		}
		return errors.Join(t.Run("INSERT INTO app_password VALUES (?, ?, ?, ?, ?, 0, '', ?)", k.ID, k.Login,
			string(k.Hash), unixNano(k.Created), unixNano(k.Expires), string(data)), bump(t.Conn, TopicAppPasswords))
	})
	return ended, wrap(err, "app password of %q", k.Login)
}

// dropExpired removes expired ones that stand in the way of a new one: of its name, or all where there is no room.
func dropExpired(t *tx, had []auth.AppPassword, fresh auth.AppPassword, now time.Time) error {
	for _, h := range had {
		if now.Before(h.Expires) || h.Name != fresh.Name && len(had) < MaxAppPasswords {
			continue
		}
		if err := t.Run("DELETE FROM app_password WHERE id = ?", h.ID); err != nil {
			return err
		}
	}
	return nil
}

// RevokeAppPasswords removes one of a login, or with "" all of it, and returns what is gone. ErrNoAppPassword if there
// is none such.
func (s *Store) RevokeAppPasswords(ctx context.Context, login, id string) (gone []auth.AppPassword, err error) {
	err = s.write(ctx, func(t *tx) (err error) {
		gone, err = endAppPasswords(t, login, id)
		if err == nil && len(gone) == 0 {
			err = refuse(ErrNoAppPassword)
		}
		if err != nil {
			return err
		}
		return bump(t.Conn, TopicAppPasswords)
	})
	return gone, wrap(err, "app password of %q", login)
}

// endAppPasswords removes one of a login, or with "" all of it, and returns what is gone.
func endAppPasswords(t *tx, login, id string) ([]auth.AppPassword, error) {
	const which = " WHERE login = ?1 AND ?2 IN ('', id)"
	gone, err := list(t.Conn, scanAppPassword, "SELECT "+appColumns+" FROM app_password a"+which, login, id)
	if err != nil || len(gone) == 0 {
		return nil, err
	}
	return gone, t.Run("DELETE FROM app_password"+which, login, id)
}

// AppUse is when and from where an app password was used.
type AppUse struct {
	ID   string
	At   time.Time
	From string
}

// keptOf is what [privacy] lets be kept of a client's address that stays for long: a hash would tell its owner nothing.
func (s *Store) keptOf(client string) string {
	p := s.privacy.Load()
	switch {
	case p == nil || p.Clients == "" || p.Clients == privacy.Keep:
		return client
	case p.Clients == privacy.Cut:
		return p.Client(client)
	}
	return ""
}

// SaveAppUses writes down when app passwords were last used. It is lazy: it waits for a commit that comes anyway.
func (s *Store) SaveAppUses(ctx context.Context, uses []AppUse) error {
	err := s.writer.do(ctx, &op{lazy: true, cost: int64(len(uses)), run: func(t *tx) error {
		for _, u := range uses {
			if err := t.Run("UPDATE app_password SET used = ?1, used_from = ?2 WHERE id = ?3 AND used < ?1",
				unixNano(u.At), s.keptOf(u.From), u.ID); err != nil {
				return err
			}
		}
		return nil
	}})
	return wrap(err, "save when app passwords were used")
}
