package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"postern/internal/disk"
	"postern/internal/filelock"
	"postern/internal/rights"
)

// prepareDir makes the last element of the path where it is missing and refuses a directory that others
// may write to or that is not ours: whoever can rename our files can replace them. Root may use the
// directory of the daemon's user, so that `sudo postern …` works.
func prepareDir(dir string) error {
	if dir == "" {
		return errors.New("data_dir is empty: name the directory for the store")
	}
	err := rights.Mkdir(dir)
	switch {
	case errors.Is(err, fs.ErrExist) || err == nil:
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("data_dir %s: its parent directory does not exist: create it: %w", dir, err)
	default:
		return fmt.Errorf("data_dir %s cannot be created: %s: %w", dir, howToMakeDir, err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("data_dir %s: %w", dir, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("data_dir %s is not a directory", dir)
	}
	return onlyOurs(dir, info)
}

// prepareFile makes an empty database file for us alone, since SQLite would make one that others may
// read, and refuses one that others may read. SQLite gives its -wal and -shm the same owner and mode.
func prepareFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return verifyFile(path)
	}
	if err != nil {
		return fmt.Errorf("create the store: %w", err)
	}
	if err := errors.Join(giveToOwner(f, filepath.Dir(path)), f.Close()); err != nil {
		return fmt.Errorf("create the store: %w", err)
	}
	return disk.SyncDir(filepath.Dir(path))
}

func verifyFile(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	if size := info.Size(); size > 0 && size < 512 { // the engine would take it for empty
		return fmt.Errorf("%s is not a database: move it away, or restore it from a backup", path)
	}
	open, err := rights.OfInfo(path, info)
	if err != nil {
		return err
	}
	if open.Open {
		return fmt.Errorf("%s holds mail and password hashes and is open to others (%s): %s", path, open,
			open.Command("600", path))
	}
	return readAndWritten(path)
}

// openFile opens a file of the data directory, or makes it for us alone. It follows no link: root may run a command in
// the directory of the daemon's user, who could lead it anywhere.
func openFile(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|noFollow, 0o600)
	if isLink(err) {
		return nil, fmt.Errorf("%s is a link, and must be a file", path)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// lockFile takes the lock that only one daemon may have. The kernel drops it when the process ends,
// however it ends; the file stays.
func lockFile(path string) (unlock func(), err error) {
	unlock, _, err = lockNamed(path)
	return unlock, err
}

// lockNamed is lockFile that also says what lockName does.
func lockNamed(path string) (unlock func(), name string, err error) {
	f, err := openFile(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, "", fmt.Errorf("lock the data directory: %w", err)
	}
	err = filelock.Try(f)
	if err == nil {
		if err = giveToOwner(f, filepath.Dir(path)); err == nil {
			return sync.OnceFunc(func() { filelock.Close(f) }), lockName(f), nil
		}
	}
	f.Close()
	if errors.Is(err, filelock.ErrHeld) {
		return nil, "", fmt.Errorf("%s is locked: %w", path, ErrLocked)
	}
	return nil, "", fmt.Errorf("lock %s: %w", path, err)
}

// lockDir holds others off while the first of several processes makes the schema.
func lockDir(dir string) (unlock func(), err error) {
	d, err := openToLock(dir)
	if err != nil {
		return nil, err
	}
	if err := filelock.Wait(d); err != nil {
		d.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { filelock.Close(d) }, nil
}
