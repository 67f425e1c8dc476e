//go:build unix

package store

import (
	"os"
	"path/filepath"
	"testing"

	"postern/internal/testkit"
)

// Root who runs a command in the directory of the daemon's user gives that user the files that he made, and nothing
// else: not what a link leads to, nor a file that has another name.
func TestRootGivesAwayOnlyWhatItMade(t *testing.T) {
	testkit.NeedRoot(t)
	const nobody = 65534
	root := t.TempDir()
	dir, target := filepath.Join(root, "data"), filepath.Join(root, "target")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	ownerOf := func(path string) int {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return owner(info)
	}
	uses := map[string]func() error{
		"seal.key":  func() error { _, err := openSealer(dir); return err },
		LockName:    func() error { unlock, err := lockFile(filepath.Join(dir, LockName)); return done(unlock, err) },
		"answers.0": func() error { j, err := OpenJournal(dir); return closed(j, err) },
		"answers.1": func() error { j, err := OpenJournal(dir); return closed(j, err) },
	}
	for name, use := range uses {
		path := filepath.Join(dir, name)
		for how, plant := range map[string]func(old, new string) error{"link": os.Symlink, "second name": os.Link} {
			if err := os.WriteFile(target, make([]byte, 32), 0o600); err != nil {
				t.Fatal(err)
			}
			_ = os.Remove(path)
			if err := plant(target, path); err != nil {
				t.Fatal(err)
			}
			_ = use()
			if uid := ownerOf(target); uid != 0 {
				t.Errorf("%s, a %s: its target belongs to %d", name, how, uid)
			}
			_ = os.Remove(path)
			_ = os.Remove(target)
		}
		if err := use(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if uid := ownerOf(path); uid != nobody {
			t.Errorf("%s belongs to %d", name, uid)
		}
	}
}

func done(unlock func(), err error) error {
	if err == nil {
		unlock()
	}
	return err
}

func closed(j *Journal, err error) error {
	if err != nil {
		return err
	}
	return j.Close()
}
