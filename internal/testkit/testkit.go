// Package testkit has what end-to-end tests need: certificates, real mail clients, an independent DKIM verifier, and
// the postern binary as a process that can be killed at any moment.
//
// Failure semantics: a helper that cannot do its work fails the test. If a tool is missing, the test is skipped, except
// under CI (CI=true), where a skipped test would look like one that passes. Whatever a helper starts ends with the
// test.
package testkit

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// debianPython has Debian's python3-dkim; another python3 in front of it in PATH usually has not.
const debianPython = "/usr/bin/python3"

// Need returns the path of a tool. "python3-dkim" names Debian's python3 with that package.
func Need(t testing.TB, tool string) string {
	t.Helper()
	path, err := find(tool)
	if err == nil {
		return path
	}
	Skipf(t, "%s is missing: run scripts/test-tools", tool)
	return ""
}

// Skipf skips a test for which this machine lacks something. Under CI that is a failure.
func Skipf(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format+" (under CI no test may be skipped)", args...)
	}
	t.Skipf(format, args...)
}

// NeedRoot skips a test, by Skipf, unless root runs it.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skipf(t, "needs root")
	}
}

// ShortDir returns a directory that other users reach, too, and whose path is short enough for that of a socket in it,
// which that of t.TempDir is not.
func ShortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "postern-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func existing(path string) (string, error) {
	_, err := os.Stat(path)
	return path, err
}

func find(tool string) (string, error) {
	switch tool {
	case "python3-dkim":
		return debianPython, exec.Command(debianPython, "-c", "import dkim").Run()
	case "libmailtools-perl":
		return perl("Mail::Address")
	case "libemail-address-xs-perl":
		return perl("Email::Address::XS")
	case "node-nodemailer":
		return nodemailer, exec.Command("node", "-e", "require('"+nodemailer+"')").Run()
	case "libphp-phpmailer":
		return phpMailer, exec.Command("php", "-r", "require '"+phpMailer+"';").Run()
	case "libssl-dev":
		return existing("/usr/include/openssl/evp.h")
	case "musl-dev":
		specs, err := filepath.Glob("/usr/lib/*-linux-musl/musl-gcc.specs")
		if err != nil || len(specs) == 0 {
			return "", os.ErrNotExist
		}
		return specs[0], nil
	case "bash-completion":
		return existing("/usr/share/bash-completion/bash_completion")
	case "python3":
		if path, err := exec.LookPath(debianPython); err == nil {
			return path, nil
		}
	}
	return exec.LookPath(tool)
}

// The ports of FreePort lie below those that systems give to outgoing connections (from 32768 on Linux, 49152
// elsewhere): a client that dials a server while it restarts would sooner or later get its port, and be connected to
// itself.
const (
	lowestPort = 20000
	ports      = 12000
)

var nextPort = func() *atomic.Uint32 {
	n := new(atomic.Uint32)
	n.Store(rand.Uint32N(ports)) // other test binaries ask at the same time
	return n
}()

// FreePort returns a TCP port on 127.0.0.1 that was free a moment ago, and each only once. It is for servers that run
// as another process and cannot tell which port they took; anything in this process listens on port 0.
func FreePort(t testing.TB) int {
	t.Helper()
	var err error
	for range 100 {
		port := lowestPort + int(nextPort.Add(1)%ports)
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal(err)
	return 0
}

// nodemailer and phpMailer are where Debian has them.
const (
	nodemailer = "/usr/share/nodejs/nodemailer"
	phpMailer  = "/usr/share/php/libphp-phpmailer/autoload.php"
)

func perl(module string) (string, error) {
	path, err := exec.LookPath("perl")
	if err != nil {
		return "", err
	}
	return path, exec.Command(path, "-M"+module, "-e1").Run()
}
