//go:build unix

package pgserver

import (
	"errors"
	"fmt"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

type credential = syscall.Credential

func runAs(cmd *exec.Cmd, owner *credential) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner}
}

// ErrMissing is what there is where no server can be run.
var ErrMissing = errors.New("no PostgreSQL server is installed on this machine; " +
	"on Debian and Ubuntu: apt install postgresql")

// Tool returns the path of one of PostgreSQL's programs, of its newest version, or ErrMissing. Debian has them where
// nobody looks.
func Tool(name string) (string, error) {
	paths, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	version := func(path string) int {
		n, _ := strconv.Atoi(strings.Split(path, "/")[4])
		return n
	}
	if len(paths) > 0 {
		return slices.MaxFunc(paths, func(a, b string) int { return version(a) - version(b) }), nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", ErrMissing
	}
	return path, nil
}

// unprivileged is the user that PostgreSQL's packages make, or else the one for what is to own nothing.
func unprivileged() (*syscall.Credential, error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}
