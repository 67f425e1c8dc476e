package certs

import (
	"os"
	"syscall"
	"time"
)

// stamp tells one state of a file from another without reading it. The inode finds a file that was
// replaced by one of the same size and time; symbolic links are followed, since certbot and
// Kubernetes renew by pointing a link elsewhere.
type stamp struct {
	modified time.Time
	size     int64
	inode    uint64
	mode     os.FileMode
}

// stamps are those of the two files that are watched.
type stamps [2]stamp

func stampsOf(files [2]string) stamps {
	var s stamps
	for i, f := range files {
		s[i] = stampOf(f)
	}
	return s
}

// stampOf returns the zero stamp for a file that cannot be looked at.
func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	s := stamp{modified: info.ModTime(), size: info.Size(), mode: info.Mode()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	return s
}
