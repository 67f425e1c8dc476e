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
		err = write(ctx, func(t *tx) error {
			if err := s.moveFew(t, part, now); err != nil {
				return err
			}
			used, _, err := t.Int("SELECT count(*) FROM (SELECT 1 FROM message_body WHERE chunk = ? LIMIT 1) u", part)
			if err != nil || used > 0 {
				return err
			}
			n++
			// Who reads contents is not kept waiting: this comes again.
			if err := t.Run("SELECT set_config('lock_timeout'::text, '500'::text, true)"); err != nil {
				return err
			}
			return t.Exec("DROP TABLE " + partTable(part))
		})
		if db.KindOf(err) == db.Busy {
			err = nil
			n--
		}
	}
	return n, err
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
