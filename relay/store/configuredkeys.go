package store

import (
	"context"
	"slices"

	"postern/relay/keyring"
	"postern/relay/store/internal/db"
)

// schemaConfiguredKeys keeps what was found of the records of keys of relay.toml. The keys themselves are in their
// files.
const schemaConfiguredKeys = `
CREATE TABLE configured_key (
	domain TEXT NOT NULL, selector TEXT NOT NULL, record TEXT NOT NULL, algorithm TEXT NOT NULL,
	looked INTEGER NOT NULL, found TEXT NOT NULL, found_since INTEGER NOT NULL, found_last INTEGER NOT NULL,
	detail TEXT NOT NULL, silent INTEGER NOT NULL,
	PRIMARY KEY (domain, selector)
) STRICT, WITHOUT ROWID;
`

// ConfiguredKeys implements keyring.Store.
func (s *Store) ConfiguredKeys(ctx context.Context) ([]Key, error) {
	keys, err := readAll(ctx, s.readers, scanConfiguredKey, selectConfiguredKeys)
	return keys, wrap(err, "read what is known of the DKIM keys of relay.toml")
}

var putConfiguredKeyRow = upsert("configured_key", 2, "domain", "selector", "record", "algorithm", "looked", "found",
	"found_since", "found_last", "detail", "silent")

// ChangeConfiguredKeys implements keyring.Store.
func (s *Store) ChangeConfiguredKeys(ctx context.Context, change func(known []Key) []Key) error {
	return s.write(ctx, func(t *tx) error {
		before, err := list(t.Conn, scanConfiguredKey, selectConfiguredKeys)
		if err != nil {
			return err
		}
		after := change(slices.Clone(before))
		for _, k := range before {
			if !slices.Contains(after, k) {
				err := t.Run("DELETE FROM configured_key WHERE domain = ? AND selector = ?", k.Domain, k.Selector)
				if err != nil {
					return err
				}
			}
		}
		for i := range after {
			if slices.Contains(before, after[i]) {
				continue
			}
			if err := putConfiguredKey(t, &after[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func putConfiguredKey(t *tx, k *Key) error {
	return t.Run(putConfiguredKeyRow, k.Domain, k.Selector,
		k.Record, k.Algorithm, unixNano(k.Looked), string(k.Found), unixNano(k.FoundSince), unixNano(k.FoundLast),
		k.Detail, k.Silent)
}

const selectConfiguredKeys = "SELECT domain, selector, record, algorithm, looked, found, found_since, found_last, " +
	"detail, silent FROM configured_key ORDER BY domain, selector"

func scanConfiguredKey(row db.Row) (Key, error) {
	return Key{
		Domain: row.Text(0), Selector: row.Text(1), Record: row.Text(2), Algorithm: row.Text(3),
		State: keyring.State{
			Stage: keyring.Signing, Looked: fromNano(row.Int(4)), Found: keyring.Found(row.Text(5)),
			FoundSince: fromNano(row.Int(6)), FoundLast: fromNano(row.Int(7)), Detail: row.Text(8),
			Silent: row.Bool(9),
		},
	}, nil
}
