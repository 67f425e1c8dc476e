//go:build unix

package run

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// clockTick is the unit of times in /proc/PID/stat. Linux has long reported 100 per second whatever the kernel's own
// rate.
const clockTick = 10 * time.Millisecond

// Group is the processes of one system under test: their CPU time, their memory, and a reliable way to end them. It
// uses a control group if it can make one, else it adds up the descendants of the processes that it started.
type Group struct {
	dir   string // of the control group, "" without one
	v2    bool
	roots []int // without a control group
	ends  []func()
}

var groupNumber atomic.Int64

// NewGroup makes an empty group.
func NewGroup() *Group {
	name := fmt.Sprintf("postern-bench-%d-%d", os.Getpid(), groupNumber.Add(1))
	for _, parent := range []string{"/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup"} {
		dir := filepath.Join(parent, name)
		v2 := parent == "/sys/fs/cgroup"
		if _, err := os.Stat(filepath.Join(parent, "cgroup.procs")); err != nil || os.Mkdir(dir, 0o755) != nil {
			continue
		}
		return &Group{dir: dir, v2: v2}
	}
	return &Group{}
}

// Command returns a command whose process, with everything it starts, belongs to the group.
func (g *Group) Command(path string, args ...string) *exec.Cmd {
	if g.dir == "" {
		return exec.Command(path, args...)
	}
	const join = `echo $$ > "$0/cgroup.procs" && exec "$@"`
	return exec.Command("/bin/sh", append([]string{"-c", join, g.dir, path}, args...)...)
}

// Add adds a process to the group. Only groups without a control group need it, for processes that have left their
// parent.
func (g *Group) Add(pid int) { g.roots = append(g.roots, pid) }

// Adopt takes in a process that was started elsewhere, with what it has started.
func (g *Group) Adopt(pid int) error {
	if g.dir == "" {
		g.Add(pid)
		return nil
	}
	for _, p := range descendants([]int{pid}) {
		err := os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), []byte(strconv.Itoa(p)), 0o644)
		if err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}

// AtEnd has Kill call what ends processes of the group in an orderly way, first.
func (g *Group) AtEnd(end func()) { g.ends = append(g.ends, end) }

// Pids returns the living processes.
func (g *Group) Pids() []int {
	if g.dir == "" {
		return descendants(g.roots)
	}
	data, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []int
	for line := range strings.Lines(string(data)) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// CPU returns the CPU time of the group, including ended processes.
func (g *Group) CPU() (time.Duration, error) {
	switch {
	case g.dir == "":
		return treeCPU(g.Pids())
	case g.v2:
		return cpuStat(filepath.Join(g.dir, "cpu.stat"))
	}
	data, err := os.ReadFile(filepath.Join(g.dir, "cpuacct.usage"))
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return time.Duration(n), err
}

func cpuStat(path string) (time.Duration, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("%s: no usage_usec", path)
}

// Memory is the memory of the living processes, in octets.
type Memory struct {
	PSS int64 // counts shared pages in part, so that the sum over processes is their cost
	RSS int64
}

// Memory adds up the memory of the group.
func (g *Group) Memory() (Memory, error) {
	var m Memory
	for _, pid := range g.Pids() {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // has ended
		}
		if err != nil {
			return m, err
		}
		m.PSS += field(data, "Pss:") << 10
		m.RSS += field(data, "Rss:") << 10
	}
	return m, nil
}

func field(data []byte, name string) int64 {
	s := bufio.NewScanner(bytes.NewReader(data))
	for s.Scan() {
		if f := strings.Fields(s.Text()); len(f) >= 2 && f[0] == name {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}

// Kill kills every process of the group and returns when none is left.
func (g *Group) Kill() error {
	for _, end := range g.ends {
		end()
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		pids := g.Pids()
		if len(pids) == 0 {
			return g.remove()
		}
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return fmt.Errorf("processes %v do not end", g.Pids())
}

func (g *Group) remove() error {
	if g.dir == "" {
		return nil
	}
	return os.Remove(g.dir)
}

// procStat is the part of /proc/PID/stat that we use.
type procStat struct {
	pid, parent int
	cpu         time.Duration // own and of children that have ended
}

func readStat(pid int) (procStat, bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, false
	}
	rest := string(data[bytes.LastIndexByte(data, ')')+1:]) // the name may contain anything
	f := strings.Fields(rest)
	if len(f) < 15 || f[0] == "Z" {
		return procStat{}, false
	}
	s := procStat{pid: pid}
	s.parent, _ = strconv.Atoi(f[1])
	for _, v := range f[11:15] { // utime, stime, cutime, cstime
		n, _ := strconv.ParseInt(v, 10, 64)
		s.cpu += time.Duration(n) * clockTick
	}
	return s, true
}

// descendants returns the living processes among roots and everything they started.
func descendants(roots []int) []int {
	children := map[int][]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if s, ok := readStat(pid); ok {
				children[s.parent] = append(children[s.parent], pid)
			}
		}
	}
	var all []int
	seen := map[int]bool{}
	for todo := append([]int(nil), roots...); len(todo) > 0; todo = todo[1:] {
		pid := todo[0]
		if seen[pid] {
			continue
		}
		seen[pid] = true
		if _, ok := readStat(pid); ok {
			all = append(all, pid)
		}
		todo = append(todo, children[pid]...)
	}
	return all
}

func treeCPU(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		if s, ok := readStat(pid); ok {
			sum += s.cpu
		}
	}
	return sum, nil
}
