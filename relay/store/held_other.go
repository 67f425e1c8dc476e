//go:build !linux

package store

import "os"

// pathOf is the path that an open directory had: this system has none that stays.
func pathOf(dir *os.File) string { return dir.Name() }
