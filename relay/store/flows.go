package store

import (
	"context"
	"time"
)

// schemaFlows keeps which logins of several steps have ended well, by the random name that each has, until its cookie
// has expired. Whoever copies a cookie cannot use it again, at another node either.
const schemaFlows = `
CREATE TABLE console_flow (id TEXT PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX console_flow_until ON console_flow (until);
`

// EndFlow notes that a login of several steps has ended well, and reports whether it is the first time. It is forgotten
// after until.
func (s *Store) EndFlow(ctx context.Context, id string, now, until time.Time) (first bool, err error) {
	err = s.write(ctx, func(t *tx) error {
		// An hour is for nodes whose clocks differ: one that is behind takes the cookie for longer.
		if err := t.Run("DELETE FROM console_flow WHERE until <= ?", t.clock.nano(now.Add(-time.Hour))); err != nil {
			return err
		}
		_, first, err = t.Int("INSERT INTO console_flow (id, until) VALUES (?, ?) ON CONFLICT (id) DO NOTHING "+
			"RETURNING 1", id, t.clock.nano(until))
		return err
	})
	return first && err == nil, wrap(err, "note the end of a login")
}
