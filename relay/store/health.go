package store

import (
	"context"
	"errors"
	"slices"

	"postern/relay/store/internal/db"
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
	brief := context.WithoutCancel(ctx) // a few pages, whatever is left of the time
	err = s.lookups.read(brief, func(conn db.Conn) error {
		c, err := readCounters(conn, s.engine.layout())
		h.Events, h.History = c.events, c.history
		return err
	})
	if err != nil {
		return h, wrap(err, "look at the store")
	}
	err = s.engine.examine(ctx, &h)
	if ctx.Err() != nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		h.Damage = nil
		return h, nil
	}
	if db.KindOf(err) == db.Damaged {
		h.Damage, err = []string{err.Error()}, nil
	}
	h.Damage = slices.DeleteFunc(h.Damage, func(text string) bool { return text == "ok" })
	h.Whole = err == nil
	return h, wrap(err, "check the store")
}
