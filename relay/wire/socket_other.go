//go:build !unix

package wire

import "syscall"

// readFD finds nothing: early input is then noticed only when it is read as a command.
func readFD(uintptr, []byte) (int, error) { return 0, syscall.EAGAIN }
