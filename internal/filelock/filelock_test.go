package filelock

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// open opens the same file again, as another process would.
func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	a, b, c := open(t, path), open(t, path), open(t, path)
	if err := Try(a); err != nil {
		t.Fatal(err)
	}
	if err := Try(b); !errors.Is(err, ErrHeld) {
		t.Errorf("the second: %v", err)
	}
	if err := TryShared(b); !errors.Is(err, ErrHeld) {
		t.Errorf("shared beside one alone: %v", err)
	}
	if _, err := b.WriteString("content"); err != nil { // a lock is no hindrance to who does not ask for it
		t.Error(err)
	}
	done := make(chan error)
	go func() { done <- Wait(c) }()
	if err := Close(a); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := Try(b); !errors.Is(err, ErrHeld) {
		t.Errorf("after the wait of another: %v", err)
	}
}
