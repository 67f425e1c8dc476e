package store

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"postern/relay/store/internal/db"
	"postern/relay/store/internal/postgres"
)

var errForeignTables = errors.New("the database has tables, but not Postern's: name an empty database in [store] url")

// prepareTables brings the schema up to date, one transaction a version, or makes it in one. Others wait meanwhile.
func (s *server) prepareTables(conn *postgres.Conn) error {
	for {
		if _, err := conn.Begin(); err != nil {
			return err
		}
		if err := lockSchema(conn); err != nil {
			return errors.Join(err, conn.Rollback())
		}
		more, err := s.nextVersion(conn)
		if err != nil {
			return errors.Join(err, conn.Rollback())
		}
		if err := conn.Commit(); err != nil || !more {
			return err
		}
	}
}

// lockSchema waits, within a transaction, as long as another process needs to bring a large database up to date. For
// other locks there is the limit.
func lockSchema(conn *postgres.Conn) error {
	return conn.Exec("SET LOCAL lock_timeout = 0; " + schemaLock + "; SET LOCAL lock_timeout = 10000")
}

// nextVersion brings the schema to its next version, or from nothing to the last, within a transaction, and reports
// whether there may be more.
func (s *server) nextVersion(conn *postgres.Conn) (more bool, err error) {
	found, err := tablesOrigin(conn)
	switch {
	case err != nil:
		return false, err
	case found.schema > len(migrations):
		return false, found.newer()
	case found.schema == len(migrations):
		return false, nil
	case found.schema == 0:
		return false, stopped(0, makeTables(conn))
	}
	if err := s.hold(conn, found); err != nil {
		return false, err
	}
	return true, stopped(found.schema, step(conn, found.schema))
}

func makeTables(conn *postgres.Conn) error {
	err := conn.Exec("CREATE TABLE migration (version INTEGER PRIMARY KEY, applied INTEGER NOT NULL)")
	for version := 0; err == nil && version < len(migrations); version++ {
		err = step(conn, version)
	}
	return err
}

// step brings the schema from a version to the next.
func step(conn *postgres.Conn, version int) error {
	m := migrations[version]
	if err := conn.Exec(m.both + ";" + m.server); err != nil {
		return err
	}
	return noteVersion(conn, version+1)
}

// hold refuses to change the schema to all but a node, and to that while others live, which would not know what is new
// in it: they may join between two steps. One that stood still finds the new schema when it wakes
// up, and ends: see beat.
func (s *server) hold(conn *postgres.Conn, found origin) error {
	if s.opts.look || !s.opts.Daemon {
		return found.left()
	}
	others, err := s.others(conn)
	if err != nil {
		return err
	}
	if len(others) > 0 {
		return fmt.Errorf("%w (%s), and this one (%s) changes the database: stop the nodes that use it (%s), then "+
			"start this one; nothing was changed", ErrOlder, found, this(), strings.Join(others, ", "))
	}
	if !s.told {
		s.log.Warn("the store is brought up to date: the older version cannot use it any more", "store", s.name,
			"from", found.String(), "to", this().String())
	}
	s.told = true
	return nil
}

// others names the nodes that live, but for the process before this one: a daemon has the lock of its data directory.
func (s *server) others(conn db.Conn) ([]string, error) {
	tables, _, err := conn.Int("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND " +
		"tablename = 'node'::text")
	if err != nil || tables == 0 {
		return nil, err
	}
	home, host := "", ""
	if s.opts.Daemon {
		host, _ = os.Hostname() // as joinNodes does
		if home, err = homeOf(s.opts.Dir); err != nil {
			return nil, err
		}
	}
	return list(conn, func(row db.Row) (string, error) {
		return row.Text(0) + " on " + row.Text(1), nil
	}, "SELECT name, host FROM node WHERE until > ("+serverTime+") AND NOT (home = ? AND host = ? AND name = ?) "+
		"ORDER BY k", home, host, s.opts.Node)
}

// mayMakeTables refuses a role that cannot make tables, before somebody relies on an empty database.
func mayMakeTables(conn db.Conn) error {
	may, _, err := conn.Int("SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'::text), false)::int")
	if err != nil || may != 0 {
		return err
	}
	for row, err := range conn.Rows("SELECT quote_ident(current_database()), quote_ident(current_user)") {
		if err != nil {
			return err
		}
		return fmt.Errorf("the role cannot make tables there, and needs to own Postern's tables and the database: "+
			"ALTER DATABASE %s OWNER TO %s", row.Text(0), row.Text(1))
	}
	return nil
}

// tablesOrigin is what an empty database, or ours, says of who has used it.
func tablesOrigin(conn db.Conn) (origin, error) {
	tables, _, err := conn.Int("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()")
	if err != nil {
		return origin{}, err
	}
	if tables == 0 {
		return origin{}, mayMakeTables(conn)
	}
	ours, _, err := conn.Int("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND " +
		"tablename = 'migration'::text")
	if err != nil || ours == 0 {
		return origin{}, errors.Join(err, errForeignTables)
	}
	return readOrigin(conn)
}
