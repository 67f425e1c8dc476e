package store

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/relay/config"
)

// filesOf are the files of a directory, by name.
func filesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		if e.IsDir() {
			all[e.Name()] = "a directory"
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(b)
	}
	return all
}

// A file that was not moved to the server is told of, one that has nothing or was moved is not, and looking changes
// neither the file nor its directory.
func TestLeftBehind(t *testing.T) {
	fileOnly(t)
	url, err := config.ParseStoreURL("postgres://postern@db.example.com/postern")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		fill func(t *testing.T, o Options)
		left bool
		err  bool
	}{
		{name: "none", fill: func(t *testing.T, o Options) {}},
		{name: "empty", fill: func(t *testing.T, o Options) { with(t, o, func(*Store) {}) }},
		{name: "empty, made by a command", fill: func(t *testing.T, o Options) {
			if err := open(t, o).Close(); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "mail", left: true, fill: func(t *testing.T, o Options) {
			with(t, o, func(s *Store) { prefill(t, s, 1, 1<<10) })
		}},
		{name: "an account", left: true, fill: withUser},
		{name: "moved", fill: rawly("INSERT INTO store_move VALUES (1, 'gone', 'c', 'there', 1)")},
		{name: "a move broken off", left: true,
			fill: rawly("INSERT INTO store_move VALUES (1, 'leaving', 'c', 'there', 1)")},
		{name: "before moves were known", left: true, fill: rawly("DROP TABLE store_move")},
		{name: "killed", left: true, fill: func(t *testing.T, o Options) {
			with(t, o, func(*Store) {})
			raw(t, filepath.Join(o.Dir, FileName), "PRAGMA wal_autocheckpoint = 0; "+
				"INSERT INTO user VALUES ('anna', '{}')")
		}},
		{name: "of others", err: true, fill: func(t *testing.T, o Options) {
			raw(t, filepath.Join(o.Dir, FileName), "CREATE TABLE message (id INTEGER)")
		}},
		{name: "no database", err: true, fill: func(t *testing.T, o Options) {
			text := strings.Repeat("x", 8<<10)
			if err := os.WriteFile(filepath.Join(o.Dir, FileName), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "a directory", err: true, fill: func(t *testing.T, o Options) {
			if err := os.Mkdir(filepath.Join(o.Dir, FileName), 0o700); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data of 100% #x")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			test.fill(t, Options{Dir: dir})
			if left, err := LeftBehind(Options{Dir: dir}); left || err != nil {
				t.Errorf("where the file is the store: %v, %v", left, err)
			}
			before := filesOf(t, dir)
			left, err := LeftBehind(Options{Dir: dir, URL: url})
			if left != test.left || (err != nil) != test.err {
				t.Errorf("%v, %v", left, err)
			}
			if !maps.Equal(before, filesOf(t, dir)) {
				t.Error("the look has changed something")
			}
		})
	}
}

func withUser(t *testing.T, o Options) {
	with(t, o, func(s *Store) {
		if err := s.AddUser(t.Context(), auth.User{Login: "anna", Hash: "x", Created: time.Now()}); err != nil {
			t.Fatal(err)
		}
	})
}

// rawly makes a store with an account, and changes it without our checks.
func rawly(script string) func(t *testing.T, o Options) {
	return func(t *testing.T, o Options) {
		withUser(t, o)
		raw(t, filepath.Join(o.Dir, FileName), script+"; PRAGMA wal_checkpoint(TRUNCATE)")
	}
}
