package backup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"postern/relay/seal"
	"postern/relay/store"
)

// The owner of the data directory can give the name of what root collects in to a link, at any time: the store that
// this leads to is neither settled nor read, and nothing that was collected stays behind under another name.
func TestRestoreIsLedNowhere(t *testing.T) {
	h := newHome(t)
	_, plain := h.make(h.options("plain"))
	for _, at := range []string{"write postern.db", "write seal.key", "settle", "settling"} {
		t.Run(at, func(t *testing.T) { ledNowhere(t, h, plain, at) })
	}
}

func ledNowhere(t *testing.T, h *home, backup, at string) {
	base := t.TempDir()
	dir, victim := filepath.Join(base, "new"), filepath.Join(base, "victim")
	h.must(os.Mkdir(dir, 0o700))
	h.must(must(store.Open(t.Context(), store.Options{Dir: victim})).Close())
	state := func() string { // a database in use has other octets, and a log
		return strings.Join(names(t, victim), " ") + string(must(os.ReadFile(filepath.Join(victim, store.FileName))))
	}
	before, read := state(), false
	swap := func(step string) {
		if step == at {
			h.must(errors.Join(os.Rename(filepath.Join(dir, "restoring"), filepath.Join(dir, "away")),
				os.Symlink(victim, filepath.Join(dir, "restoring"))))
		}
	}
	_, err := h.restore(backup, RestoreOptions{SealKey: filepath.Join(h.dir, seal.KeyFile), Dir: dir, step: swap,
		Settle: func(ctx context.Context, s *store.Store, m *Manifest) error {
			swap("settling")
			_, err := s.User(ctx, "anna") // by a connection that is opened for it
			read = err == nil
			return errors.Join(err, s.EndSessions(ctx))
		}})
	if err == nil || !strings.Contains(err.Error(), "has away, restoring now") || !read {
		t.Errorf("%v, read %v", err, read)
	}
	if state() != before {
		t.Error("the other store was touched")
	}
	if left := names(t, dir); !slices.Equal(left, []string{"away"}) {
		t.Errorf("it has %v", left)
	}
}
