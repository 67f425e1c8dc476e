// Package filelock locks open files against other processes. The system drops a lock when its file is closed or the
// process ends, however it ends.
package filelock

import "errors"

// ErrHeld: another has the lock.
var ErrHeld = errors.New("another process has the lock")
