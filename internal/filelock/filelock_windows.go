package filelock

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// Try takes the lock for us alone, or returns ErrHeld.
func Try(f *os.File) error {
	return lock(f, windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY)
}

// TryShared takes the lock beside others that share it, or returns ErrHeld.
func TryShared(f *os.File) error { return lock(f, windows.LOCKFILE_FAIL_IMMEDIATELY) }

// Wait takes the lock for us alone, once others have let go of it.
func Wait(f *os.File) error { return lock(f, windows.LOCKFILE_EXCLUSIVE_LOCK) }

// Close lets go of the lock, and closes the file. Windows would let go of it some time after the file is closed.
func Close(f *os.File) error {
	at := place()
	_ = windows.UnlockFileEx(windows.Handle(f.Fd()), 0, 1, 0, &at) // an error: we have none
	return f.Close()
}

// place is one octet far behind the end of any file: nobody else may read an octet that is locked.
func place() windows.Overlapped { return windows.Overlapped{OffsetHigh: 1 << 30} }

func lock(f *os.File, flags uint32) error {
	at := place()
	err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return ErrHeld
	}
	return err
}
