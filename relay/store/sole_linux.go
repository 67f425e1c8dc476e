package store

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// bootEnv is where the service manager says what bootFile does: systemd hides that file from the service.
const (
	bootEnv  = "POSTERN_BOOT_ID"
	bootFile = "/proc/sys/kernel/random/boot_id"
)

// lockName names a lock that we have: the file, and the kernel since it booted. That kernel gives it to one process at
// a time, so whoever had a lock of this name before has ended, and the kernel has closed its connections. A copy of the
// file has another name, as has the same disk at another machine, or after a reboot. "": the kernel does not say which
// it is.
func lockName(f *os.File) string {
	var file unix.Stat_t
	boot := bootID(bootFile, os.Getenv(bootEnv))
	if boot == "" || unix.Fstat(int(f.Fd()), &file) != nil {
		return ""
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", boot, file.Dev, file.Ino))
	return base32.StdEncoding.EncodeToString(sum[:10])
}

// bootID is 32 hexadecimal digits that no other kernel has, nor this one after a reboot: what a file says, or else what
// we were told. "": neither does.
func bootID(path, told string) string {
	if b, err := os.ReadFile(path); err == nil {
		told = string(b)
	}
	id := strings.ReplaceAll(strings.TrimSpace(told), "-", "")
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" || strings.Trim(id, "0") == "" {
		return ""
	}
	return id
}
