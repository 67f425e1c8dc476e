//go:build unix

package dns01

import (
	"os/exec"
	"syscall"
)

// killAll gives a command its own process group, which ends with its context.
func killAll(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
