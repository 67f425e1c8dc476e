//go:build unix

package store

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ownedAs gives what root made, and all that is in it, to the owner of a directory, who will need it. Nobody else can
// have put anything there.
func ownedAs(dir, path string, info fs.FileInfo) error {
	to, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 || owner(to) == 0 {
		return err
	}
	st := to.Sys().(*syscall.Stat_t)
	if !info.IsDir() {
		return os.Lchown(path, int(st.Uid), int(st.Gid))
	}
	return filepath.WalkDir(path, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(st.Uid), int(st.Gid))
	})
}
