//go:build unix

package disk

import "golang.org/x/sys/unix"

// Same reports whether two paths are on one file system.
func Same(a, b string) (bool, error) {
	var one, other unix.Stat_t
	if err := unix.Stat(a, &one); err != nil {
		return false, err
	}
	err := unix.Stat(b, &other)
	return err == nil && one.Dev == other.Dev, err
}
