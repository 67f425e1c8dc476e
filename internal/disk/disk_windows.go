package disk

import (
	"path/filepath"

	"golang.org/x/sys/windows"
)

// Of asks the volume of a directory. Quotas count: what is free is what the user that we run as may still take.
func Of(dir string) (Room, error) {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return Room{}, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(path, &free, nil, nil); err != nil {
		return Room{}, err
	}
	return Room{Free: int64(free), ReadOnly: isReadOnly(dir)}, nil
}

// isReadOnly reports a volume that says so; one that says nothing is believed to be writable.
func isReadOnly(dir string) bool {
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return false
	}
	root, err := windows.UTF16PtrFromString(filepath.VolumeName(absolute) + `\`)
	if err != nil {
		return false
	}
	var flags uint32
	err = windows.GetVolumeInformation(root, nil, 0, nil, nil, &flags, nil, 0)
	return err == nil && flags&windows.FILE_READ_ONLY_VOLUME != 0
}
