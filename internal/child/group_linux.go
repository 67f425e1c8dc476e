package child

import (
	"os"
	"syscall"
)

// ownGroup puts a process into a group of its own, which gets a signal when the thread that started it ends.
func ownGroup(a *syscall.SysProcAttr, death syscall.Signal) { a.Pdeathsig, a.Setpgid = death, true }

// group is what a process and those that it started are killed by: its process group.
type group struct{}

func (group) hold(*os.Process) error { return nil }

func (group) kill(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }

func signal(p *os.Process, s syscall.Signal) error { return p.Signal(s) }
