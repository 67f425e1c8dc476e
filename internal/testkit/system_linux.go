package testkit

import (
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	noFollow = syscall.O_NOFOLLOW
	goOn     = syscall.SIGCONT
)

func halt(pid int) { syscall.Kill(pid, syscall.SIGSTOP) }

func kill(pid int) { syscall.Kill(pid, syscall.SIGKILL) }

// isOurs reports a file of the user that we run as.
func isOurs(info fs.FileInfo) bool { return info.Sys().(*syscall.Stat_t).Uid == uint32(os.Geteuid()) }

// removeMemory removes a segment of shared memory that nobody uses.
func removeMemory(id int) {
	var about unix.SysvShmDesc
	if _, err := unix.SysvShmCtl(id, unix.IPC_STAT, &about); err == nil && about.Nattch == 0 {
		unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	}
}
