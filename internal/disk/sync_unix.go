//go:build unix

package disk

import (
	"errors"
	"os"
)

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	return syncAndClose(os.Open(dir))
}

// SyncIn is SyncDir of a directory in a root.
func SyncIn(root *os.Root, dir string) error {
	return syncAndClose(root.Open(dir))
}

func syncAndClose(d *os.File, err error) error {
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
