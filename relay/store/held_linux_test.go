package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An error with the path of the open directory names the one that people know, and only such an error does.
func TestRestorationNames(t *testing.T) {
	dir := t.TempDir()
	r, err := BeginRestore(dir, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, inside := os.Stat(filepath.Join(r.Dir(), "none"))
	_, outside := os.Stat(filepath.Join(dir, "none"))
	want := " is " + filepath.Join(dir, restoring) + ")"
	if got := r.Named(inside).Error(); !strings.HasSuffix(got, want) {
		t.Error(got)
	}
	if r.Named(outside) != outside || r.Named(nil) != nil {
		t.Error("an error of somewhere else was changed")
	}
}
