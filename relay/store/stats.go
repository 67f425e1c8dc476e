package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"postern/internal/periodic"
	"postern/relay/stats"
	"postern/relay/store/internal/db"
)

var _ stats.Sink = (*Store)(nil)

// maxStatRows is how many rows of hours there are at most, and of days: some 150 MB each. Over it the oldest go,
// whatever their age. An office with 400 keys in each hour is just within it.
const maxStatRows = 1_000_000

// statTable is one of the two tables of sums. Its queries stand here whole: text of a statement never comes from data.
type statTable struct {
	name  string
	hours int64 // in one step

	get, keys, put, drop, oldest, prune, sums, sumsOf, withKey string
}

func newStatTable(name string, hours int64) *statTable {
	table := "stat_" + name
	return &statTable{
		name: name, hours: hours,
		get:  "SELECT data FROM " + table + " WHERE dim = ? AND at = ? AND key = ?",
		keys: "SELECT count(*) FROM " + table + " WHERE dim = ? AND at = ? AND key <> ?",
		put: "INSERT INTO " + table + " VALUES (?, ?, ?, ?) ON CONFLICT (dim, at, key) DO UPDATE SET data = " +
			"excluded.data",
		oldest: "SELECT min(at) FROM " + table + " WHERE dim = ?",
		prune: "DELETE FROM " + table + " WHERE (dim, at, key) IN (SELECT dim, at, key FROM " + table +
			" WHERE dim = ? AND at < ? ORDER BY at LIMIT ?)",
		sums:    "SELECT at, key, data FROM " + table + " WHERE dim = ? AND at >= ? AND at < ?",
		sumsOf:  "SELECT at, key, data FROM " + table + " WHERE dim = ? AND at = ? AND key = ?",
		withKey: "SELECT at FROM " + table + " WHERE dim = ? AND key = ?",
		drop:    "DELETE FROM " + table + " WHERE dim = ? AND at = ? AND key = ?",
	}
}

var (
	statHours = newStatTable("hour", 1)
	statDays  = newStatTable("day", 24)
)

// AddStatistics implements stats.Sink. It is lazy: it waits for a commit that comes anyway.
func (s *Store) AddStatistics(ctx context.Context, sums []stats.Sum) error {
	return s.addStats(ctx, sums, true)
}

// AddStatisticsNow is AddStatistics for somebody who waits for it.
func (s *Store) AddStatisticsNow(ctx context.Context, sums []stats.Sum) error {
	return s.addStats(ctx, sums, false)
}

func (s *Store) addStats(ctx context.Context, sums []stats.Sum, lazy bool) error {
	s.sums.mu.Lock()
	defer s.sums.mu.Unlock()
	err := s.addDoubted(ctx, lazy)
	if err == nil && len(sums) > 0 {
		err = s.addMarked(ctx, markedSums{rand.Int64(), sums}, lazy)
	}
	return wrap(err, "add to the statistics")
}

// markedSums are sums with a number that is written in the same transaction: by it one whose commit had no answer is
// told from one that did not take place. Who counted them would add them twice if it were told of an error.
type markedSums struct {
	mark int64
	sums []stats.Sum
}

// doubtedSums is for who adds sums, one after the other.
type doubtedSums struct {
	mu   sync.Mutex
	last *markedSums // guarded by mu; those of which it is not known whether they are written; nil: none
}

// addDoubted adds what may have been added, unless it was.
func (s *Store) addDoubted(ctx context.Context, lazy bool) error {
	d := s.sums.last
	if d == nil {
		return nil
	}
	var there bool
	err := s.write(ctx, func(t *tx) error {
		last, _, err := t.Int("SELECT n FROM stat_count WHERE name = ?", statsMark(t))
		there = last == d.mark
		return err
	})
	if err != nil {
		return err
	}
	if s.sums.last = nil; !there {
		if err = s.addMarked(ctx, *d, lazy); err != nil {
			s.sums.last = d
		}
	}
	return err
}

var putStatsMark = upsert("stat_count", 1, "name", "n")

// statsMark is the row of the last mark of a node.
func statsMark(t *tx) string { return fmt.Sprint("node ", t.counter) }

// addMarked keeps sums whose outcome is not known, and reports no error of them.
func (s *Store) addMarked(ctx context.Context, m markedSums, lazy bool) error {
	err := s.writer.do(ctx, &op{lazy: lazy, cost: int64(2 * len(m.sums)), run: func(t *tx) error {
		if err := addSums(t, m.sums); err != nil || !s.Shared() {
			return err
		}
		return t.Run(putStatsMark, statsMark(t), m.mark)
	}})
	if errors.Is(err, errDoubt) {
		s.sums.last = &m
		return nil
	}
	return err
}

func addSums(t *tx, sums []stats.Sum) error {
	for _, table := range []*statTable{statHours, statDays} {
		a := statAdding{tx: t, table: table, room: map[stats.Cell]int{}}
		for i := range sums {
			if err := a.add(&sums[i]); err != nil {
				return err
			}
		}
		if err := a.count(); err != nil {
			return err
		}
	}
	return nil
}

