package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// What the engine opens beside a database that it was given by an open directory is in that directory, whatever has its
// name by then.
func TestHeldDirectory(t *testing.T) {
	base := t.TempDir()
	at, away, other := filepath.Join(base, "at"), filepath.Join(base, "away"), filepath.Join(base, "other")
	err := errors.Join(os.Mkdir(at, 0o700), os.Mkdir(other, 0o700), os.WriteFile(filepath.Join(at, "x.db"), nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(at)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	c, err := Open(fmt.Sprintf("/proc/self/fd/%d/x.db", dir.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := errors.Join(os.Rename(at, away), os.Symlink(other, at)); err != nil {
		t.Fatal(err)
	}
	if err := c.Exec("PRAGMA journal_mode = WAL; CREATE TABLE t (n INTEGER)"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(away, "x.db-wal")); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(other); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}
