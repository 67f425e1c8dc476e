package seal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestSeal(t *testing.T) {
	s, err := New(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	plain := []byte(`{"refresh":"x"}`)
	sealed := s.Seal("office", plain)
	if bytes.Contains(sealed, []byte("refresh")) || bytes.Equal(sealed, s.Seal("office", plain)) {
		t.Fatal("not sealed")
	}
	if got, err := s.Open("office", sealed); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := s.Open("other", sealed); !errors.Is(err, ErrDamaged) {
		t.Errorf("opened as something else: %v", err)
	}
	other, err := New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Open("office", sealed); !errors.Is(err, ErrOtherKey) {
		t.Errorf("another key: %v", err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := s.Open("office", bad); err == nil {
			t.Errorf("octet %d changed, and it opens", i)
		}
		if _, err := s.Open("office", sealed[:i]); err == nil {
			t.Errorf("cut to %d octets, and it opens", i)
		}
	}
}

func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	sealed := make([][]byte, 8)
	for i := range sealed { // several processes start for the first time at once
		wg.Go(func() {
			s, err := OpenKey(dir)
			if err != nil {
				t.Error(err)
				return
			}
			sealed[i] = s.Seal("office", []byte("x"))
		})
	}
	wg.Wait()
	s, err := OpenKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range sealed {
		if _, err := s.Open("office", sealed[i]); err != nil {
			t.Errorf("process %d has another key: %v", i, err)
		}
	}
	path := filepath.Join(dir, KeyFile)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != 32 {
		t.Errorf("%v, %v", info, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}

	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKey(dir); err == nil {
		t.Error("a key that others can read is taken")
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKey(dir); err == nil {
		t.Error("a short key is taken, or made anew over the old")
	}
	if _, err := OpenKey(filepath.Join(dir, "none")); err == nil {
		t.Error("no data_dir")
	}
}

// A key that sealed consents under its old name goes on sealing.
func TestOldKeyFile(t *testing.T) {
	dir := t.TempDir()
	key := bytes.Repeat([]byte{9}, 32)
	if err := os.WriteFile(filepath.Join(dir, OldKeyFile), key, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := OpenKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	same, err := New(key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Open("x", same.Seal("x", []byte("y"))); err != nil || string(got) != "y" {
		t.Errorf("%q, %v", got, err)
	}
}
