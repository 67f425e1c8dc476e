package disk

import (
	"path/filepath"
	"strings"
)

// Same reports whether two paths are on one volume, by its letter.
func Same(a, b string) (bool, error) {
	one, err := filepath.Abs(a)
	if err != nil {
		return false, err
	}
	other, err := filepath.Abs(b)
	return err == nil && strings.EqualFold(filepath.VolumeName(one), filepath.VolumeName(other)), err
}
