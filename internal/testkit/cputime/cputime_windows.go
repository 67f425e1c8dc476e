package cputime

import (
	"time"

	"golang.org/x/sys/windows"
)

// Used is what this process has used of processors so far. What else the machine does is not in it.
func Used() (time.Duration, error) {
	var began, ended, kernel, user windows.Filetime
	err := windows.GetProcessTimes(windows.CurrentProcess(), &began, &ended, &kernel, &user)
	ticks := func(f windows.Filetime) int64 { return int64(f.HighDateTime)<<32 | int64(f.LowDateTime) } // of 100 ns
	return time.Duration((ticks(kernel) + ticks(user)) * 100), err
}
