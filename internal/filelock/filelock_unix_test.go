//go:build unix

package filelock

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The lock is free once Close returns, though a process that is just being started has the file still.
func TestCloseWhileAProcessStarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	a, b := open(t, path), open(t, path)
	if err := Try(a); err != nil {
		t.Fatal(err)
	}
	child, err := unix.Dup(int(a.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child)
	if err := Close(a); err != nil {
		t.Fatal(err)
	}
	if err := Try(b); err != nil {
		t.Error(err)
	}
}
