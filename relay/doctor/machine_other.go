//go:build !linux

package doctor

import "golang.org/x/sys/unix"

func clockSynchronised() (synchronised, known bool) { return false, false }

func isReadOnly(st *unix.Statfs_t) bool { return st.Flags&unix.MNT_RDONLY != 0 }
