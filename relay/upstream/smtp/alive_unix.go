//go:build unix

package smtp

import "syscall"

// pending looks at what has arrived on an idle socket without taking it.
func pending(raw syscall.RawConn) pendingKind {
	if raw == nil {
		return nothingPending
	}
	var (
		b   [1]byte
		n   int
		err error
	)
	failed := raw.Read(func(fd uintptr) bool {
		n, _, err = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	})
	switch {
	case failed != nil:
		return endPending
	case err == syscall.EAGAIN || err == syscall.EWOULDBLOCK || err == syscall.EINTR:
		return nothingPending
	case err != nil || n == 0:
		return endPending
	}
	return octetsPending
}
