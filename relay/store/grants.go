package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postern/relay/store/internal/db"
	"postern/relay/upstream/oauth"
)

var _ oauth.GrantStore = (*Store)(nil)

// TopicGrants is changed when a person has consented, not by each renewal: every node tries its accounts again then.
const TopicGrants = "grants"

// schema2 keeps what people have consented to at a provider, sealed, one row for each upstream. The version is how
// nodes notice each other.
const schema2 = `
CREATE TABLE upstream_grant (
	upstream TEXT PRIMARY KEY, version INTEGER NOT NULL, sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;
`

// LoadGrant implements oauth.GrantStore.
func (s *Store) LoadGrant(ctx context.Context, upstream string) (sealed []byte, version int64, err error) {
	err = s.readers.read(ctx, func(conn db.Conn) error {
		for row, err := range conn.Rows("SELECT version, sealed FROM upstream_grant WHERE upstream = ?", upstream) {
			if err != nil {
				return err
			}
			version, sealed = row.Int(0), row.Blob(1)
		}
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read the grant of upstream %q: %w", upstream, err)
	}
	if version == 0 {
		return nil, 0, oauth.ErrNoGrant
	}
	return sealed, version, nil
}

// SaveGrant implements oauth.GrantStore: it is durable when it returns nil.
func (s *Store) SaveGrant(ctx context.Context, upstream string, sealed []byte, version int64) (int64, error) {
	err := s.write(ctx, func(t *tx) error {
		query := "UPDATE upstream_grant SET sealed = ?2, version = version + 1 WHERE upstream = ?1 AND version = ?3 " +
			"RETURNING version"
		if version == 0 {
			query = "INSERT INTO upstream_grant VALUES (?1, ?3 + 1, ?2) ON CONFLICT DO NOTHING RETURNING version"
		}
		_, saved, err := t.Int(query, upstream, sealed, version)
		if err != nil {
			return err
		}
		if !saved {
			return refuse(oauth.ErrGrantChanged)
		}
		return nil
	})
	if err != nil && !errors.Is(err, oauth.ErrGrantChanged) {
		return 0, fmt.Errorf("save the grant of upstream %q: %w", upstream, err)
	}
	if err != nil {
		return 0, oauth.ErrGrantChanged
	}
	return version + 1, nil
}

// Consented implements oauth.GrantStore.
func (s *Store) Consented(ctx context.Context) error {
	return wrap(s.write(ctx, func(t *tx) error { return bump(t.Conn, TopicGrants) }), "announce a consent")
}

// Ahead implements oauth.GrantStore.
func (s *Store) Ahead() time.Duration { return time.Duration(s.clock.ahead()) }
