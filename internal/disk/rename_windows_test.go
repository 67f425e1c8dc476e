package disk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/windows"
)

// A file that another has open is replaced once it is closed, and where it never is the error says why.
func TestRename(t *testing.T) { renameBusy(t, Rename) }

// So is one in a root.
func TestRenameIn(t *testing.T) {
	renameBusy(t, func(from, to string) error {
		root, err := os.OpenRoot(filepath.Dir(to))
		if err != nil {
			return err
		}
		defer root.Close()
		return RenameIn(root, filepath.Base(from), filepath.Base(to))
	})
}

func renameBusy(t *testing.T, rename func(from, to string) error) {
	t.Helper()
	dir, err := os.MkdirTemp("", "rename") // Wine lets nobody remove it
	if err != nil {
		t.Fatal(err)
	}
	from, to := filepath.Join(dir, "new"), filepath.Join(dir, "old")
	for _, path := range []string{from, to} {
		if err := os.WriteFile(path, []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	name, err := windows.UTF16PtrFromString(to)
	if err != nil {
		t.Fatal(err)
	}
	h, err := windows.CreateFile(name, windows.GENERIC_READ, windows.FILE_SHARE_READ, nil, windows.OPEN_EXISTING, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := rename(from, to); !errors.Is(err, windows.ERROR_SHARING_VIOLATION) &&
		!errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		t.Errorf("open all the time: %v", err)
	}
	time.AfterFunc(2*renamePause, func() { windows.CloseHandle(h) })
	if err := rename(from, to); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(to); string(text) != from {
		t.Errorf("%s, %v", text, err)
	}
}
