package store

import (
	"context"
	"errors"
	"time"

	"postern/auth"
	"postern/relay/store/internal/db"
)

// schemaPersonSessions keeps the browsers that people have logged in to the page of app passwords with.
const schemaPersonSessions = `
CREATE TABLE person_session (
	digest  BLOB PRIMARY KEY,
	login   TEXT NOT NULL,
	subject TEXT NOT NULL, -- as person has it: a login that is somebody else's by now has no session
	source  TEXT NOT NULL,
	created INTEGER NOT NULL,
	used    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX person_session_login ON person_session (login, created);
CREATE INDEX person_session_used  ON person_session (used);
`

// PersonSession is a browser that somebody has logged in to the page of app passwords with.
type PersonSession struct {
	Digest  [32]byte // SHA-256 of its cookie
	Login   string
	Subject string // of the person when it began
	Source  string // likewise
	Created time.Time
	Used    time.Time // to the minute
}

// AddPersonSession stores a session. It ends those that began, or were last used, before the moments given, and the
// oldest of the login over 20.
func (s *Store) AddPersonSession(ctx context.Context, p PersonSession, began, used time.Time) error {
	err := s.write(ctx, func(t *tx) error {
		return errors.Join(
			t.Run("INSERT INTO person_session VALUES (?, ?, ?, ?, ?, ?)", p.Digest[:], p.Login, p.Subject, p.Source,
				unixNano(p.Created), unixNano(p.Used)),
			t.Run("DELETE FROM person_session WHERE created < ? OR used < ?", unixNano(began), unixNano(used)),
			t.Run("DELETE FROM person_session WHERE digest IN (SELECT digest FROM person_session WHERE login = ? "+
				"ORDER BY created DESC LIMIT -1 OFFSET ?)", p.Login, sessionsOfUser))
	})
	return wrap(err, "session of %q", p.Login)
}

type heldSession struct {
	session PersonSession
	person  auth.Person
}

func scanPersonSession(row db.Row) (h heldSession, err error) {
	h.session = PersonSession{Login: row.Text(1), Subject: row.Text(2), Source: row.Text(3),
		Created: fromNano(row.Int(4)), Used: fromNano(row.Int(5))}
	copy(h.session.Digest[:], row.Blob(0))
	h.person, err = personAt(row, 6)
	return h, err
}

// PersonSession returns a session and whose it is; ErrNoSession if there is none, or if its person was forgotten or is
// locked.
func (s *Store) PersonSession(ctx context.Context, digest [32]byte) (PersonSession, auth.Person, error) {
	found, err := readAll(ctx, s.readers, scanPersonSession,
		"SELECT s.digest, s.login, s.subject, s.source, s.created, s.used, "+personColumns+" FROM person_session s "+
			"JOIN person p ON p.login = s.login AND p.subject = s.subject WHERE s.digest = ? "+
			"AND s.login NOT IN (SELECT login FROM login_lock)", digest[:])
	if err == nil && len(found) == 0 {
		err = ErrNoSession
	}
	if err != nil {
		return PersonSession{}, auth.Person{}, err
	}
	return found[0].session, found[0].person, nil
}

// TouchPersonSession says that a session is used.
func (s *Store) TouchPersonSession(ctx context.Context, digest [32]byte, now time.Time) error {
	err := s.write(ctx, func(t *tx) error {
		return t.Run("UPDATE person_session SET used = max(used, ?) WHERE digest = ?", unixNano(now), digest[:])
	})
	return wrap(err, "session")
}

// EndPersonSession ends a session, if it is there.
func (s *Store) EndPersonSession(ctx context.Context, digest [32]byte) error {
	err := s.write(ctx, func(t *tx) error {
		return t.Run("DELETE FROM person_session WHERE digest = ?", digest[:])
	})
	return wrap(err, "end a session")
}

// endPersonSessions ends all sessions of a login.
func endPersonSessions(t *tx, login string) error {
	return t.Run("DELETE FROM person_session WHERE login = ?", login)
}
