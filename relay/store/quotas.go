package store

import (
	"context"
	"encoding/json"

	"postern/relay/store/internal/db"
	"postern/relay/upstream"
)

var _ upstream.QuotaStore = (*Store)(nil)

// schema3 keeps what was sent within the windows of an upstream's rates, and quotas that are used up: one
// row for each upstream.
const schema3 = `
CREATE TABLE upstream_quota (upstream TEXT PRIMARY KEY, data TEXT NOT NULL) STRICT, WITHOUT ROWID;
`

// LoadQuotas implements upstream.QuotaStore.
func (s *Store) LoadQuotas(ctx context.Context, name string) (quotas []upstream.Quota, err error) {
	err = s.readers.read(ctx, func(conn db.Conn) error {
		for row, err := range conn.Rows("SELECT data FROM upstream_quota WHERE upstream = ?", name) {
			if err != nil {
				return err
			}
			return json.Unmarshal(row.Blob(0), &quotas)
		}
		return nil
	})
	return quotas, wrap(err, "read the quotas of upstream %q", name)
}

var putQuotas = upsert("upstream_quota", 1, "upstream", "data")

// SaveQuotas implements upstream.QuotaStore. It rides along with other commits, like the states of limits:
// a crash forgets the last moments of a day's count.
func (s *Store) SaveQuotas(ctx context.Context, name string, quotas []upstream.Quota) error {
	data, err := json.Marshal(quotas)
	if err != nil {
		return err
	}
	err = s.writer.do(ctx, &op{lazy: true, cost: 1, run: func(t *tx) error {
		if len(quotas) == 0 {
			return t.Run("DELETE FROM upstream_quota WHERE upstream = ?", name)
		}
		return t.Run(putQuotas, name, string(data))
	}})
	return wrap(err, "save the quotas of upstream %q", name)
}
