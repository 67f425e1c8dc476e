package main

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// niceness of commands that read a lot beside the daemon: where processors are short, mail gets seventy times as much.
const niceness = 19

// yieldToMail gives all threads of this process, and those that they start, a low priority. It is a courtesy: where it
// is forbidden, nothing is lost.
func yieldToMail() {
	threads, _ := os.ReadDir("/proc/self/task")
	for _, t := range threads {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, tid, niceness)
		}
	}
}
