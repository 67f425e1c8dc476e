// Package child runs programs that end with this one, in whatever way it ends.
package child

import (
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Process is a program that was started.
type Process struct {
	cmd   *exec.Cmd
	group group
	done  chan struct{} // closed when it has ended
	err   error         // of Wait; read after done
}

// Start starts a command, in a process group of its own: what a terminal sends to us is not sent to it. When we end, if
// only because we are killed, it gets the signal death.
func Start(cmd *exec.Cmd, death syscall.Signal) (*Process, error) {
	p := &Process{cmd: cmd, done: make(chan struct{})}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	ownGroup(cmd.SysProcAttr, death)
	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// run keeps its thread, since the signal comes when the thread that started the process ends.
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.done)
	err := p.cmd.Start()
	if err == nil {
		err = p.group.hold(p.cmd.Process)
	}
	started <- err
	if err == nil {
		p.err = p.cmd.Wait()
	}
}

// Pid returns the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when it has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how it ended, as exec.Cmd's Wait does. It waits for that.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Signal sends a signal; os.ErrProcessDone if it has ended.
func (p *Process) Signal(s syscall.Signal) error { return signal(p.cmd.Process, s) }

// End asks it to end with a signal, kills it with all that it started if it still runs after limit, and returns when it
// is gone.
func (p *Process) End(s syscall.Signal, limit time.Duration) {
	_ = p.Signal(s) // it may have ended
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.Kill()
	}
}

// Kill ends it as a crash would, with SIGKILL, and with it all of its process group. It returns when it is gone.
func (p *Process) Kill() {
	select {
	case <-p.done:
	default: // its process group is still its own
		p.group.kill(p.cmd.Process)
		<-p.done
	}
}
