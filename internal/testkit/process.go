package testkit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postern/internal/child"
)

const (
	startTime = time.Minute // for a line that a process is expected to log
	stopTime  = time.Minute // from SIGTERM to the end
	keepLines = 20000       // of a process's log
)

// binary is the postern command, built once per test run; with -race if the tests are.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "postern-testkit-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "postern")
	args := []string{"build", "-o", path}
	if Race {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "postern/cmd/postern")...).CombinedOutput()
	if err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("build postern: %w\n%s", err, out)
	}
	built = dir
	return path, nil
})

// built is the directory of the binary, once there is one. Written under binary's Once.
var built string

// Main runs the tests of a package that uses Binary or SharedPostgreSQL and removes what they left for all:
//
//	func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }
func Main(m *testing.M) int {
	shared.allow()
	code := m.Run()
	shared.end()
	if built != "" {
		os.RemoveAll(built)
	}
	return code
}

// Binary returns the path of the postern command.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Run runs postern to its end with the given standard input.
func Run(t testing.TB, stdin string, args ...string) Output {
	t.Helper()
	return run(t, []byte(stdin), nil, Binary(t), args...)
}

// Process is a running command. The test ends it if nothing else has.
type Process struct {
	t    testing.TB
	name string
	*child.Process
	done chan struct{} // closed when it has ended and its output is read

	mu      sync.Mutex
	lines   []string
	dropped int
	changed chan struct{} // closed and replaced with every line
}

// Postern starts postern with arguments, for instance "serve", "--config", path.
func Postern(t testing.TB, args ...string) *Process {
	t.Helper()
	return Start(t, nil, Binary(t), args...)
}

// Start starts a command; env is added to the environment. Both outputs become its log. It dies with
// the test binary even if that is killed.
func Start(t testing.TB, env []string, path string, args ...string) *Process {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), env...)
	p := launch(t, syscall.SIGKILL, cmd)
	t.Cleanup(p.cleanup)
	return p
}

// launch starts a command that the caller ends, and which gets the signal death if the test binary ends.
func launch(t testing.TB, death syscall.Signal, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{t: t, name: filepath.Base(cmd.Path), done: make(chan struct{}), changed: make(chan struct{})}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	p.Process, err = child.Start(cmd, death)
	w.Close()
	if err != nil {
		r.Close()
		t.Fatalf("start %s: %v", p.name, err)
	}
	go func() {
		defer close(p.done)
		defer r.Close()
		p.read(r)
		<-p.Done()
	}()
	return p
}

func (p *Process) read(r io.Reader) {
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := in.ReadString('\n')
		if line != "" {
			p.add(strings.TrimRight(line, "\r\n"))
		}
		if err != nil {
			return
		}
	}
}

func (p *Process) add(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lines) == keepLines {
		p.lines = append(p.lines[:0], p.lines[keepLines/2:]...)
		p.dropped += keepLines / 2
	}
	p.lines = append(p.lines, line)
	close(p.changed)
	p.changed = make(chan struct{})
}

// Log returns what the process wrote so far.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// WaitLog waits until a line of the log matches and returns its submatches. The test fails when the
// process ends before, or after a minute.
func (p *Process) WaitLog(pattern string) []string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	ctx, cancel := context.WithTimeout(p.t.Context(), startTime)
	defer cancel()
	for from, ended := 0, false; ; {
		match, next, changed := p.search(re, from)
		if match != nil {
			return match
		}
		if from = next; ended {
			p.t.Fatalf("%s ended (%v) without a line like %q:\n%s", p.name, p.Err(), pattern, p.Log())
		}
		select {
		case <-changed:
		case <-p.done:
			ended = true // one more look: the line may have come with the end
		case <-ctx.Done():
			p.t.Fatalf("%s: no line like %q: %v\n%s", p.name, pattern, ctx.Err(), p.Log())
		}
	}
}

// search looks at the lines from number from on, counted since the start.
func (p *Process) search(re *regexp.Regexp, from int) (match []string, next int, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.lines[max(0, from-p.dropped):] {
		if match := re.FindStringSubmatch(line); match != nil {
			return match, 0, nil
		}
	}
	return nil, p.dropped + len(p.lines), p.changed
}

// Kill ends the process as a crash would, with SIGKILL, and waits until it is gone.
func (p *Process) Kill() {
	p.t.Helper()
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// Stop asks the process to end with SIGTERM and waits; the test fails if it does not end in time or
// not with exit status 0.
func (p *Process) Stop() {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	if err := p.Wait(stopTime); err != nil {
		p.t.Errorf("%s after SIGTERM: %v\n%s", p.name, err, p.Log())
	}
}

// Signal sends a signal; to a process that has ended it does nothing.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("signal %s: %v", p.name, err)
	}
}

// Wait waits for the end of the process and returns its exit error.
func (p *Process) Wait(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	select {
	case <-p.done:
		return p.Err()
	case <-ctx.Done():
		return fmt.Errorf("still running after %v", limit)
	}
}

// cleanup ends what still runs, with its children, and reports data races and panics, which must
// not pass unseen whatever the test looked at.
func (p *Process) cleanup() {
	select {
	case <-p.done:
	default:
		p.Process.Kill()
		<-p.done
	}
	log := p.Log()
	if strings.Contains(log, "WARNING: DATA RACE") || strings.Contains(log, "\npanic: ") ||
		strings.Contains(log, "\nfatal error: ") {
		p.t.Errorf("%s crashed or raced:\n%s", p.name, log)
	} else if p.t.Failed() {
		p.t.Logf("log of %s:\n%s", p.name, log)
	}
}
