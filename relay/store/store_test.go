package store

import (
	"testing"

	"postern/relay/queue"
	"postern/relay/queue/storetest"
)

// open opens a store that is closed when the test ends.
func open(t testing.TB, o Options) *SQLite {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	s, err := Open(t.Context(), o)
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

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) queue.Store { return open(t, Options{Daemon: true}) })
}
