package store

import (
	"fmt"
	"os"
)

// pathOf is a path of an open directory that leads to it whatever becomes of its name, until it is closed. Where /proc
// is not mounted it is the name.
func pathOf(dir *os.File) string {
	path := fmt.Sprintf("/proc/self/fd/%d", dir.Fd())
	if leadsTo(path, dir) != nil {
		return dir.Name()
	}
	return path
}
