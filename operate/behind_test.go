package operate_test

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"

	"postern/internal/testkit"
	"postern/relay/store"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

// behind is a database behind the store's back: it is looked at, and disturbed.
type behind interface {
	rows(statement string) [][]string
	listing() string              // the statement that returns the names of the tables
	spoiling(table string) string // the statements that make all writes to a table fail
}

// file is that of SQLite.
type file struct {
	*testing.T
	db *sql.DB
}

func openFile(t *testing.T, dir string) *file {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, store.FileName)+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return &file{t, db}
}

func (f *file) rows(statement string) (all [][]string) {
	f.Helper()
	rows, err := f.db.Query(statement)
	if err != nil {
		f.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	for err == nil && rows.Next() {
		values, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		err = rows.Scan(into...)
		row := make([]string, len(columns))
		for i, v := range values {
			row[i] = fmt.Sprint(v)
		}
		all = append(all, row)
	}
	if err == nil {
		err = rows.Err()
	}
	if err != nil {
		f.Fatal(err)
	}
	return all
}

func (f *file) listing() string {
	return "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
}

func (f *file) spoiling(table string) (statements string) {
	for _, what := range []string{"INSERT", "UPDATE", "DELETE"} {
		statements += fmt.Sprintf("CREATE TRIGGER spoilt_%[1]s_%[2]s BEFORE %[2]s ON %[1]q BEGIN SELECT "+
			"RAISE(ABORT, 'spoilt'); END;", table, what)
	}
	return statements
}

// server is a database of PostgreSQL.
type server struct {
	*testing.T
	address string
}

func (s *server) rows(statement string) [][]string { return testkit.SQL(s, s.address, statement) }

func (s *server) listing() string {
	return "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition AND " +
		"relnamespace = current_schema()::regnamespace ORDER BY relname"
}

func (s *server) spoiling(table string) string {
	return fmt.Sprintf("CREATE OR REPLACE FUNCTION spoilt() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "+
		"RAISE EXCEPTION 'spoilt'; END $$; CREATE TRIGGER spoilt BEFORE INSERT OR UPDATE OR DELETE ON %q "+
		"FOR EACH ROW EXECUTE FUNCTION spoilt()", table)
}
