package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"postern/internal/testkit"
)

// The lock of a file has one name for all who have it one after the other. What could be locked beside it has another.
func TestLockName(t *testing.T) {
	path := filepath.Join(t.TempDir(), LockName)
	take := func(path string) (unlock func(), name string) {
		t.Helper()
		unlock, name, err := lockNamed(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(unlock)
		if len(name) != 16 {
			t.Fatalf("it is named %q", name)
		}
		return unlock, name
	}
	unlock, first := take(path)
	unlock()
	_, again := take(path)
	if again != first {
		t.Errorf("%s, and then %s", first, again)
	}
	if _, _, err := lockNamed(path); !errors.Is(err, ErrLocked) {
		t.Errorf("it is to be had twice: %v", err)
	}
	copied := path + ".copy"
	copyFile(t, path, copied)
	if _, name := take(copied); name == first {
		t.Error("a copy has the name of the original")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, name := take(path); name == first { // the first is held still, by a file without a name
		t.Error("a file in the place of one that is locked has its name")
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestBootID(t *testing.T) {
	const dashed, plain = "203bfb62-1a20-4b6e-b63d-322c597843a4", "203bfb621a204b6eb63d322c597843a4"
	dir := t.TempDir()
	write := func(text string) string {
		path := filepath.Join(dir, "boot_id")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	none := filepath.Join(dir, "none")
	if id := bootID(bootFile, ""); len(id) != 32 {
		t.Errorf("this kernel says %q", id)
	}
	file, told := bootID(write(dashed+"\n"), "0123456789abcdef0123456789abcdef"), bootID(none, plain)
	if file != plain || told != plain {
		t.Errorf("a file says %q, systemd %q", file, told)
	}
	for _, told := range []string{"", "%b", plain[1:], plain + "0", plain[1:] + "g",
		"00000000-0000-0000-0000-000000000000"} {
		if id := bootID(none, told); id != "" {
			t.Errorf("%q is taken for %s", told, id)
		}
	}
	if id := bootID(write("not known\n"), plain); id != "" {
		t.Errorf("the file says nothing, and it is taken for %s", id)
	}
}

// Two processes of one name that live never lease under one name, not even with a copy of the data directory. Those of
// one data directory do, one after the other.
func TestSoleOwner(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	a, b := ofServer(t, url, "a", true), ofServer(t, url, "a", true)
	first := open(t, a)
	for _, name := range []string{LockName, nodeHome} {
		copyFile(t, filepath.Join(a.Dir, name), filepath.Join(b.Dir, name))
	}
	second := open(t, b)
	if first.Owner() != second.Owner() || first.SoleOwner() == second.SoleOwner() {
		t.Errorf("%s and %s live, %s and %s", first.SoleOwner(), second.SoleOwner(), first.Owner(), second.Owner())
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if again := open(t, a); again.SoleOwner() != first.SoleOwner() {
		t.Errorf("%s comes after %s", again.SoleOwner(), first.SoleOwner())
	}
	second.lock = "" // the kernel does not say which it is
	if second.SoleOwner() != second.Owner()+"/"+second.member.boot {
		t.Errorf("it is %s", second.SoleOwner())
	}
}
