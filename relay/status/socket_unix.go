//go:build unix

package status

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// forUs closes a socket to others: on Linux its file has the mode of the socket, so that there is no moment in which
// others may connect.
func forUs(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { _ = unix.Fchmod(int(fd), 0o600) })
}

// giveTo closes the socket to others, and gives one that root made to the owner of the directory.
func giveTo(path, dir string) error {
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 {
		return nil
	}
	return os.Chown(path, int(st.Uid), int(st.Gid))
}

// short is the path of the socket, by way of an open directory where it is too long for an address.
func short(dir string) (path string, release func(), err error) {
	path = filepath.Join(dir, SocketName)
	if len(path) <= maxPath {
		return path, func() {}, nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	path = fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), SocketName)
	return path, func() { d.Close() }, nil
}
