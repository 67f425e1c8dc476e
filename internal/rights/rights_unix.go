//go:build unix

package rights

import (
	"fmt"
	"io/fs"
	"os"
	"strconv"
)

// said is what a person is told.
type said struct{ mode fs.FileMode }

// String says what others may: "mode 0644".
func (s said) String() string { return fmt.Sprintf("mode %04o", s.mode) }

// Of looks at a file or directory; at what a link leads to.
func Of(path string) (Rights, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Rights{}, err
	}
	return OfInfo(path, info)
}

// OfInfo is Of for who has looked already.
func OfInfo(_ string, info os.FileInfo) (Rights, error) {
	mode := info.Mode().Perm()
	return Rights{AnyoneReads: mode&0o004 != 0, AnyoneWrites: mode&0o002 != 0, OthersRead: mode&0o044 != 0,
		OthersWrite: mode&0o022 != 0, Open: mode&0o077 != 0, IsDir: info.IsDir(),
		said: said{mode}}, nil
}

// Command is the one that takes rights away, with what chmod has to be told.
func (r Rights) Command(chmod, path string) string { return "chmod " + chmod + " " + path }

// Mkdir makes a directory for us alone. Errors are those of os.Mkdir.
func Mkdir(dir string) error { return os.Mkdir(dir, 0o700) }

// MkdirAll is Mkdir with what is missing above; one that is there stays as it is.
func MkdirAll(dir string) error { return os.MkdirAll(dir, 0o700) }

// Create makes a file for us alone, to write. Errors are those of os.OpenFile: fs.ErrExist.
func Create(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

// Administrator reports that we run as root.
func Administrator() bool { return os.Geteuid() == 0 }

// Me names the user that we run as: "uid 1000".
func Me() string { return "uid " + strconv.Itoa(os.Geteuid()) }
