package certs

import "os"

// stamp tells one state of a file from another without reading it; nil for a file that cannot be
// looked at. Symbolic links are followed, since certbot and Kubernetes renew by pointing one elsewhere.
type stamp struct{ os.FileInfo }

func (a stamp) same(b stamp) bool {
	if a.FileInfo == nil || b.FileInfo == nil {
		return a.FileInfo == nil && b.FileInfo == nil
	}
	// SameFile compares inodes: it finds a file replaced by one of the same size and time.
	return os.SameFile(a.FileInfo, b.FileInfo) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() &&
		a.Mode() == b.Mode()
}

// stamps are those of the two files that are watched.
type stamps [2]stamp

func stampsOf(files [2]string) stamps {
	var s stamps
	for i, f := range files {
		if info, err := os.Stat(f); err == nil {
			s[i] = stamp{info}
		}
	}
	return s
}

func (a stamps) same(b stamps) bool { return a[0].same(b[0]) && a[1].same(b[1]) }
