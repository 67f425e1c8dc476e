//go:build !linux

package store

import (
	"errors"
	"os"
)

// allocate cannot reserve blocks here; min_free is what guards the disk.
func allocate(*os.File, int64) error { return errors.ErrUnsupported }
