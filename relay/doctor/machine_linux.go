package doctor

import "golang.org/x/sys/unix"

// clockSynchronised asks the kernel whether something disciplines the clock (adjtimex(2)).
func clockSynchronised() (synchronised, known bool) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return false, false
	}
	return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, true
}
