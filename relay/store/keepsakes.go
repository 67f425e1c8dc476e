package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"time"

	"postern/relay/store/internal/db"
)

// schemaKeepsakes keeps files that the console made for one person, until they are fetched, which may be at another
// node. Only stores that nodes share have any.
const schemaKeepsakes = `
CREATE TABLE console_keepsake (
	digest BLOB PRIMARY KEY, -- of the token that it is fetched by
	owner  TEXT NOT NULL,
	until  INTEGER NOT NULL,
	sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX console_keepsake_until ON console_keepsake (until);
`

// maxKeepsakes bounds them: the oldest goes.
const maxKeepsakes = 8

func keepsakeLabel(owner string) string { return "postern keepsake\x00" + owner }

// Keep keeps data for its owner and returns the token that it is fetched by, once.
func (s *Store) Keep(ctx context.Context, owner string, now, until time.Time, data []byte) (token string, err error) {
	token = rand.Text()
	digest, sealed := sha256.Sum256([]byte(token)), s.sealer.Seal(keepsakeLabel(owner), data)
	err = s.write(ctx, func(t *tx) error {
		if err := dropKeepsakes(t, now); err != nil {
			return err
		}
		err := t.Run("DELETE FROM console_keepsake WHERE digest IN (SELECT digest FROM console_keepsake "+
			"ORDER BY until DESC LIMIT -1 OFFSET ?)", maxKeepsakes-1)
		if err != nil {
			return err
		}
		return t.Run("INSERT INTO console_keepsake (digest, owner, until, sealed) VALUES (?, ?, ?, ?)", digest[:],
			owner, t.clock.nano(until), sealed)
	})
	return token, wrap(err, "keep a file for %q", owner)
}

func dropKeepsakes(t *tx, now time.Time) error {
	return t.Run("DELETE FROM console_keepsake WHERE until <= ?", t.clock.nano(now))
}

// Fetch hands out what was kept, once, to its owner; nil: it is gone, or not theirs.
func (s *Store) Fetch(ctx context.Context, owner, token string, now time.Time) ([]byte, error) {
	var found [][]byte
	digest := sha256.Sum256([]byte(token))
	err := s.write(ctx, func(t *tx) (err error) {
		if err = dropKeepsakes(t, now); err != nil {
			return err
		}
		found, err = list(t.Conn, func(row db.Row) ([]byte, error) { return row.Blob(0), nil },
			"DELETE FROM console_keepsake WHERE digest = ? AND owner = ? RETURNING sealed", digest[:], owner)
		return err
	})
	if err != nil || len(found) == 0 {
		return nil, wrap(err, "fetch a file of %q", owner)
	}
	data, err := s.sealer.Open(keepsakeLabel(owner), found[0])
	return append([]byte{}, data...), s.explainSeal(err)
}
