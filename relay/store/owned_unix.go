//go:build unix

package store

import (
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// ownedAs gives what root made, and all that is in it, to the owner of a directory, who will need it. It follows no
// link out of there, whatever that owner does meanwhile, and hands over a directory after what is in it.
func ownedAs(dir string, in *os.Root, name string) error {
	to, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 || owner(to) == 0 {
		return err
	}
	var all []string
	err = fs.WalkDir(in.FS(), name, func(path string, _ fs.DirEntry, err error) error {
		all = append(all, path)
		return err
	})
	if err != nil {
		return err
	}
	st := to.Sys().(*syscall.Stat_t)
	for _, path := range slices.Backward(all) {
		if err := in.Lchown(path, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	return nil
}

// aloneIn leaves a directory that is open to us alone: root may find one there that another user has made, who could
// put anything into it.
func aloneIn(dir *os.File) error {
	info, err := dir.Stat()
	if err == nil && owner(info) != os.Geteuid() {
		err = dir.Chown(os.Geteuid(), -1)
	}
	if err != nil {
		return err
	}
	return dir.Chmod(0o700)
}
