package stats

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"postern/internal/periodic"
	"postern/mail"
	"postern/relay/trace"
)

// Times and bounds of a Counter.
const (
	FlushEvery = 30 * time.Second
	maxCells   = 30_000 // that wait for the store, at most; Other of each dimension and hour beside them
	flushCells = 100    // in one write: some milliseconds of work
	flushPause = 20 * time.Millisecond
	lastFlush  = 5 * time.Second // longest that a write goes on when Run is to end
)

// Sink adds sums to what it has, all of them or none. It may wait for others; one who is asked for them at once does
// not. Without sums it adds what it could not add before, if it keeps that.
type Sink interface {
	AddStatistics(ctx context.Context, sums []Sum) error
	AddStatisticsNow(ctx context.Context, sums []Sum) error
}

// Counter counts events in memory and adds the sums to a Sink. It is safe for concurrent use.
type Counter struct {
	sink Sink
	log  *slog.Logger

	flushing sync.Mutex // held by flush: one at a time

	mu     sync.Mutex // guards all below
	cells  map[Cell]*Counts
	keys   map[hourOf]int     // how many of cells, without Other
	totals map[string]*Counts // by listener, since the start; MaxKeys at most
	other  uint64             // how often something was counted under Other for want of room
}

type hourOf struct {
	hour int64
	by   Dimension
}

// NewCounter returns a Counter that writes to sink while Run runs. A nil logger discards.
func NewCounter(sink Sink, log *slog.Logger) *Counter {
	return &Counter{sink: sink, log: cmp.Or(log, slog.New(slog.DiscardHandler)), cells: map[Cell]*Counts{},
		keys: map[hourOf]int{}, totals: map[string]*Counts{}}
}

// Count counts an event. It never blocks for long.
func (c *Counter) Count(e *trace.Event) {
	one, refusal := countsOf(e)
	if one.Volume() == 0 {
		return
	}
	at := e.Time
	if at.IsZero() {
		at = time.Now()
	}
	hour := at.Unix() / 3600
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addLocked(Cell{hour, Login, Key(e.Login)}, &one)
	c.addLocked(Cell{hour, SenderDomain, DomainKey(e.From)}, &one)
	c.addLocked(Cell{hour, Listener, Key(e.Listener)}, &one)
	c.totalLocked(Key(e.Listener), &one)
	switch {
	case refusal:
		c.addLocked(Cell{hour, RecipientDomain, DomainKey(e.To)}, &one)
	case e.Kind == trace.Accepted:
		c.domainsLocked(hour, e.Rcpts, one)
	default:
		c.addLocked(Cell{hour, RecipientDomain, DomainKey(e.To)}, &one)
		if e.Kind == trace.Delivered {
			one.Octets = e.Octets
		}
		c.addLocked(Cell{hour, Upstream, Key(e.Upstream)}, &one)
	}
}

// countsOf returns what an event counts for, but for octets of upstreams.
func countsOf(e *trace.Event) (one Counts, refusal bool) {
	switch e.Kind {
	case trace.Refused:
		one.SessionsRefused = 1
	case trace.AuthFail:
		if !e.Reply.IsZero() { // else it tells of a lockout
			one.LoginsRefused = 1
		}
	case trace.Rejected:
		one.Refused = 1
	case trace.Accepted:
		one.Messages, one.Octets = 1, e.Size
		if e.Rcpts != nil {
			one.Recipients = int64(len(e.Rcpts.Domains))
		}
	case trace.Delivered:
		one.Delivered = 1
		one.Times.Observe(e.Age)
	case trace.Deferred:
		*deferred(&one, e.Class) = 1
	case trace.Failed:
		*failed(&one, e.Class) = 1
	case trace.Unclear:
		one.Unclear = 1
	}
	return one, e.Kind.IsRefusal()
}

func deferred(one *Counts, class string) *int64 {
	switch class {
	case mail.AccountFault.String():
		return &one.AccountFaults
	case mail.BackPressure.String():
		return &one.BackPressure
	}
	return &one.Deferrals
}

func failed(one *Counts, class string) *int64 {
	switch class {
	case mail.RecipientFault.String():
		return &one.RecipientFaults
	case mail.MessageFault.String():
		return &one.MessageFaults
	}
	return &one.GivenUp
}

