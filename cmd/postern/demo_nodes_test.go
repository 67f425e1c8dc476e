//go:build unix

package main

import (
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/pgserver"
	"postern/internal/testkit"
)

// needServer skips a test where no PostgreSQL is installed.
func needServer(t *testing.T) {
	t.Helper()
	if _, err := pgserver.Tool("postgres"); err != nil {
		testkit.Skipf(t, "%v", err)
	}
}

// wantNothingLeft wants neither files nor processes of a demo that has ended.
func wantNothingLeft(t *testing.T, dir, text string) {
	t.Helper()
	if left, err := filepath.Glob(dir + "/*"); err != nil || len(left) > 0 {
		t.Errorf("%q is left, %v", left, err)
	}
	nodes := regexp.MustCompile(`[Nn]ode \w.*? process (\d+)`).FindAllStringSubmatch(text, -1)
	if len(nodes) < 2 {
		t.Errorf("it names no processes:\n%s", text)
	}
	for _, m := range nodes {
		if pid, err := strconv.Atoi(m[1]); err != nil || syscall.Kill(pid, 0) != syscall.ESRCH {
			t.Errorf("process %s is left, %v", m[1], err)
		}
	}
}

func startDemo(t *testing.T, dir string, args ...string) *testkit.Process {
	t.Helper()
	return testkit.Start(t, []string{"TMPDIR=" + dir}, testkit.Binary(t), append([]string{"demo", "--nodes", "2"},
		args...)...)
}

func TestDemoOfTwoNodes(t *testing.T) {
	needServer(t)
	dir := testkit.ShortDir(t)
	p := startDemo(t, dir, "--once")
	if err := p.Wait(time.Minute); err != nil {
		t.Fatalf("demo --nodes 2 --once: %v\n%s", err, p.Log())
	}
	text := p.Log()
	at := 0
	for _, want := range []string{"Node b is process", "250 2.0.0 queued as",
		`"451 4.7.1 Greylisted, come again later"`,
		"Node a was killed", "Node b sent it", "Every octet that was sent is there", "of example.com verify",
		"The queue is empty", "Done: "} {
		i := strings.Index(text[at:], want)
		if i < 0 {
			t.Fatalf("it does not say %q, in this order:\n%s", want, text)
		}
		at += i
	}
	wantNothingLeft(t, dir, text)
}

// Ctrl-C ends all that the demo has started: when it shows what the upstream takes, and in the middle of its story.
func TestDemoOfTwoNodesIsInterrupted(t *testing.T) {
	needServer(t)
	for name, line := range map[string]string{"at the end": "Ctrl-C ends the demo", "early": "Node b is process"} {
		t.Run(name, func(t *testing.T) {
			dir := testkit.ShortDir(t)
			p := startDemo(t, dir)
			p.WaitLog(line)
			p.Signal(syscall.SIGINT)
			if err := p.Wait(time.Minute); err != nil {
				t.Errorf("%v\n%s", err, p.Log())
			}
			wantNothingLeft(t, dir, p.Log())
		})
	}
}

func TestDemoRefusesOtherNumbersOfNodes(t *testing.T) {
	for _, args := range [][]string{{"--nodes", "0"}, {"--nodes", "3"},
		{"--nodes", "2", "--provider", "microsoft365"}} {
		if out := testkit.Run(t, "", append([]string{"demo", "--once"}, args...)...); out.OK ||
			!strings.Contains(out.Text, "See 'postern demo --help'") {
			t.Errorf("%q: %s", args, out.Text)
		}
	}
}
