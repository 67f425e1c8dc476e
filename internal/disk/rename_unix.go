//go:build unix

package disk

import "os"

// Rename is os.Rename: who has a file open is in nobody's way.
func Rename(from, to string) error { return os.Rename(from, to) }

// RenameIn is Rename within a root.
func RenameIn(root *os.Root, from, to string) error { return root.Rename(from, to) }
