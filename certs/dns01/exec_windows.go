package dns01

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// killAll has a command end with its context, and with it what it started: Windows knows no process groups, but
// taskkill finds children.
func killAll(cmd *exec.Cmd) {
	cmd.Cancel = func() error {
		taskkill := filepath.Join(os.Getenv("SystemRoot"), "System32", "taskkill.exe")
		if exec.Command(taskkill, "/T", "/F", "/PID", strconv.Itoa(cmd.Process.Pid)).Run() == nil {
			return nil
		}
		return cmd.Process.Kill()
	}
}
