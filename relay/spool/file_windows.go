package spool

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// createUnnamed makes a file that Windows removes when it is closed, also by the end of the process: an open one cannot
// be removed.
func createUnnamed(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, prefix+rand.Text()),
		os.O_RDWR|os.O_CREATE|os.O_EXCL|windows.FILE_FLAG_DELETE_ON_CLOSE, 0o600)
}

// isOpen reports that a file could not be removed because a process has it open.
func isOpen(err error) bool { return errors.Is(err, windows.ERROR_SHARING_VIOLATION) }
