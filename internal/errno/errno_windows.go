package errno

import "golang.org/x/sys/windows"

// The errors of Winsock and of the file system.
const (
	AddressInUse       = windows.WSAEADDRINUSE
	AddressUnavailable = windows.WSAEADDRNOTAVAIL
	BrokenPipe         = windows.WSAECONNABORTED
	Forbidden          = windows.WSAEACCES
	HostUnreachable    = windows.WSAEHOSTUNREACH
	NetworkUnreachable = windows.WSAENETUNREACH
	Refused            = windows.WSAECONNREFUSED
	Reset              = windows.WSAECONNRESET
	TimedOut           = windows.WSAETIMEDOUT

	NoSpace  = windows.ERROR_DISK_FULL
	Quota    = windows.ERROR_DISK_QUOTA_EXCEEDED
	TooLarge = windows.ERROR_FILE_TOO_LARGE
)

var full = []error{NoSpace, windows.ERROR_HANDLE_DISK_FULL, Quota}
