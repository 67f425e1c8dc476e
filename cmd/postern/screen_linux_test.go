package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"postern/internal/testkit"
)

// onTerminal runs the postern command on a terminal of so many columns and returns what it shows.
func onTerminal(t *testing.T, columns int, env []string, args ...string) string {
	t.Helper()
	control, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		testkit.Skipf(t, "no terminal can be made here: %v", err)
	}
	defer control.Close()
	fd := int(control.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)})
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		testkit.Skipf(t, "no terminal can be opened here: %v", err)
	}
	cmd := exec.Command(testkit.Binary(t), args...)
	cmd.Env = append(append(os.Environ(), "TERM=xterm", "NO_COLOR="), env...)
	cmd.Stdout, cmd.Stderr = terminal, terminal
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	terminal.Close()
	shown, _ := io.ReadAll(control) // ends with EIO once the command has closed its end
	if err := cmd.Wait(); err != nil {
		t.Errorf("postern %q: %v", args, err)
	}
	return strings.ReplaceAll(string(shown), "\r\n", "\n")
}

func TestListOnATerminal(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	note := "on the second floor, beside the kitchen, behind the door with the broken handle"
	l.ok("user", "add", "anna@example.com", "--sender", "*@example.org", "--note", note)
	for _, columns := range []int{80, 120, 30} {
		text := onTerminal(t, columns, []string{"NO_COLOR=1"}, "user", "list", "--config", l.config)
		if strings.Contains(text, "\x1b") {
			t.Errorf("NO_COLOR: %q", text)
		}
		for line := range strings.Lines(text) {
			if n := columnsOf(strings.TrimRight(line, "\n")); n > columns {
				t.Errorf("%d columns: a line of %d: %q", columns, n, line)
			}
		}
		if !strings.Contains(text, "LOGIN") || !strings.Contains(text, "kitchen") {
			t.Errorf("%d columns:\n%s", columns, text)
		}
	}
	if text := onTerminal(t, 80, nil, "user", "list", "--wide", "--config", l.config); !strings.Contains(text,
		note+"\n") || !strings.Contains(text, "\x1b[32mactive\x1b[0m") {
		t.Errorf("--wide:\n%q", text)
	}
	if text := onTerminal(t, 80, nil, "user", "list", "--json", "--config", l.config); strings.Contains(text, "\x1b") ||
		!strings.Contains(text, note) {
		t.Errorf("--json:\n%q", text)
	}
	if text := l.ok("user", "list"); !strings.Contains(text, note+"\n") || strings.Contains(text, "\x1b") {
		t.Errorf("not on a terminal:\n%q", text)
	}
}
