package child

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// start runs a shell script that says when it is ready.
func start(t *testing.T, script string) *Process {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Start(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	return p
}

func TestEnd(t *testing.T) {
	for _, c := range []struct {
		name, trap string
		limit      time.Duration
		want       string
	}{
		{"what obeys", "exit 3", time.Minute, "exit status 3"},
		{"what does not", "", time.Millisecond, "signal: killed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := start(t, "trap '"+c.trap+"' TERM; echo ready; while :; do sleep 0.01; done")
			p.End(syscall.SIGTERM, c.limit)
			if err := p.Err(); err == nil || err.Error() != c.want {
				t.Errorf("%v, want %s", err, c.want)
			}
			p.Kill() // nothing is left
		})
	}
}

func TestStartOfNothing(t *testing.T) {
	if _, err := Start(exec.Command("/nonexistent"), syscall.SIGKILL); err == nil {
		t.Error("no error")
	}
}

// A process ends with the one that started it, if that is killed.
func TestEndsWithUs(t *testing.T) {
	if os.Getenv("CHILD_DIES") != "" {
		start(t, "echo ready; exec sleep 3600")
		fmt.Fprintln(os.Stderr, "started")
		select {}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestEndsWithUs$")
	cmd.Env, cmd.Stderr = append(os.Environ(), "CHILD_DIES=1"), w
	p, err := Start(cmd, syscall.SIGKILL)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	if line, err := bufio.NewReader(r).ReadString('\n'); line != "started\n" {
		t.Fatalf("%q, %v", line, err)
	}
	p.Kill()
	if _, err := io.Copy(io.Discard, r); err != nil { // until nobody has its other end
		t.Error(err)
	}
}
