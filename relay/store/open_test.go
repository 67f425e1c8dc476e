package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/release"
	"postern/internal/testkit"
	"postern/relay/queue"
	"postern/relay/store/internal/sqlite"
)

// filled makes a store with some messages in it and returns its directory, checkpointed and closed.
func filled(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s, err := Open(t.Context(), at(t, Options{Dir: dir, Daemon: true}))
	if err != nil {
		t.Fatal(err)
	}
	prefill(t, s, 300, 4<<10)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// raw runs statements on a database file without our checks.
func raw(t *testing.T, path, script string) {
	t.Helper()
	if f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		t.Fatal(err)
	} else {
		f.Close()
	}
	conn, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Exec(script); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	truncate := func(t *testing.T, path string, size int64) {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(path string) { os.Remove(path + "-wal"); os.Remove(path + "-shm") }
	for _, test := range []struct {
		name  string
		spoil func(t *testing.T, dir, path string)
		want  string // part of the message
	}{
		{"garbage", func(t *testing.T, dir, path string) {
			remove(path)
			if err := os.WriteFile(path, bytes.Repeat([]byte("garbage "), 4096), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "not a database"},
		{"short garbage", func(t *testing.T, dir, path string) {
			remove(path)
			if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "not a database"},
		{"broken header", func(t *testing.T, dir, path string) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(make([]byte, 16), 0); err != nil {
				t.Fatal(err)
			}
		}, "not a database"},
		{"broken schema", func(t *testing.T, dir, path string) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(bytes.Repeat([]byte{0xff}, 8000), 100); err != nil {
				t.Fatal(err)
			}
		}, "damaged"},
		{"cut off", func(t *testing.T, dir, path string) {
			remove(path)
			size, _ := fileSize(path)
			truncate(t, path, size/2)
		}, "damaged"},
		{"foreign", func(t *testing.T, dir, path string) {
			remove(path)
			os.Remove(path)
			raw(t, path, "CREATE TABLE accounts (id INTEGER)")
		}, "not of postern"},
		{"foreign and empty", func(t *testing.T, dir, path string) {
			remove(path)
			os.Remove(path)
			raw(t, path, "PRAGMA application_id = 1234")
		}, "not of postern"},
		{"newer", func(t *testing.T, dir, path string) {
			raw(t, path, "INSERT INTO migration VALUES (99, 0, 'v99.1.0')")
		}, "written by v99.1.0 (schema 99), and this is " + release.Version() + ", which knows schema " +
			fmt.Sprint(len(migrations)) + " at most: install v99.1.0 again"},
		{"no version", func(t *testing.T, dir, path string) {
			raw(t, path, "DELETE FROM migration")
		}, "version cannot be read"},
		{"file open to others", func(t *testing.T, dir, path string) {
			if err := os.Chmod(path, 0o640); err != nil {
				t.Fatal(err)
			}
		}, "chmod 600"},
		{"directory open to others", func(t *testing.T, dir, path string) {
			if err := os.Chmod(dir, 0o770); err != nil {
				t.Fatal(err)
			}
		}, "chmod 700"},
		{"a directory instead of the file", func(t *testing.T, dir, path string) {
			os.Remove(path)
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filled(t)
			fileOnly(t)
			path := filepath.Join(dir, FileName)
			test.spoil(t, dir, path)
			s, err := Open(t.Context(), at(t, Options{Dir: dir, Daemon: true}))
			if err == nil {
				s.Close()
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("the error does not name %s and %q: %v", dir, test.want, err)
			}
			// Nobody holds the lock after a failure.
			if unlock, err := lockFile(filepath.Join(dir, LockName)); err != nil {
				t.Error(err)
			} else {
				unlock()
			}
		})
	}
}

func TestOpenDirectories(t *testing.T) {
	fileOnly(t)
	root := t.TempDir()
	_, err := Open(t.Context(), at(t, Options{}))
	if err == nil || !strings.Contains(err.Error(), "data_dir is empty") {
		t.Errorf("no directory: %v", err)
	}
	if _, err := Open(t.Context(), at(t, Options{Dir: filepath.Join(root, "a", "b")})); err == nil ||
		!strings.Contains(err.Error(), "parent") {
		t.Errorf("no parent: %v", err)
	}
	file := filepath.Join(root, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), at(t, Options{Dir: file})); err == nil ||
		!strings.Contains(err.Error(), "not a directory") {
		t.Errorf("a file: %v", err)
	}
	dir := filepath.Join(root, "new")
	s := open(t, Options{Dir: dir, Daemon: true})
	if err := s.Add(t.Context(), small("")); err != nil {
		t.Fatal(err)
	}
	fileOnly(t)
	for name, want := range map[string]os.FileMode{"": 0o700, FileName: 0o600, FileName + "-wal": 0o600, FileName +
		"-shm": 0o600, LockName: 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%q has mode %v, want %v: %v", name, info.Mode().Perm(), want, err)
		}
	}
}

