//go:build unix

package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"postern/relay/queue"
)

// prepareDir makes the last element of the path where it is missing and refuses a directory that others
// may write to or that is not ours: whoever can rename our files can replace them. Root may use the
// directory of the daemon's user, so that `sudo postern …` works.
func prepareDir(dir string) error {
	if dir == "" {
		return errors.New("data_dir is empty: name the directory for the store")
	}
	err := os.Mkdir(dir, 0o700)
	switch {
	case errors.Is(err, fs.ErrExist) || err == nil:
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("data_dir %s: its parent directory does not exist: create it: %w", dir, err)
	default:
		return fmt.Errorf("data_dir %s cannot be created: create it with mode 0700, owned by the user that postern "+
			"runs as: %w", dir, err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("data_dir %s: %w", dir, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("data_dir %s is not a directory", dir)
	}
	if uid, euid := owner(info), os.Geteuid(); uid != euid && euid != 0 {
		return fmt.Errorf("data_dir %s belongs to uid %d and postern runs as uid %d: run it as that user, or chown "+
			"the directory", dir, uid, euid)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("data_dir %s may be written by others (mode %04o): chmod 700 %s", dir, info.Mode().Perm(),
			dir)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("data_dir %s cannot be written: %w", dir, err)
	}
	return nil
}

func owner(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
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
	return syncDir(filepath.Dir(path))
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
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s holds mail and password hashes and is open to others (mode %04o): chmod 600 %s", path,
			info.Mode().Perm(), path)
	}
	if err := unix.Access(path, unix.R_OK|unix.W_OK); err != nil {
		return fmt.Errorf("%s cannot be read and written by uid %d: %w", path, os.Geteuid(), err)
	}
	return nil
}

// openFile opens a file of the data directory, or makes it for us alone. It follows no link: root may run a command in
// the directory of the daemon's user, who could lead it anywhere.
func openFile(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, unix.ELOOP) {
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

// giveToOwner gives a file that root made to the owner of the directory, who will need it. One that has other names is
// left alone.
func giveToOwner(f *os.File, dir string) error {
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 || owner(info) == 0 {
		return err
	}
	var file unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &file); err != nil || file.Uid != 0 || file.Nlink != 1 {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	return f.Chown(int(st.Uid), int(st.Gid))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lockFile takes the lock that only one daemon may have. The kernel drops it when the process ends,
// however it ends; the file stays.
func lockFile(path string) (unlock func(), err error) {
	f, err := openFile(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		if err = giveToOwner(f, filepath.Dir(path)); err == nil {
			return sync.OnceFunc(func() { f.Close() }), nil
		}
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%s is locked: %w", path, ErrLocked)
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// lockDir holds others off while the first of several processes makes the schema.
func lockDir(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(d.Fd()), unix.LOCK_EX)
		if err == nil {
			return func() { d.Close() }, nil
		}
		if !errors.Is(err, unix.EINTR) {
			d.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
	}
}

// space watches the room on the file system.
type space struct {
	dir   string
	floor int64

	mu    sync.Mutex
	asked time.Time
	err   error
}

// spaceAge is how old an answer about free space may be.
const spaceAge = 250 * time.Millisecond

// check returns queue.ErrFull when less than the floor is free. Pages that are free inside the database
// file count, so that a disk filled by a backlog opens again once the backlog is gone; but a quarter of
// the floor must be free outside, for the log.
func (s *space) check(inside func() (int64, error)) error {
	if s.floor < 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.asked.IsZero() && time.Since(s.asked) < spaceAge {
		return s.err
	}
	err := s.ask(inside)
	if err == nil || errors.Is(err, queue.ErrFull) { // other trouble may be of who asks: they went away
		s.asked, s.err = time.Now(), err
	}
	return err
}

// free is how many octets of the file system are.
func (s *space) free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", s.dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// lack is how many octets should become free before so little is that ask refuses.
func (s *space) lack(inside func() (int64, error)) (int64, error) {
	if s.floor < 0 {
		return 0, nil
	}
	free, err := s.free()
	missing := s.floor + s.floor/4 - free
	if err != nil || missing <= 0 {
		return 0, err
	}
	within, err := inside()
	return max(0, missing-within), err
}

func (s *space) ask(inside func() (int64, error)) error {
	free, err := s.free()
	if err != nil || free >= s.floor {
		return err
	}
	if free >= s.floor/4 {
		within, err := inside()
		if err != nil {
			return err
		}
		if free+within >= s.floor {
			return nil
		}
	}
	return fmt.Errorf("%w: %d MB free in %s, %d MB must stay free", queue.ErrFull, free/1e6, s.dir, s.floor/1e6)
}
