package oauth

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestSeal(t *testing.T) {
	s := testSealer()
	plain := []byte(`{"refresh":"x"}`)
	sealed := s.Seal("office", plain)
	if bytes.Contains(sealed, []byte("refresh")) || bytes.Equal(sealed, s.Seal("office", plain)) {
		t.Fatal("not sealed")
	}
	if got, err := s.Open("office", sealed); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := s.Open("other", sealed); !errors.Is(err, ErrDamaged) {
		t.Errorf("opened for another upstream: %v", err)
	}
	other, err := NewSealer(make([]byte, 32))
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
			s, err := OpenSealer(dir)
			if err != nil {
				t.Error(err)
				return
			}
			sealed[i] = s.Seal("office", []byte("x"))
		})
	}
	wg.Wait()
	s, err := OpenSealer(dir)
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
	if _, err := OpenSealer(dir); err == nil {
		t.Error("a key that others can read is taken")
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSealer(dir); err == nil {
		t.Error("a short key is taken, or made anew over the old")
	}
	if _, err := OpenSealer(filepath.Join(dir, "none")); err == nil {
		t.Error("no data_dir")
	}
}
