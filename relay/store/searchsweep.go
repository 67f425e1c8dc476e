package store

import (
	"context"
	"math"
	"slices"
	"time"

	"postern/relay/store/internal/db"
)

// sweep removes some rows of segments that are not there any more, or that a crash left unfinished.
func (x *Indexer) sweep(ctx context.Context, _ time.Time, _ bool) (bool, error) {
	var left []leftover
	state, err := x.look(ctx, func(conn db.Conn, state searchState) (err error) {
		if state.epoch != x.swept {
			left, err = leftovers(conn)
		}
		return err
	})
	if err != nil {
		return false, err
	}
	if len(left) == 0 {
		x.swept = state.epoch
		return false, nil
	}
	return true, x.write(ctx, state.epoch, func(t *tx, _ searchState) error {
		for _, l := range left {
			if err := t.Run("DELETE FROM "+l.table+" WHERE n = ?", l.key); err != nil {
				return err
			}
		}
		return nil
	})
}

// leftover is a row of no segment.
type leftover struct {
	table string
	key   int64
}

// leftovers looks for up to sweepRows of them: in each table, between the rows of any two segments.
func leftovers(conn db.Conn) (left []leftover, err error) {
	segments, err := readSegments(conn)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(segments, func(a, b *segment) int { return int(a.id - b.id) })
	for _, table := range []string{"search_docs", "search_terms"} {
		from := int64(math.MinInt64)
		for i := 0; i <= len(segments); i++ {
			until := int64(math.MaxInt64)
			if i < len(segments) {
				until = segments[i].key(0)
			}
			keys, err := list(conn, number, "SELECT n FROM "+table+" WHERE n >= ? AND n < ? ORDER BY n LIMIT ?", from,
				until, sweepRows-len(left))
			if err != nil {
				return nil, err
			}
			for _, key := range keys {
				left = append(left, leftover{table, key})
			}
			if i < len(segments) {
				from = segments[i].key(1 << rowBits)
			}
		}
	}
	return left, nil
}
