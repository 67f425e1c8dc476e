package disk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestOf(t *testing.T) {
	dir := t.TempDir()
	room, err := Of(dir)
	if err != nil || room.Free <= 0 || room.ReadOnly {
		t.Errorf("%+v, %v", room, err)
	}
	if _, err := Of(filepath.Join(dir, "absent")); err == nil {
		t.Error("a directory that is not there has room")
	}
	if err := SyncDir(dir); err != nil {
		t.Error(err)
	}
}

func TestSame(t *testing.T) {
	dir := t.TempDir()
	if same, err := Same(dir, filepath.Dir(dir)); !same || err != nil {
		t.Error(same, err)
	}
	if _, err := Same(dir, filepath.Join(dir, "absent")); err == nil && filepath.VolumeName(dir) == "" {
		t.Error("what is not there is on a file system")
	}
}

// What is in a root keeps to it.
func TestInRoot(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	outside := filepath.Join(t.TempDir(), "file")
	err = errors.Join(os.WriteFile(filepath.Join(dir, "new"), []byte("new"), 0o600), RenameIn(root, "new", "old"))
	if text, readErr := os.ReadFile(filepath.Join(dir, "old")); string(text) != "new" {
		t.Errorf("%q, %v, %v", text, err, readErr)
	}
	if err := RenameIn(root, "old", outside); err == nil {
		t.Error("it left its root")
	}
	if err := SyncIn(root, "."); err != nil {
		t.Error(err)
	}
	if err := SyncIn(root, filepath.Dir(outside)); err == nil && filepath.VolumeName(dir) == "" {
		t.Error("a directory outside was synced")
	}
}
