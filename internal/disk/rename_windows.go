package disk

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

// Virus scanners and backups have a file open for moments, in which Windows lets nobody replace it.
const (
	renameTries = 20
	renamePause = 100 * time.Millisecond
)

// Rename is os.Rename. It tries again for up to two seconds while another program has one of the files open.
func Rename(from, to string) error { return untilFree(func() error { return os.Rename(from, to) }) }

// RenameIn is Rename within a root.
func RenameIn(root *os.Root, from, to string) error {
	return untilFree(func() error { return root.Rename(from, to) })
}

func untilFree(rename func() error) error {
	for try := 1; ; try++ {
		err := rename()
		busy := errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_ACCESS_DENIED)
		if !busy || try == renameTries {
			return err
		}
		time.Sleep(renamePause)
	}
}
