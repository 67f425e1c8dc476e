package testkit

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/internal/pgserver"
)

const pgTail = 100 // lines of its log that a failed test shows

// pgServer is the processes and files of a server, whoever uses it.
type pgServer struct {
	t       testing.TB // that started it
	dir     *pgDirectory
	port    int
	process *Process
}

func newPGServer(t testing.TB, parent string) *pgServer {
	t.Helper()
	return &pgServer{t: t, dir: newPGDirectory(t, parent), port: FreePort(t)}
}

// conf keeps fsync as users have it: the relay looks at it. WAL is kept for standbys that come later. A server that is
// killed leaves nothing in /dev/shm.
func (s *pgServer) conf() string {
	return fmt.Sprintf(`
listen_addresses = '%s'
port = %d
unix_socket_directories = '%s'
max_connections = 200
shared_buffers = 64MB
wal_keep_size = 64MB
max_wal_size = 512MB
dynamic_shared_memory_type = mmap
jit = off
log_line_prefix = '%%m [%%p] %%q%%u@%%d '
lc_messages = 'C'
`, pgHost, s.port, s.dir.Path)
}

func (s *pgServer) launch() {
	s.t.Helper()
	s.process = launch(s.t, pgserver.EndSignal, s.dir.Command(pgTool(s.t, "postgres"), "-D", s.dir.Data()))
	s.process.WaitLog(`database system is ready to accept`)
}

func (s *pgServer) running() bool {
	if s.process == nil {
		return false
	}
	select {
	case <-s.process.done:
		return false
	default:
		return true
	}
}

// kill leaves no process: the others would notice that the first is gone, but later.
func (s *pgServer) kill() {
	if !s.running() {
		return
	}
	pid := s.process.Pid()
	halt(pid) // it starts no other
	children := childrenOf(pid)
	for _, child := range children {
		kill(child)
	}
	kill(pid)
	<-s.process.done
	for _, child := range children {
		waitGone(child)
	}
}

func (s *pgServer) tail() string {
	if s.process == nil {
		return ""
	}
	lines := strings.Split(s.process.Log(), "\n")
	return strings.Join(lines[max(0, len(lines)-pgTail):], "\n")
}

func (s *pgServer) cleanup() {
	if s.t.Failed() {
		s.t.Logf("the end of PostgreSQL's log:\n%s", s.tail())
	}
	s.end()
}

// end ends it without a checkpoint and removes its files.
func (s *pgServer) end() {
	if s.running() {
		s.process.Signal(pgserver.EndSignal)
		s.process.Signal(goOn) // a test may have stopped it
		if s.process.Wait(stopTime) != nil {
			s.kill()
		}
	}
	s.dir.remove()
}

// childrenOf returns the processes that one has started.
func childrenOf(pid int) []int {
	var children []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		if fields := statOf(path); len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			if child, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
				children = append(children, child)
			}
		}
	}
	return children
}

// waitGone waits for a process that is not ours.
func waitGone(pid int) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !gone(pid) {
		<-tick.C
	}
}

// gone says that a process has ended, whether or not anybody has asked for its exit status.
func gone(pid int) bool {
	fields := statOf(fmt.Sprintf("/proc/%d/stat", pid))
	return len(fields) == 0 || fields[0] == "Z" || fields[0] == "X"
}

// statOf returns the fields of proc_pid_stat(5) from the state on, which is followed by the parent; none if there is no
// such process.
func statOf(path string) []string {
	text, _ := os.ReadFile(path)
	return strings.Fields(string(text[1+strings.LastIndexByte(string(text), ')'):]))
}

// removeSegment removes the shared memory of a server that was killed, which the next one of the same directory would
// do. That of a server which ends itself is gone, and so is its postmaster.pid.
func removeSegment(data string) {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return
	}
	lines := strings.Split(string(text), "\n") // pid, data, start, port, sockets, addresses, key and id of the segment
	if len(lines) < 7 {
		return
	}
	fields := strings.Fields(lines[6])
	if len(fields) < 2 {
		return
	}
	id, err := strconv.Atoi(fields[1])
	if err != nil {
		return
	}
	removeMemory(id)
}
