package stats

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// How long sums are kept. Days go when [privacy] statistics says so, hours with them.
const (
	HourlyFor = 90 * 24 * time.Hour
	DailyFor  = 2 * 365 * 24 * time.Hour // by default
)

// Step is how finely time is divided.
type Step uint8

// The steps.
const (
	Total Step = iota // one row for each key
	Hour
	Day // of UTC
)

var stepNames = []string{"total", "hour", "day"}

// String returns the name of a step, as ParseStep reads it.
func (s Step) String() string { return stepNames[min(int(s), len(stepNames)-1)] }

// MarshalText implements encoding.TextMarshaler.
func (s Step) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// ParseStep reads the name of a step.
func ParseStep(s string) (Step, error) {
	if i := slices.Index(stepNames, s); i >= 0 {
		return Step(i), nil
	}
	return Total, fmt.Errorf("%q is no step; there are %s", s, strings.Join(stepNames, ", "))
}

// How many keys a query gives when it does not say, and at most.
const (
	DefaultLimit = 20
	MaxLimit     = MaxKeys
)

// Query asks for sums.
type Query struct {
	By           Dimension
	Since, Until time.Time // whole hours, or days, around them; zero: a week ago, now
	Step         Step
	Limit        int     // keys, those with the largest volume; the rest is Other. 0: DefaultLimit
	OnlyKey      *string // sums of this key only
	For          string  // who asks: while mail is busy each waits for their own questions only
}

// ErrQuery is wrapped by errors that are for whoever asks.
var ErrQuery = errors.New("no such statistics")

// Period is the time that a query asks for: up to, but without, Until.
type Period struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
}

// Complete checks a query, fills in what it does not say and widens its period to whole hours, or days.
func (q Query) Complete(now time.Time) (Query, error) {
	if q.Until.IsZero() || q.Until.After(now) {
		q.Until = now
	}
	if q.Since.IsZero() {
		q.Since = q.Until.Add(-7 * 24 * time.Hour)
	}
	if earliest := time.Unix(0, 0); q.Since.Before(earliest) { // else a query for one key looks at each day since
		q.Since = earliest
	}
	if !q.Since.Before(q.Until) {
		return q, fmt.Errorf("%w: %s is not before %s", ErrQuery, q.Since.UTC().Format(time.RFC3339),
			q.Until.UTC().Format(time.RFC3339))
	}
	if q.Limit <= 0 {
		q.Limit = DefaultLimit
	}
	q.Limit = min(q.Limit, MaxLimit)
	hourly := now.Add(-HourlyFor).Truncate(24 * time.Hour).Add(24 * time.Hour) // since then hours are complete
	unit := time.Hour
	switch {
	case q.Step == Hour && q.Since.Before(hourly):
		return q, fmt.Errorf("%w: hours are kept for %d days only; ask for days", ErrQuery, int(HourlyFor.Hours())/24)
	case q.Step == Day, q.Since.Before(hourly):
		unit = 24 * time.Hour
	}
	q.Since = q.Since.UTC().Truncate(unit)
	if q.Until.UTC().Truncate(unit) != q.Until.UTC() {
		q.Until = q.Until.UTC().Truncate(unit).Add(unit)
	}
	q.Until = q.Until.UTC()
	return q, nil
}

// Stored is the dimension that answers a query.
func (q *Query) Stored() Dimension {
	if q.By == All {
		return Listener // every event has one, or has none, which is a key too
	}
	return q.By
}

// Row is the sums of a key in a step of time.
type Row struct {
	Start  time.Time // of the step; of the period for Total
	Key    string    // a name, Other or Nothing
	Counts           // with Times
}

// Table answers a Query: its rows by time, those of one time by volume, the largest first and Other last.
type Table struct {
	By   Dimension
	Step Step
	Period
	Rows  []Row
	Total Counts // of all rows
}

// Builder makes a Table of sums, which come in any order.
type Builder struct {
	q     Query
	rows  map[rowOf]*Counts
	byKey map[string]int64 // volume
}

type rowOf struct {
	start int64
	key   string
}

// NewBuilder begins the answer to a query that is complete.
func NewBuilder(q Query) *Builder {
	return &Builder{q: q, rows: map[rowOf]*Counts{}, byKey: map[string]int64{}}
}

// Add adds the sum of a key at a time.
func (b *Builder) Add(at time.Time, key string, n *Counts) {
	if b.q.By == All {
		key = Nothing
	}
	start := b.q.Since
	switch b.q.Step {
	case Hour:
		start = at.UTC().Truncate(time.Hour)
	case Day:
		start = at.UTC().Truncate(24 * time.Hour)
	}
	of := rowOf{start.Unix(), key}
	sum := b.rows[of]
	if sum == nil {
		sum = &Counts{}
		b.rows[of] = sum
	}
	sum.Add(n)
	b.byKey[key] += n.Volume()
}

// Table returns the answer.
func (b *Builder) Table() *Table {
	t := &Table{By: b.q.By, Step: b.q.Step, Period: Period{b.q.Since, b.q.Until}}
	shown := b.shown()
	rows := map[rowOf]*Counts{}
	for of, n := range b.rows {
		t.Total.Add(n)
		if !shown[of.key] {
			of.key = Other
		}
		if rows[of] == nil {
			rows[of] = &Counts{}
		}
		rows[of].Add(n)
	}
	for of, n := range rows {
		t.Rows = append(t.Rows, Row{Start: time.Unix(of.start, 0).UTC(), Key: of.key, Counts: *n})
	}
	slices.SortFunc(t.Rows, func(x, y Row) int {
		return cmp.Or(x.Start.Compare(y.Start), compareBool(x.Key == Other, y.Key == Other),
			cmp.Compare(y.Volume(), x.Volume()), cmp.Compare(x.Key, y.Key))
	})
	return t
}

func compareBool(x, y bool) int {
	switch {
	case x == y:
		return 0
	case x:
		return 1
	}
	return -1
}

// shown are the keys with the largest volume.
func (b *Builder) shown() map[string]bool {
	keys := slices.SortedFunc(maps.Keys(b.byKey), func(x, y string) int {
		return cmp.Or(cmp.Compare(b.byKey[y], b.byKey[x]), cmp.Compare(x, y))
	})
	shown := map[string]bool{}
	for _, key := range keys {
		if len(shown) < b.q.Limit && key != Other {
			shown[key] = true
		}
	}
	return shown
}
