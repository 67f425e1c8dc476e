package store

import (
	"context"
	"time"

	"postern/relay/store/internal/db"
)

// Contents at a server are in parts by the hour of receipt, tables of their own, so that what was delivered goes with
// its table and leaves nothing to vacuum. A few messages that wait for days would keep the contents of all that came in
// their hour: from a part that is older than partMoves and has no more than partFew messages, they are moved into the
// part of now.
const (
	partMoves = 6 * time.Hour
	partFew   = 100
)

// DropContents gives back the room of what was delivered, where that is not done at once: at a server. It returns how
// many parts it dropped.
func (s *Store) DropContents(ctx context.Context) (int, error) {
	e, ok := s.engine.(*server)
	if !ok {
		return 0, nil
	}
	n, err := e.dropParts(ctx, s.write)
	return n, wrap(err, "drop contents")
}

// dropParts drops the parts of content that no message needs any more, and returns how many. The part of this hour, and
// those on both sides of it, stay.
func (s *server) dropParts(ctx context.Context, write func(context.Context, func(*tx) error) error) (n int, err error) {
	var parts []int64
	err = s.readers.read(ctx, func(conn db.Conn) error {
		parts, err = list(conn, func(row db.Row) (int64, error) { return row.Int(0), nil }, partsQuery)
		return err
	})
	now := partOf(s.clock.nano(time.Now()))
	for _, part := range parts {
		if err != nil {
			return n, err
		}
		if part >= now-1 {
			continue
		}
		dropped := false
		err = write(ctx, func(t *tx) (err error) {
			dropped, err = s.dropPart(t, part, now)
			return err
		})
		if dropped && err == nil {
			n++
		}
		if db.KindOf(err) == db.Busy {
			err = nil
		}
	}
	return n, err
}

// dropPart drops a part that no message needs, and reports whether it did. Who reads contents is not kept waiting: then
// it comes again. Once it has the lock nobody writes contents there any more, so it looks once more.
func (s *server) dropPart(t *tx, part, now int64) (bool, error) {
	if err := s.moveFew(t, part, now); err != nil {
		return false, err
	}
	used := func() (bool, error) {
		n, _, err := t.Int("SELECT count(*) FROM (SELECT 1 FROM message_body WHERE chunk = ? LIMIT 1) u", part)
		return n > 0, err
	}
	if is, err := used(); err != nil || is {
		return false, err
	}
	if err := t.Run("SELECT set_config('lock_timeout'::text, '500'::text, true)"); err != nil {
		return false, err
	}
	if err := t.Exec("LOCK TABLE " + partTable(part) + " IN ACCESS EXCLUSIVE MODE"); err != nil {
		return false, err
	}
	if is, err := used(); err != nil || is {
		return false, err
	}
	return true, t.Exec("DROP TABLE " + partTable(part))
}

// partsQuery lists the parts that there are.
const partsQuery = `SELECT substr(c.relname::text, 9)::bigint FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
	WHERE i.inhparent = 'content'::regclass ORDER BY 1`

// moveFew moves the contents of the last messages of an old part into the part of now.
func (s *server) moveFew(t *tx, part, now int64) error {
	if now-part < int64(partMoves/time.Hour) {
		return nil
	}
	// An attempt may be reading one.
	leased, _, err := t.Int("SELECT count(*) FROM message_body b JOIN message m ON m.id = b.id WHERE b.chunk = ? AND "+
		"m.lease_until > 0", part)
	if err != nil || leased > 0 {
		return err
	}
	few, err := list(t.Conn, text, "SELECT id FROM message_body WHERE chunk = ? ORDER BY id LIMIT ? FOR UPDATE", part,
		partFew+1)
	if err != nil || len(few) == 0 || len(few) > partFew {
		return err
	}
	if err := s.makePart(t.Conn, now); err != nil {
		return err
	}
	for _, id := range few {
		if err := t.Run("INSERT INTO content SELECT ?, id, n, data FROM content WHERE part = ? AND id = ?", now, part,
			id); err != nil {
			return err
		}
		if err := t.Run("UPDATE message_body SET chunk = ? WHERE id = ?", now, id); err != nil {
			return err
		}
	}
	return nil
}
