package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What reads a lot beside the daemon leaves processors to mail; what steers mail does not.
func TestCommandsThatYield(t *testing.T) {
	t.Parallel()
	conf := filepath.Join(t.TempDir(), "relay.toml")
	text := "hostname = \"relay.example.com\"\ndata_dir = \"data\"\n[[upstream]]\nname = \"u\"\n" +
		"host = \"smtp.example.net\"\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]int{"trace search anna": 1, "trace --login anna": 1, "stats": 1, "queue list": 0,
		"version": 0} {
		yielded := 0
		root := rootCommandOf(&app{etc: t.TempDir(), yield: func() { yielded++ }})
		root.SetOut(new(strings.Builder))
		root.SetArgs(append(strings.Fields(line), "--config", conf))
		if err := root.ExecuteContext(t.Context()); err != nil && !errors.Is(err, errSilent) { // nothing is found
			t.Errorf("%s: %v", line, err)
		}
		if yielded != want {
			t.Errorf("%s: %d times", line, yielded)
		}
	}
}

// TestYieldToMail lets another process of this test say which priorities its threads have.
func TestYieldToMail(t *testing.T) {
	t.Parallel()
	const variable = "POSTERN_YIELD_TEST"
	if os.Getenv(variable) != "" {
		yieldToMail()
		later := make(chan int)
		for range 20 { // on threads that are started after it
			go func() {
				runtime.LockOSThread()
				p, _ := unix.Getpriority(unix.PRIO_PROCESS, 0)
				later <- 20 - p // the system call's way to return it
			}()
		}
		for range 20 {
			os.Stdout.WriteString("nice " + strconv.Itoa(<-later) + "\n")
		}
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestYieldToMail$")
	cmd.Env = append(os.Environ(), variable+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "nice 19\n") != 20 {
		t.Errorf("%v\n%s", err, out)
	}
}
