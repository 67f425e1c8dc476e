package store

import (
	"context"
	"time"

	"postern/relay/store/internal/db"
	"postern/relay/store/internal/postgres"
)

// ServerFacts are what a server says of itself, and of what we may there.
type ServerFacts struct {
	Version   int           // 150000 and so on
	Pooled    bool          // through a pooler
	Encrypted bool          // the connection; through a pooler, its connection
	Commit    string        // synchronous_commit that is in force for us
	Standbys  string        // synchronous_standby_names
	Copies    int64         // standbys that are connected
	Fsync     bool          // false: what is committed is lost when the machine fails
	Ahead     time.Duration // its clock, of ours
	Size      int64         // of the database, in octets

	Superuser bool // the user may do anything, in all databases
	MayCreate bool // tables, as new parts of the content are
	Owner     bool // of all tables
}

// serverFacts is one row of what a connection cannot tell by itself.
const serverFacts = `SELECT
	coalesce((SELECT bool_or(ssl) FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)::int::bigint,
	(SELECT count(*) FROM pg_stat_replication),
	pg_database_size(current_database()),
	(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)::int::bigint,
	has_schema_privilege(current_schema(), 'CREATE'::text)::int::bigint,
	(SELECT coalesce(bool_and(pg_has_role(c.relowner, 'USAGE'::text)), true) FROM pg_class c
		WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r'::"char", 'p'::"char"))::int::bigint`

// Server asks the server about itself; nil: there is none, the store is a file.
func (s *Store) Server(ctx context.Context) (*ServerFacts, error) {
	if !s.Shared() {
		return nil, nil
	}
	f := &ServerFacts{}
	err := s.lookups.read(ctx, func(conn db.Conn) error {
		asked := time.Now()
		now, _, err := conn.Int(serverTime)
		if err != nil {
			return err
		}
		answered := time.Now()
		f.Ahead = time.Unix(0, now).Sub(asked.Add(answered.Sub(asked) / 2))
		if c, ok := conn.(*postgres.Conn); ok {
			said := c.Server()
			f.Version, f.Pooled, f.Commit, f.Standbys, f.Fsync = said.Version, said.Pooled, said.Commit, said.Standbys,
				said.Fsync
		}
		for row, err := range conn.Rows(serverFacts) {
			if err != nil {
				return err
			}
			f.Encrypted, f.Copies, f.Size = row.Bool(0), row.Int(1), row.Int(2)
			f.Superuser, f.MayCreate, f.Owner = row.Bool(3), row.Bool(4), row.Bool(5)
		}
		return nil
	})
	return f, wrap(err, "ask the server about itself")
}
