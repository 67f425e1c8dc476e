//go:build unix

package main

import (
	"os"
	"path/filepath"
	"syscall"
)

// shareWithService lets the service read a file that root wrote into its directory: by the group of the directory.
func shareWithService(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	dir, ok := info.Sys().(*syscall.Stat_t)
	if !ok || dir.Gid == 0 {
		return nil
	}
	if err := os.Chown(path, -1, int(dir.Gid)); err != nil {
		return err
	}
	return os.Chmod(path, 0o640)
}
