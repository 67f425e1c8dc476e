package disk

import (
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