// TestOpenAsAnother: a directory that is somebody else's, or that may only be read.
func TestOpenAsAnother(t *testing.T) {
	fileOnly(t)
	testkit.NeedRoot(t)
	const nobody = 65534
	root, err := os.MkdirTemp("", "postern-store-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	refused := func(dir, want string) {
		t.Helper()
		if out, err := child(t, "open", dir, nobody).CombinedOutput(); err == nil ||
			!strings.Contains(string(out), want) {
			t.Errorf("%s: %v: %s, want %q", dir, err, out, want)
		}
	}
	mine := filepath.Join(root, "mine")
	if err := os.Mkdir(mine, 0o755); err != nil {
		t.Fatal(err)
	}
	refused(mine, "belongs to uid 0")
	refused(filepath.Join(root, "new"), "cannot be created")
	theirs := filepath.Join(root, "theirs")
	if err := os.Mkdir(theirs, 0o500); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(theirs, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	refused(theirs, "cannot be written")
	if err := os.Chmod(theirs, 0o700); err != nil {
		t.Fatal(err)
	}
	// What root makes there is theirs.
	s := open(t, Options{Dir: theirs, Daemon: true})
	if err := s.Add(t.Context(), small("")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := child(t, "open", theirs, nobody).CombinedOutput(); err != nil {
		t.Errorf("what root made: %v: %s", err, out)
	}
	fileOnly(t)
	if err := os.Chmod(filepath.Join(theirs, FileName), 0o400); err != nil {
		t.Fatal(err)
	}
	refused(theirs, "cannot be read and written")
}

// TestOpenHalfMade: a process killed while it made the store leaves an empty file, or a whole one.
func TestOpenHalfMade(t *testing.T) {
	dir := t.TempDir()
	fileOnly(t)
	if err := os.WriteFile(filepath.Join(dir, FileName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, Options{Dir: dir, Daemon: true})
	if err := s.Add(t.Context(), small("")); err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	fileOnly(t)
	raw(t, filepath.Join(dir, FileName), fmt.Sprintf("PRAGMA page_size = %d; PRAGMA journal_mode = WAL", pageSize))
	s = open(t, Options{Dir: dir, Daemon: true})
	if err := s.Add(t.Context(), small("")); err != nil {
		t.Fatal(err)
	}
}

// TestFailedMigration: a version that cannot be applied leaves the file as it was.
func TestFailedMigration(t *testing.T) {
	fileOnly(t)
	dir := filled(t)
	good := migrations
	t.Cleanup(func() { migrations = good })
	migrations = append(good[:len(good):len(good)], migration{both: "CREATE TABLE extra (x); CREATE TABLE user (y)"})
	if _, err := Open(t.Context(), at(t, Options{Dir: dir, Daemon: true})); err == nil ||
		!strings.Contains(err.Error(), fmt.Sprint("to ", len(migrations))) {
		t.Fatalf("a migration that fails: %v", err)
	}
	migrations = append(good[:len(good):len(good)], migration{both: "CREATE TABLE extra (x)"})
	for range 2 {
		s, err := Open(t.Context(), at(t, Options{Dir: dir, Daemon: true}))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := ofFile(t, s).conn.Int("SELECT count(*) FROM extra"); err != nil {
			t.Error(err)
		}
		s.Close()
	}
	migrations = good
	_, err := Open(t.Context(), at(t, Options{Dir: dir, Daemon: true}))
	if err == nil || !strings.Contains(err.Error(), "at most: install") {
		t.Errorf("the older version: %v", err)
	}
}

// A store that could not be made is not there, neither half: the next command makes it.
func TestFailedFirstOpen(t *testing.T) {
	good, o := migrations, at(t, Options{Dir: t.TempDir()})
	t.Cleanup(func() { migrations = good })
	migrations = append(good[:5:5], migration{both: "CREATE TABLE user (y)"})
	if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "make the store: ") ||
		!strings.HasSuffix(err.Error(), "; nothing of it is left") {
		t.Fatalf("a migration that fails: %v", err)
	}
	migrations = good
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Add(t.Context(), small("")); err != nil {
		t.Error(err)
	}
	s.Close()
}

// TestDamagedPage: damage that Open cannot see ends writing when it is met, and Check finds it.
func TestDamagedPage(t *testing.T) {
	dir := filled(t)
	fileOnly(t)
	path := filepath.Join(dir, FileName)
	conn, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	page, _, err := conn.Int("SELECT rootpage FROM sqlite_schema WHERE name = 'message'")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xee}, pageSize), (page-1)*pageSize); err != nil {
		t.Fatal(err)
	}
	f.Close()
	s := open(t, Options{Dir: dir, Daemon: true})
	if problems, err := s.Check(t.Context()); err == nil && len(problems) == 0 {
		t.Error("Check finds nothing")
	}
	if _, err := s.Get(t.Context(), "x"); sqlite.CodeOf(err) != sqlite.Corrupt {
		t.Errorf("reading: %v", err)
	}
	if err := s.Add(t.Context(), small("")); !errors.Is(err, ErrFailed) {
		t.Errorf("writing: %v", err)
	}
}

func TestCheck(t *testing.T) {
	s := open(t, Options{Dir: filled(t)})
	if problems, err := s.Check(t.Context()); err != nil || len(problems) > 0 {
		t.Errorf("%q, %v", problems, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Check(ctx); err == nil {
		t.Log("it was faster than its context's end")
	}
	var _ queue.Store = s
}
