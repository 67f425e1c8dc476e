package store

import (
	"os/exec"
	"os/signal"
	"syscall"
)

// limitFiles has no file of this process grow beyond a number of octets.
func limitFiles(most uint64) error {
	signal.Ignore(syscall.SIGXFSZ)
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: most, Max: most})
}

// mountSmall mounts a file system that is soon full.
func mountSmall(dir string) (unmount func(), err error) {
	err = syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=48m,mode=0700")
	return func() { syscall.Unmount(dir, syscall.MNT_DETACH) }, err
}

func runAs(cmd *exec.Cmd, uid uint32) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
}
