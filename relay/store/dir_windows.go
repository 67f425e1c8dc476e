package store

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"

	"postern/internal/rights"
)

const howToMakeDir = "`postern service install` makes that of the service"

// onlyOurs refuses a directory that others may use, since what is made in it inherits its access control list, or that
// somebody owns who could change that list.
func onlyOurs(dir string, info fs.FileInfo) error {
	r, err := rights.OfInfo(dir, info)
	switch {
	case err != nil:
		return fmt.Errorf("data_dir: %w", err)
	case !r.Trusted():
		return fmt.Errorf("data_dir %s belongs to %s and postern runs as %s: run it as that user, or give the "+
			"directory away: icacls \"%s\" /setowner *S-1-5-32-544", dir, r.Owner(), rights.Me(), dir)
	case r.Open:
		return fmt.Errorf("data_dir %s is open to others (%s): %s", dir, r, r.Command("700", dir))
	}
	return nil
}

// readAndWritten says why we cannot read or write a file.
func readAndWritten(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%s cannot be read and written by %s: %w", path, rights.Me(), err)
	}
	return f.Close()
}

// noFollow opens a link itself, which is then no regular file.
const noFollow = windows.FILE_FLAG_OPEN_REPARSE_POINT

func isLink(error) bool { return false }

// giveToOwner has nothing to do: what is made in the directory inherits its access control list.
func giveToOwner(*os.File, string) error { return nil }

// openToLock opens a file in the directory, since Windows locks no directory.
func openToLock(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, "schema.lock"), os.O_RDWR|os.O_CREATE, 0o600)
}
