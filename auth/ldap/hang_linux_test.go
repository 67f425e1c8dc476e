package ldap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/auth"
)

// awaitStop waits until all threads of a process stand still: the signal says so to one after the other.
func awaitStop(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); runtime.Gosched() {
		all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		moves := slices.ContainsFunc(all, func(path string) bool {
			stat, err := os.ReadFile(path)
			return err == nil && !strings.Contains(string(stat), ") T ")
		})
		if len(all) > 0 && !moves {
			return
		}
	}
	t.Fatal("it does not stand still")
}

// TestServerThatHangs: it accepts connections and answers nothing.
func TestServerThatHangs(t *testing.T) {
	r := newRig(t)
	o := r.options(r.TLS)
	o.Timeout = time.Second
	s := source(t, o)
	if _, err := s.Verify(t.Context(), "anna", "right"); err != nil {
		t.Fatal(err)
	}
	template := r.options(r.TLS)
	template.BindDN, template.BindPassword, template.BindTemplate = "", "", "uid={login},ou=people,dc=example,dc=com"
	template.Timeout = time.Second
	bound := source(t, template)
	if err := bound.Probe(t.Context()); err != nil {
		t.Errorf("a server that answers: %v", err)
	}
	r.Process().Signal(syscall.SIGSTOP)
	awaitStop(t, r.Process().Pid())
	_, err := s.Verify(t.Context(), "anna", "right")
	if probe := bound.Probe(t.Context()); probe == nil {
		t.Error("a server that hangs passes the probe")
	}
	r.Process().Signal(syscall.SIGCONT)
	if err == nil || errors.Is(err, auth.ErrWrongPassword) {
		t.Errorf("%v", err)
	}
	if _, err := s.Verify(t.Context(), "anna", "right"); err != nil {
		t.Errorf("it goes on: %v", err)
	}
}
