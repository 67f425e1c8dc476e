package pgserver_test

import (
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"postern/internal/pgserver"
	"postern/internal/testkit"
)

func TestServer(t *testing.T) {
	if _, err := pgserver.Tool("postgres"); err != nil {
		testkit.Skipf(t, "%v", err)
	}
	parent := testkit.ShortDir(t)
	s, err := pgserver.Start(t.Context(), parent)
	if err != nil {
		t.Fatal(err)
	}
	if got := testkit.SQL(t, s.URL(), "SHOW fsync"); got[0][0] != "on" {
		t.Errorf("fsync = %s", got[0][0])
	}
	s.Close()
	if conn, err := pgconn.Connect(t.Context(), s.URL()); err == nil {
		conn.Close(t.Context())
		t.Error("it still takes connections")
	}
	if left, err := filepath.Glob(parent + "/*"); err != nil || len(left) > 0 {
		t.Errorf("%q is left, %v", left, err)
	}
}

func TestToolThatIsMissing(t *testing.T) {
	if path, err := pgserver.Tool("no-such-tool"); err != pgserver.ErrMissing {
		t.Errorf("%q, %v", path, err)
	}
}
