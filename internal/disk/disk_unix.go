//go:build unix

package disk

import "golang.org/x/sys/unix"

// Of asks the file system of a directory.
func Of(dir string) (Room, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Room{}, err
	}
	return Room{Free: int64(st.Bavail) * int64(st.Bsize), Files: int64(st.Files), FreeFiles: int64(st.Ffree),
		ReadOnly: isReadOnly(&st)}, nil
}
