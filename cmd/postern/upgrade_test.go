//go:build unix

package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"postern/internal/testkit"
	relaystore "postern/relay/store"
)

// olderStore is a command line whose store is of a Postern from before the first release, which made it with `user
// add`, `dkim add` and `console invite`.
func olderStore(t *testing.T) (l *commandLine, path string) {
	t.Helper()
	l = newCommandLine(t)
	l.store.Close()
	dir := filepath.Join(l.dir, "data")
	path = filepath.Join(dir, relaystore.FileName)
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	const from = "../../relay/store/testdata/schema32"
	store := testkit.Unzip(t, filepath.Join(from, "postern.db.gz"))
	key, err := os.ReadFile(filepath.Join(from, "seal.key"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{path: store, filepath.Join(dir, "seal.key"): key} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return l, path
}

// What only looks leaves an older store as it is and says what the next start does.
func TestLookingChangesNoOlderStore(t *testing.T) {
	l, path := olderStore(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const older = "the store is of an older Postern (schema 32): the next start of this one"
	if said := l.ok("check"); !strings.Contains(said, "warning: ") || !strings.Contains(said, older) ||
		!strings.Contains(said, "make a backup before") {
		t.Error(said)
	}
	if said, _, _ := l.run("doctor", "--only", "store"); !strings.Contains(said, older) ||
		!strings.Contains(said, "[store-older]") {
		t.Error(said)
	}
	if said, _, _ := l.run("doctor"); strings.Contains(said, "upstream-untested") {
		t.Error(said)
	}
	if said, _, _ := l.run("status"); !strings.Contains(said, older) {
		t.Error(said)
	}
	if _, _, err := l.run("backup", filepath.Join(l.dir, "b")); err == nil || !strings.Contains(err.Error(), older) ||
		!strings.Contains(err.Error(), "with the program that has used it") {
		t.Error(err)
	}
	if said := l.ok("__complete", "user", "show", ""); strings.Contains(said, "anna") {
		t.Error(said)
	}
	for _, args := range [][]string{{"user", "list"}, {"queue", "list"}, {"trace"}, {"dkim", "list"},
		{"upstream", "test", "provider"}, {"user", "lock", "anna@example.com"}} {
		if _, _, err := l.run(args...); err == nil || !strings.Contains(err.Error(), older) {
			t.Errorf("%q: %v", args, err)
		}
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the store has changed (%v)", err)
	}
}

// Commands work on an older store once the daemon has brought it up to date.
func TestCommandOnOlderStore(t *testing.T) {
	l, path := olderStore(t)
	daemon, err := os.OpenFile(filepath.Join(filepath.Dir(path), relaystore.LockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer daemon.Close()
	if err := unix.Flock(int(daemon.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"user", "list"}, {"queue", "list"}, {"trace"},
		{"user", "lock", "anna@example.com"}} {
		if _, _, err := l.run(args...); err == nil || !strings.Contains(err.Error(),
			"the store is of an older Postern (schema 32), which still runs; this is v") ||
			!strings.Contains(err.Error(), "systemctl restart postern") {
			t.Errorf("%q: %v", args, err)
		}
	}
	daemon.Close()
	s, err := relaystore.Open(t.Context(), relaystore.Options{Dir: filepath.Dir(path), Daemon: true})
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if said := l.ok("user", "list"); !strings.Contains(said, "anna@example.com") {
		t.Error(said)
	}
	if said := l.ok("dkim", "list"); strings.Count(said, "example.com") < 2 {
		t.Error(said)
	}
	l.store, err = relaystore.Open(t.Context(), relaystore.Options{Dir: filepath.Dir(path)})
	if err != nil {
		t.Fatal(err)
	}
	if !l.verifies("anna@example.com", "correct horse battery") {
		t.Error("the password is not hers any more")
	}
}
