//go:build unix

package errno

import "syscall"

// The errors by the names of POSIX.
const (
	AddressInUse       = syscall.EADDRINUSE
	AddressUnavailable = syscall.EADDRNOTAVAIL
	BrokenPipe         = syscall.EPIPE
	Forbidden          = syscall.EACCES
	HostUnreachable    = syscall.EHOSTUNREACH
	NetworkUnreachable = syscall.ENETUNREACH
	Refused            = syscall.ECONNREFUSED
	Reset              = syscall.ECONNRESET
	TimedOut           = syscall.ETIMEDOUT

	NoSpace  = syscall.ENOSPC
	Quota    = syscall.EDQUOT
	TooLarge = syscall.EFBIG
)

var full = []error{NoSpace, Quota}
