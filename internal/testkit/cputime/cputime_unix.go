//go:build unix

package cputime

import (
	"syscall"
	"time"
)

// Used is what this process has used of processors so far. What else the machine does is not in it.
func Used() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}
