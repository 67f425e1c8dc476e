package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"postern/auth"
	"postern/relay/store/internal/db"
)

var _ auth.ProofStore = (*Store)(nil)

// schemaProofs keeps what accounts prove themselves with beside passwords. The keys of SCRAM are sealed, and belong to
// one password: bound is the SHA-256 of its hash in the account, so that whoever changes that makes them void, an
// earlier version included. A public key proves one login.
const schemaProofs = `
CREATE TABLE scram_keys (login TEXT PRIMARY KEY, bound BLOB NOT NULL, sealed BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE login_certificate (
	digest BLOB PRIMARY KEY, login TEXT NOT NULL, subject TEXT NOT NULL, added INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX login_certificate_login ON login_certificate (login);
`

// schemaCram keeps the keys of CRAM-MD5 in the same way.
const schemaCram = `
CREATE TABLE cram_keys (login TEXT PRIMARY KEY, bound BLOB NOT NULL, sealed BLOB NOT NULL) STRICT, WITHOUT ROWID;
`

// keyKind is a mechanism whose keys are kept.
type keyKind struct {
	name, table, label string
	told               bool // other processes must hear of new ones
}

var (
	scramKind = keyKind{name: "SCRAM", table: "scram_keys", label: "postern scram keys\x00"}
	// Whether CRAM-MD5 is offered follows from these keys, which come after the account or password that they are of.
	cramKind = keyKind{name: "CRAM-MD5", table: "cram_keys", label: "postern cram keys\x00", told: true}
)

func boundTo(hash auth.Secret) []byte {
	sum := sha256.Sum256([]byte(hash))
	return sum[:]
}

// ScramUser implements auth.ProofStore.
func (s *Store) ScramUser(ctx context.Context, login string) (auth.User, auth.ScramKeys, error) {
	return userKeys(ctx, s, scramKind, login, auth.DecodeScram)
}

// CramUser implements auth.ProofStore.
func (s *Store) CramUser(ctx context.Context, login string) (auth.User, auth.CramKeys, error) {
	return userKeys(ctx, s, cramKind, login, auth.DecodeCram)
}

func userKeys[K any](ctx context.Context, s *Store, k keyKind, login string, decode func(auth.Secret) (K, error)) (
	u auth.User, keys K, err error) {
	var bound, sealed []byte
	err = s.readers.read(ctx, func(conn db.Conn) error {
		if u, err = getUser(conn, login); err != nil {
			return err
		}
		for row, err := range conn.Rows("SELECT bound, sealed FROM "+k.table+" WHERE login = ?", login) {
			if err != nil {
				return err
			}
			bound, sealed = row.Blob(0), row.Blob(1)
		}
		return nil
	})
	if err != nil || string(bound) != string(boundTo(u.Hash)) {
		return u, keys, err
	}
	text, err := s.sealer.Open(k.label+login, sealed)
	if err != nil {
		return u, keys, s.explainSeal(err)
	}
	if keys, err = decode(auth.Secret(text)); err != nil {
		return u, keys, fmt.Errorf("user %q: %w", login, err)
	}
	return u, keys, nil
}

// SetScram stores the keys of the password that hash is of. It does nothing if the account has another one by now, or
// is gone.
func (s *Store) SetScram(ctx context.Context, login string, hash auth.Secret, keys auth.ScramKeys) error {
	return s.setKeys(ctx, scramKind, login, hash, keys.Encode())
}

// SetCram is SetScram for CRAM-MD5.
func (s *Store) SetCram(ctx context.Context, login string, hash auth.Secret, keys auth.CramKeys) error {
	return s.setKeys(ctx, cramKind, login, hash, keys.Encode())
}

func (s *Store) setKeys(ctx context.Context, k keyKind, login string, hash, keys auth.Secret) error {
	err := s.write(ctx, func(t *tx) error {
		u, err := getUser(t.Conn, login)
		if errors.Is(err, auth.ErrUnknownLogin) || err == nil && u.Hash != hash {
			return nil
		}
		if err != nil {
			return err
		}
		err = t.Run(upsert(k.table, 1, "login", "bound", "sealed"), login, boundTo(hash),
			s.sealer.Seal(k.label+login, []byte(keys)))
		if err == nil && k.told {
			err = bump(t.Conn, TopicUsers)
		}
		return err
	})
	return wrap(err, "store the keys of %s of user %q", k.name, login)
}

// WithScram returns which logins have keys of the password that they have.
func (s *Store) WithScram(ctx context.Context) (map[string]bool, error) {
	return s.withKeys(ctx, scramKind, func(auth.User) bool { return true })
}

// WithCram returns which logins can use CRAM-MD5.
func (s *Store) WithCram(ctx context.Context) (map[string]bool, error) {
	return s.withKeys(ctx, cramKind, auth.User.MayCram)
}

