package smtp

import (
	"errors"
	"os"
)

// pendingKind is what has arrived on a socket that nobody reads.
type pendingKind uint8

const (
	nothingPending pendingKind = iota
	octetsPending
	endPending
)

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
