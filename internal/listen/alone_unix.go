//go:build unix

package listen

import "syscall"

// alone is nothing to ask for.
var alone func(network, address string, c syscall.RawConn) error
