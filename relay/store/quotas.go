package store

import (
	"context"
	"encoding/json"

	"postern/relay/store/internal/db"
	"postern/relay/upstream"
	"postern/relay/upstream/account"
)

var _ upstream.QuotaStore = (*Store)(nil)

// schema3 keeps what was sent within the windows of an upstream's rates, and quotas that are used up: one
// row for each upstream.
const schema3 = `
CREATE TABLE upstream_quota (upstream TEXT PRIMARY KEY, data TEXT NOT NULL) STRICT, WITHOUT ROWID;
`

// LoadQuotas implements upstream.QuotaStore. What nodes share of an upstream's accounts is in it.
func (s *Store) LoadQuotas(ctx context.Context, name string) (quotas []upstream.Quota, err error) {
	err = s.readers.read(ctx, func(conn db.Conn) error {
		for row, err := range conn.Rows("SELECT data FROM upstream_quota WHERE upstream = ?", name) {
			if err != nil {
				return err
			}
			if err := json.Unmarshal(row.Blob(0), &quotas); err != nil {
				return err
			}
		}
		if s.SharedAccounts() == nil {
			return nil
		}
		for row, err := range conn.Rows("SELECT account, state FROM upstream_shared WHERE upstream = ?", []byte(name)) {
			if err != nil {
				return err
			}
			q, err := account.QuotaOf(account.Row{Account: row.Text(0), State: row.Blob(1)}, s.clock.time)
			if err != nil {
				return err
			}
			quotas = append(quotas, q)
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
