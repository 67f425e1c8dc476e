//go:build !unix

package smtp

import "syscall"

// pending cannot look here; a dead connection is found out by its first use.
func pending(syscall.RawConn) pendingKind { return nothingPending }
