package child

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

// ownGroup puts a process into a group of its own, so that a Ctrl-C of the console is not meant for it.
func ownGroup(a *syscall.SysProcAttr, _ syscall.Signal) {
	a.CreationFlags |= windows.CREATE_NEW_PROCESS_GROUP
}

// group is what a process and those that it started are killed by: a job, which ends with us.
type group struct{ job windows.Handle }

// hold puts a process into a new job. It may have started others already, which then are not in it.
func (g *group) hold(p *os.Process) error {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return err
	}
	limits := windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION{}
	limits.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
	_, err = windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits)))
	if err == nil {
		var assigned error
		err = p.WithHandle(func(h uintptr) { assigned = windows.AssignProcessToJobObject(job, windows.Handle(h)) })
		err = errors.Join(err, assigned)
	}
	if err != nil {
		windows.CloseHandle(job)
		_ = p.Kill()
		return err
	}
	g.job = job
	return nil
}

func (g *group) kill(*os.Process) { _ = windows.TerminateJobObject(g.job, 1) }

// signal sends what Windows has instead of signals: Ctrl-Break, which Go's programs take for os.Interrupt.
func signal(p *os.Process, s syscall.Signal) error {
	if s == syscall.SIGKILL {
		return p.Kill()
	}
	err := windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(p.Pid))
	if errors.Is(err, windows.ERROR_INVALID_PARAMETER) {
		return os.ErrProcessDone
	}
	return err
}
