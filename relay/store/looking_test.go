package store

import (
	"os"
	"path/filepath"
	"testing"
)

// Whoever only reads gets an empty store where there is none, which goes with Close.
func TestOpenToLook(t *testing.T) {
	fileOnly(t)
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	t.Setenv("TMP", temporary) // Windows
	o := Options{Dir: filepath.Join(t.TempDir(), "data")}
	s, there, err := OpenToLook(t.Context(), o)
	if err != nil || there {
		t.Fatal(there, err)
	}
	if users, err := s.Users(t.Context()); err != nil || len(users) > 0 {
		t.Error(users, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("it has left %v, %v", left, err)
	}
	if _, err := os.Stat(o.Dir); !os.IsNotExist(err) {
		t.Errorf("data_dir was made: %v", err)
	}
	if err := os.RemoveAll(temporary); err != nil {
		t.Fatal(err)
	}
	if s, _, err := OpenToLook(t.Context(), o); err == nil {
		t.Error("it has opened one without a directory for temporary files", s.Close())
	}

	made, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := made.Close(); err != nil {
		t.Fatal(err)
	}
	if s, there, err = OpenToLook(t.Context(), o); err != nil || !there {
		t.Fatal(there, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
