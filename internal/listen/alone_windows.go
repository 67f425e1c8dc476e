package listen

import (
	"syscall"

	"golang.org/x/sys/windows"
)

const exclusive = ^4 // SO_EXCLUSIVEADDRUSE

// alone takes the address for us alone.
func alone(_, _ string, c syscall.RawConn) error {
	var err error
	controlErr := c.Control(func(fd uintptr) {
		err = windows.SetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, exclusive, 1)
	})
	if controlErr != nil {
		return controlErr
	}
	return err
}
