package store

import (
	"context"
	"time"

	"postern/relay/stats"
	"postern/relay/store/internal/db"
)

// Statistics answers a query as of now. Errors that wrap stats.ErrQuery are for whoever asks. Whole days are read as
// days; a query costs at most as many rows as there are keys in its period, some microseconds each. In the daemon it
// waits as searches do; trace.ErrTooMany is of these.
func (s *Store) Statistics(ctx context.Context, q stats.Query, now time.Time) (*stats.Table, error) {
	q, err := q.Complete(now)
	if err != nil {
		return nil, err
	}
	done, err := s.paced(ctx, q.For)
	if err != nil {
		return nil, wrap(err, "read the statistics")
	}
	defer done()
	b := stats.NewBuilder(q)
	err = s.lookups.read(ctx, func(conn db.Conn) error {
		for _, p := range statParts(q) {
			if err := p.read(conn, q, b); err != nil {
				return err
			}
		}
		return nil
	})
	return b.Table(), wrap(err, "read the statistics")
}

// statPart is a part of a period that one table answers: steps from since up to, but without, until.
type statPart struct {
	table        *statTable
	since, until int64
}

// statParts divides the period of a query that is complete. Only a total is made of days and of the hours around them.
func statParts(q stats.Query) []statPart {
	since, until := q.Since.Unix()/3600, q.Until.Unix()/3600
	firstDay, endDay := (since+23)/24, until/24
	switch {
	case q.Step == stats.Hour, q.Step == stats.Total && firstDay >= endDay:
		return []statPart{{statHours, since, until}}
	case q.Step == stats.Day:
		return []statPart{{statDays, since / 24, (until + 23) / 24}}
	}
	return []statPart{{statHours, since, firstDay * 24}, {statDays, firstDay, endDay}, {statHours, endDay * 24, until}}
}

func (p statPart) read(conn db.Conn, q stats.Query, b *stats.Builder) error {
	if q.OnlyKey == nil {
		return p.add(conn, b, p.table.sums, int(q.Stored()), p.since, p.until)
	}
	for at := p.since; at < p.until; at++ {
		if err := p.add(conn, b, p.table.sumsOf, int(q.Stored()), at, *q.OnlyKey); err != nil {
			return err
		}
	}
	return nil
}

func (p statPart) add(conn db.Conn, b *stats.Builder, query string, args ...any) error {
	for row, err := range conn.Rows(query, args...) {
		if err != nil {
			return err
		}
		n, err := stats.Decode(row.Blob(2))
		if err != nil {
			return err
		}
		b.Add(time.Unix(row.Int(0)*p.table.hours*3600, 0), row.Text(1), &n)
	}
	return nil
}