func (s *Store) withKeys(ctx context.Context, k keyKind, may func(auth.User) bool) (map[string]bool, error) {
	with := map[string]bool{}
	err := s.readers.read(ctx, func(conn db.Conn) error {
		bound := map[string]string{}
		for row, err := range conn.Rows("SELECT login, bound FROM " + k.table) {
			if err != nil {
				return err
			}
			bound[row.Text(0)] = string(row.Blob(1))
		}
		users, err := list(conn, scanUser, "SELECT login, data FROM user")
		for _, u := range users {
			if b, some := bound[u.Login]; some && b == string(boundTo(u.Hash)) && may(u) {
				with[u.Login] = true
			}
		}
		return err
	})
	return with, wrap(err, "list the keys of %s", k.name)
}

// Certificate is a public key that proves a login.
type Certificate struct {
	Digest  auth.KeyDigest
	Login   string
	Subject string // of the certificate that it came in, printable
	Added   time.Time
}

// maxCertificates bounds those of one login.
const maxCertificates = 20

// ErrOtherLogin: a key is pinned to another login.
var ErrOtherLogin = errors.New("the key proves another login already")

var putCertificate = upsert("login_certificate", 1, "digest", "login", "subject", "added")

// AddCertificate pins a key to an account. ErrOtherLogin names the login that has it; ErrTooMany, auth.ErrUnknownLogin.
func (s *Store) AddCertificate(ctx context.Context, c Certificate) error {
	err := s.write(ctx, func(t *tx) error {
		if err := hasUser(t, c.Login); err != nil {
			return err
		}
		had, err := list(t.Conn, scanCertificate, selectCertificates+" WHERE digest = ?", c.Digest[:])
		if err != nil {
			return err
		}
		if len(had) > 0 && had[0].Login != c.Login {
			return refuse(fmt.Errorf("%w: %s", ErrOtherLogin, had[0].Login))
		}
		n, _, err := t.Int("SELECT count(*) FROM login_certificate WHERE login = ?", c.Login)
		switch {
		case err != nil:
			return err
		case len(had) == 0 && n >= maxCertificates:
			return refuse(fmt.Errorf("%w: it has %d certificates", ErrTooMany, n))
		}
		return errors.Join(t.Run(putCertificate, c.Digest[:], c.Login,
			c.Subject, unixNano(c.Added)), touchUser(t.Conn, c.Login, c.Added))
	})
	return wrap(err, "certificate of user %q", c.Login)
}

// RemoveCertificates unpins all keys of an account and returns how many there were. Open sessions of it end.
func (s *Store) RemoveCertificates(ctx context.Context, login string, now time.Time) (n int, err error) {
	err = s.write(ctx, func(t *tx) error {
		if err := hasUser(t, login); err != nil {
			return err
		}
		count, _, err := t.Int("SELECT count(*) FROM login_certificate WHERE login = ?", login)
		if err != nil || count == 0 {
			return err
		}
		n = int(count)
		return errors.Join(t.Run("DELETE FROM login_certificate WHERE login = ?", login),
			touchUser(t.Conn, login, now))
	})
	return n, wrap(err, "certificates of user %q", login)
}

// RemoveCertificate unpins one key of an account and reports whether it had it. Open sessions of the account end.
func (s *Store) RemoveCertificate(ctx context.Context, login string, d auth.KeyDigest, now time.Time) (had bool,
	err error) {
	err = s.write(ctx, func(t *tx) error {
		if err := hasUser(t, login); err != nil {
			return err
		}
		n, _, err := t.Int("SELECT count(*) FROM login_certificate WHERE login = ? AND digest = ?", login, d[:])
		if had = n > 0; err != nil || !had {
			return err
		}
		return errors.Join(t.Run("DELETE FROM login_certificate WHERE login = ? AND digest = ?", login, d[:]),
			touchUser(t.Conn, login, now))
	})
	return had, wrap(err, "certificate of user %q", login)
}

// touchUser ends the open sessions of an account, as a new password does.
func touchUser(conn db.Conn, login string, now time.Time) error {
	u, err := getUser(conn, login)
	if err != nil {
		return err
	}
	u.Changed = now
	row, err := encodeUser(u)
	if err != nil {
		return err
	}
	return errors.Join(storeUser(conn, login, row), bump(conn, TopicUsers))
}

const selectCertificates = "SELECT digest, login, subject, added FROM login_certificate"

func scanCertificate(row db.Row) (Certificate, error) {
	c := Certificate{Login: row.Text(1), Subject: row.Text(2), Added: fromNano(row.Int(3))}
	copy(c.Digest[:], row.Blob(0))
	return c, nil
}

// Certificates returns the keys of one login, or with "" of all.
func (s *Store) Certificates(ctx context.Context, login string) ([]Certificate, error) {
	all, err := readAll(ctx, s.readers, scanCertificate,
		selectCertificates+" WHERE ?1 IN ('', login) ORDER BY login, added", login)
	return all, wrap(err, "list the certificates")
}

// LoginOfKey implements auth.ProofStore.
func (s *Store) LoginOfKey(ctx context.Context, d auth.KeyDigest) (string, error) {
	found, err := readAll(ctx, s.readers, scanCertificate, selectCertificates+" WHERE digest = ?", d[:])
	switch {
	case err != nil:
		return "", wrap(err, "look for a certificate")
	case len(found) == 0:
		return "", auth.ErrUnknownLogin
	}
	return found[0].Login, nil
}
