package rights

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The SID of TrustedInstaller is Microsoft's own example of one that follows from the name.
func TestServiceSID(t *testing.T) {
	const want = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
	if got := serviceSID("TrustedInstaller"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if serviceSID("postern") != serviceSID("Postern") {
		t.Error("the name of a service has no case")
	}
}

// What we make is for us alone, and what others may read says so and how to mend it.
func TestPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "above", "data")
	if err := MkdirAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := Mkdir(dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a directory that is there: %v", err)
	}
	path := filepath.Join(dir, "secret")
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("x"); err != nil {
		t.Error(err)
	}
	f.Close()
	if _, err := Create(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a file that is there: %v", err)
	}
	for _, p := range []string{dir, path} {
		if r, err := Of(p); err != nil || r.Open || r.AnyoneReads {
			t.Errorf("%s: %v (%+v), %v", p, r, r, err)
		}
	}
	open := filepath.Join(t.TempDir(), "open")
	if err := os.WriteFile(open, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	everybodyReads(t, open)
	r, err := Of(open)
	if err != nil || !r.AnyoneReads || r.OthersWrite || !strings.Contains(r.Command("o-rwx", open), open) {
		t.Errorf("%v (%+v), %v", r, r, err)
	}
}
