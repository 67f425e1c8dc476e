package store

import (
	"context"
	"encoding/json"
	"fmt"

	"postern/relay/store/internal/sqlite"
	"postern/relay/upstream"
)

var _ upstream.QuotaStore = (*SQLite)(nil)

// schema3 keeps what was sent within the windows of an upstream's rates, and quotas that are used up: one
// row for each upstream.
const schema3 = `
CREATE TABLE upstream_quota (upstream TEXT PRIMARY KEY, data TEXT NOT NULL) STRICT, WITHOUT ROWID;
`

// LoadQuotas implements upstream.QuotaStore.
func (s *SQLite) LoadQuotas(ctx context.Context, name string) (quotas []upstream.Quota, err error) {
	err = s.readers.read(ctx, func(conn *sqlite.Conn) error {
		q, err := conn.Prepare("SELECT data FROM upstream_quota WHERE upstream = ?")
		if err != nil {
			return err
		}
		defer q.Reset()
		q.BindText(1, name)
		row, err := q.Step()
		if err != nil || !row {
			return err
		}
		return json.Unmarshal([]byte(q.Text(0)), &quotas)
	})
	if err != nil {
		return nil, fmt.Errorf("read the quotas of upstream %q: %w", name, err)
	}
	return quotas, nil
}

// SaveQuotas implements upstream.QuotaStore. It rides along with other commits, like the states of limits:
// a crash forgets the last moments of a day's count.
func (s *SQLite) SaveQuotas(ctx context.Context, name string, quotas []upstream.Quota) error {
	data, err := json.Marshal(quotas)
	if err != nil {
		return err
	}
	err = s.writer.do(ctx, &op{lazy: true, cost: 1, run: func(t *tx) error {
		query := "INSERT OR REPLACE INTO upstream_quota VALUES (?1, ?2)"
		if len(quotas) == 0 {
			query = "DELETE FROM upstream_quota WHERE upstream = ?1"
		}
		q, err := t.Prepare(query)
		if err != nil {
			return err
		}
		q.BindText(1, name)
		if len(quotas) > 0 {
			q.BindText(2, string(data))
		}
		return q.Run()
	}})
	if err != nil {
		return fmt.Errorf("save the quotas of upstream %q: %w", name, err)
	}
	return nil
}
