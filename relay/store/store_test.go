package store

import (
	"fmt"
	"strings"
	"testing"
)

// What queue.Store promises is tested in relay/queue, for every implementation.

// open opens a store that is closed when the test ends.
func open(t testing.TB, o Options) *Store {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	s, err := Open(t.Context(), at(t, o))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Sizes are told in the unit that their number is in, as relay.toml reads them: "10GB" is not 9536 MB.
func TestFullQueueTellsSizesAsConfigured(t *testing.T) {
	if got := fullQueue(9_999_000_000, 10_000_000_000).Error(); !strings.Contains(got,
		"holds 9999 MB and may hold 10000 MB") {
		t.Error(got)
	}
	s := space{dir: t.TempDir(), floor: 1 << 62}
	err := s.ask(func() (int64, error) { return 0, nil })
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%d MB must stay free", s.floor/1_000_000)) {
		t.Error(err)
	}
}