// domainsLocked counts a message once for each domain of its recipients.
func (c *Counter) domainsLocked(hour int64, rcpts *trace.Rcpts, one Counts) {
	if rcpts == nil {
		return
	}
	if len(rcpts.Domains) == 1 {
		c.addLocked(Cell{hour, RecipientDomain, DomainKey(rcpts.Domains[0])}, &one)
		return
	}
	of := map[string]int64{}
	for _, domain := range rcpts.Domains {
		of[DomainKey(domain)]++
	}
	for _, key := range slices.Sorted(maps.Keys(of)) {
		one.Recipients = of[key]
		c.addLocked(Cell{hour, RecipientDomain, key}, &one)
	}
}

func (c *Counter) addLocked(at Cell, n *Counts) {
	sum := c.cells[at]
	if sum == nil {
		of := hourOf{at.Hour, at.By}
		if at.Key != Other && (c.keys[of] >= n.KeysFor() || len(c.cells) >= maxCells) {
			c.other++
			at.Key = Other
			c.addLocked(at, n)
			return
		}
		if at.Key != Other {
			c.keys[of]++
		}
		sum = &Counts{}
		c.cells[at] = sum
	}
	sum.Add(n)
}

func (c *Counter) totalLocked(listener string, n *Counts) {
	sum := c.totals[listener]
	if sum == nil {
		if len(c.totals) >= MaxKeys {
			return
		}
		sum = &Counts{}
		c.totals[listener] = sum
	}
	for i, v := range n.fields() { // times are counted elsewhere
		*sum.fields()[i] += *v
	}
}

// Totals returns what was counted since the start by listener, without times, and how often there was no room for a
// key.
func (c *Counter) Totals() (byListener map[string]Counts, other uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	byListener = make(map[string]Counts, len(c.totals))
	for name, n := range c.totals {
		byListener[name] = *n
	}
	return byListener, c.other
}

// Run adds to the sink each FlushEvery until ctx ends. A write in progress may then take a little longer; Close writes
// the rest.
func (c *Counter) Run(ctx context.Context) {
	for failing := false; periodic.Sleep(ctx, FlushEvery) == nil; {
		writing, cancel := context.WithCancel(context.WithoutCancel(ctx))
		stop := context.AfterFunc(ctx, func() { time.AfterFunc(lastFlush, cancel) })
		err := c.flush(writing, c.sink.AddStatistics)
		stop()
		cancel()
		if err != nil && !failing {
			c.log.Warn("statistics cannot be written; they are kept and tried again", "err", err)
		}
		failing = err != nil
	}
}

// Flush adds what was counted so far to the sink, for somebody who wants to see it.
func (c *Counter) Flush(ctx context.Context) error { return c.flush(ctx, c.sink.AddStatisticsNow) }

// Close writes the rest; ctx bounds the time.
func (c *Counter) Close(ctx context.Context) error { return c.flush(ctx, c.sink.AddStatistics) }

func (c *Counter) flush(ctx context.Context, write func(context.Context, []Sum) error) error {
	c.flushing.Lock()
	defer c.flushing.Unlock()
	for sums := c.take(); ; periodic.Sleep(ctx, flushPause) { // leave the store to mail
		n := min(len(sums), flushCells)
		if err := write(ctx, sums[:n]); err != nil {
			c.putBack(sums)
			return err
		}
		if sums = sums[n:]; len(sums) == 0 {
			return nil
		}
	}
}

// take takes all sums: of each hour and dimension the largest first, which so get keys before others.
func (c *Counter) take() []Sum {
	c.mu.Lock()
	cells := c.cells
	c.cells, c.keys = make(map[Cell]*Counts, min(len(cells), maxCells)), map[hourOf]int{}
	c.mu.Unlock()
	sums := make([]Sum, 0, len(cells))
	for at, n := range cells {
		sums = append(sums, Sum{at, *n})
	}
	slices.SortFunc(sums, func(a, b Sum) int {
		return cmp.Or(cmp.Compare(a.Hour, b.Hour), cmp.Compare(a.By, b.By), cmp.Compare(b.Volume(), a.Volume()),
			cmp.Compare(a.Key, b.Key))
	})
	return sums
}

// putBack keeps what could not be written.
func (c *Counter) putBack(sums []Sum) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range sums {
		c.addLocked(sums[i].Cell, &sums[i].Counts)
	}
}
