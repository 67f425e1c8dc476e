package testkit

import (
	"io/fs"
	"os"
	"syscall"
)

// What is of use for servers only, which no test runs on Windows (pgserver.ErrMissing), does nothing here.
const (
	noFollow = 0
	goOn     = syscall.Signal(0x12)
)

func halt(int) {}

func kill(pid int) {
	if p, err := os.FindProcess(pid); err == nil {
		p.Kill()
	}
}

func isOurs(fs.FileInfo) bool { return true }

func removeMemory(int) {}
