package textfile

import (
	"os"
	"slices"
)

// Fingerprint tells one state of files from another without reading them; nil for a file that cannot be looked at.
// Symbolic links are followed, since certbot and Kubernetes renew by pointing one elsewhere.
type Fingerprint []os.FileInfo

// FingerprintOf looks at files.
func FingerprintOf(files ...string) Fingerprint {
	f := make(Fingerprint, len(files))
	for i, file := range files {
		if info, err := os.Stat(file); err == nil {
			f[i] = info
		}
	}
	return f
}

// Same reports that nothing has changed.
func (f Fingerprint) Same(o Fingerprint) bool {
	return slices.EqualFunc(f, o, func(a, b os.FileInfo) bool {
		if a == nil || b == nil {
			return a == nil && b == nil
		}
		// SameFile compares inodes: it finds a file replaced by one of the same size and time.
		return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && a.Mode() == b.Mode()
	})
}
