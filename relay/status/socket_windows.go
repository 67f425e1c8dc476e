package status

import (
	"fmt"
	"path/filepath"
	"syscall"
)

// forUs has nothing to do: the file of the socket inherits the access control list of the directory, which says who may
// connect.
func forUs(string, string, syscall.RawConn) error { return nil }

func giveTo(string, string) error { return nil }

// short is the path of the socket, which Windows takes up to 107 octets of.
func short(dir string) (path string, release func(), err error) {
	path = filepath.Join(dir, SocketName)
	if len(path) > maxPath {
		return "", nil, fmt.Errorf("the path of data_dir, %s, is longer than the %d octets that a socket in it allows",
			dir, maxPath-len(SocketName)-1)
	}
	return path, func() {}, nil
}
