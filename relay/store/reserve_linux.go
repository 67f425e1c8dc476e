package store

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// allocate gives the first octets of a file their blocks and leaves its length as it is.
func allocate(f *os.File, octets int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, octets)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
