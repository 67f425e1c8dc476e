//go:build unix

package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"postern/internal/rights"
)

const howToMakeDir = "create it with mode 0700, owned by the user that postern runs as"

// onlyOurs refuses a directory that others may write to, or that is another user's.
func onlyOurs(dir string, info fs.FileInfo) error {
	if uid, euid := owner(info), os.Geteuid(); uid != euid && euid != 0 {
		return fmt.Errorf("data_dir %s belongs to uid %d and postern runs as uid %d: run it as that user, or chown "+
			"the directory", dir, uid, euid)
	}
	r, err := rights.OfInfo(dir, info)
	if err != nil {
		return err
	}
	if r.OthersWrite {
		return fmt.Errorf("data_dir %s may be written by others (%s): %s", dir, r, r.Command("700", dir))
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

// readAndWritten says why we cannot read or write a file.
func readAndWritten(path string) error {
	if err := unix.Access(path, unix.R_OK|unix.W_OK); err != nil {
		return fmt.Errorf("%s cannot be read and written by uid %d: %w", path, os.Geteuid(), err)
	}
	return nil
}

// noFollow opens no link, and waits for nobody at a pipe.
const noFollow = unix.O_NOFOLLOW | unix.O_NONBLOCK

func isLink(err error) bool { return errors.Is(err, unix.ELOOP) }

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

// openToLock opens the directory, which can be locked itself.
func openToLock(dir string) (*os.File, error) { return os.Open(dir) }
