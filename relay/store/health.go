package store

import (
	"context"
	"errors"
	"os"
	"slices"

	"postern/relay/store/internal/sqlite"
)

// Health is how the file is. Sizes are in octets.
type Health struct {
	Damage []string // what is damaged; the first of it
	Whole  bool     // all of the file was read: time sufficed
	File   int64    // the database file
	Log    int64    // the write-ahead log beside it
	Within int64    // free pages inside the file

	Events, History int64 // of the trace: how many, and how much of the file
}

// Health reads the file and says what is damaged, without changing anything and beside everything else. It reads all of
// it unless ctx ends before; then Whole is false, and what was found by then is not known.
func (s *Store) Health(ctx context.Context) (h Health, err error) {
	h.File, h.Log = sizeOf(s.path), sizeOf(s.path+"-wal")
	brief := context.WithoutCancel(ctx) // some pages, whatever is left of the time
	err = s.lookups.read(brief, func(conn *sqlite.Conn) error {
		c, err := readCounters(conn)
		h.Events, h.History = c.events, c.history
		return err
	})
	if err == nil {
		h.Within, err = s.freePages(brief)()
	}
	if err != nil {
		return h, wrap(err, "look at the store")
	}
	h.Damage, err = readAll(ctx, s.lookups, text, "PRAGMA quick_check(20)")
	if ctx.Err() != nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		h.Damage = nil
		return h, nil
	}
	if sqlite.CodeOf(err) == sqlite.Corrupt {
		h.Damage, err = []string{err.Error()}, nil
	}
	h.Damage = slices.DeleteFunc(h.Damage, func(text string) bool { return text == "ok" })
	h.Whole = err == nil
	return h, wrap(err, "check the store")
}

func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