// statAdding adds sums to one table in one transaction.
type statAdding struct {
	*tx
	table *statTable
	room  map[stats.Cell]int // keys of a step, without Other, once they were counted; the Cell has no key
	rows  int64              // new ones
}

func (a *statAdding) add(sum *stats.Sum) error {
	at := sum.Cell
	at.Hour /= a.table.hours
	n, found, err := a.get(at)
	if err != nil {
		return err
	}
	if !found && at.Key != stats.Other {
		keys, err := a.keys(at)
		if err != nil {
			return err
		}
		if keys >= sum.KeysFor() {
			at.Key = stats.Other
			if n, found, err = a.get(at); err != nil {
				return err
			}
		} else {
			a.room[stats.Cell{Hour: at.Hour, By: at.By}]++
		}
	}
	if !found {
		a.rows++
	}
	n.Add(&sum.Counts)
	return a.Run(a.table.put, int(at.By), at.Hour, at.Key, n.Append(nil))
}

func (a *statAdding) get(at stats.Cell) (n stats.Counts, found bool, err error) {
	for row, err := range a.Rows(a.table.get, int(at.By), at.Hour, at.Key) {
		if err != nil {
			return n, false, err
		}
		found = true
		if n, err = stats.Decode(row.Blob(0)); err != nil {
			n = stats.Counts{} // a damaged row must not end all counting
		}
	}
	return n, found, nil
}

// keys returns how many keys a step has.
func (a *statAdding) keys(at stats.Cell) (int, error) {
	at.Key = ""
	if n, known := a.room[at]; known {
		return n, nil
	}
	n, _, err := a.Int(a.table.keys, int(at.By), at.Hour, stats.Other)
	a.room[at] = int(n)
	return int(n), err
}

func (a *statAdding) count() error { return addStatRows(a.tx, a.table, a.rows) }

func addStatRows(t *tx, table *statTable, by int64) error {
	if by == 0 {
		return nil
	}
	return t.Run("UPDATE stat_count SET n = n + ? WHERE name = ?", by, table.name)
}

// statBatch is how many rows one transaction removes at most.
const statBatch = 250

// TrimStatistics removes sums by the hour that are older than stats.HourlyFor, all that are older than keep, and the
// oldest while there are too many, in small transactions with pauses. It returns how many rows went.
func (s *Store) TrimStatistics(ctx context.Context, now time.Time, keep time.Duration) (total int64, err error) {
	for _, table := range []*statTable{statHours, statDays} {
		before := now.Add(-keep)
		if hourly := now.Add(-stats.HourlyFor); table == statHours && before.Before(hourly) {
			before = hourly
		}
		for _, by := range stats.Dimensions {
			n, err := s.pruneStats(ctx, table, by, before.Unix()/3600/table.hours)
			if total += n; err != nil {
				return total, wrap(err, "trim the statistics")
			}
		}
		n, err := s.boundStats(ctx, table, maxStatRows)
		if total += n; err != nil {
			return total, wrap(err, "trim the statistics")
		}
	}
	return total, nil
}

// pruneStats removes what is of before a step.
func (s *Store) pruneStats(ctx context.Context, table *statTable, by stats.Dimension, before int64) (total int64,
	err error) {
	for {
		began := time.Now()
		var n int64
		err := s.write(ctx, func(t *tx) error {
			if err := t.Run(table.prune, int(by), before, statBatch); err != nil {
				return err
			}
			n = t.Changes()
			return addStatRows(t, table, -n)
		})
		if total += n; err != nil || n < statBatch {
			return total, err
		}
		if err := periodic.Sleep(ctx, time.Since(began)); err != nil {
			return total, err
		}
	}
}

// boundStats removes the oldest steps of all dimensions while there are more rows than most.
func (s *Store) boundStats(ctx context.Context, table *statTable, most int64) (total int64, err error) {
	for {
		var rows, oldest int64
		err := s.readers.read(ctx, func(conn db.Conn) error {
			rows, oldest, err = oldestStats(conn, table)
			return err
		})
		if err != nil || rows <= most {
			return total, err
		}
		removed := int64(0)
		for _, by := range stats.Dimensions {
			n, err := s.pruneStats(ctx, table, by, oldest+1)
			if removed += n; err != nil {
				return total + removed, err
			}
		}
		if total += removed; removed == 0 {
			return total, fmt.Errorf("%d rows are counted, and none is found", rows)
		}
	}
}

func oldestStats(conn db.Conn, table *statTable) (rows, oldest int64, err error) {
	if rows, _, err = conn.Int("SELECT n FROM stat_count WHERE name = ?", table.name); err != nil {
		return 0, 0, err
	}
	some := false
	for _, by := range stats.Dimensions {
		at, ok, err := conn.Int(table.oldest, int(by))
		if err != nil {
			return 0, 0, err
		}
		if ok && (!some || at < oldest) {
			oldest, some = at, true
		}
	}
	return rows, oldest, nil
}
