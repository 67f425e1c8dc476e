// Package accounttest is the contract of account.Shared, and one in memory that keeps it.
package accounttest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/relay/upstream/account"
)

// Memory is an account.Shared of one process.
type Memory struct {
	mu    sync.Mutex // guards what follows
	ahead time.Duration
	last  int64
	rows  map[[2]string]kept
	fault Fault
	swaps int
}

type kept struct {
	version int64
	state   []byte
}

// Fault is what Swap is to do wrong.
type Fault int

// The faults.
const (
	None      Fault = iota
	Away            // nothing is done
	Unheard         // it is done, and the answer is lost
	UntilLate       // it is done a second later, and the answer is lost
	Slow            // it is done and answered, after a while each
)

// ErrFault is what Swap returns for a Fault.
var ErrFault = errors.New("the database does not answer")

// New makes one whose clock is ahead of ours.
func New(ahead time.Duration) *Memory {
	return &Memory{ahead: ahead, rows: make(map[[2]string]kept)}
}

// Set makes Swap fail from now on.
func (m *Memory) Set(f Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

// Step sets the clock forward, or back.
func (m *Memory) Step(by time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ahead += by
}

// Swaps is how often Swap was called.
func (m *Memory) Swaps() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.swaps
}

// Swap implements account.Shared.
func (m *Memory) Swap(ctx context.Context, rows []account.Row) ([]account.Answer, int64, error) {
	m.mu.Lock()
	slow := m.fault == Slow
	m.mu.Unlock()
	if slow {
		time.Sleep(slowTime)
		defer time.Sleep(slowTime)
	}
	return m.answer(ctx, rows)
}

// slowTime is how long a Slow one takes to do what it does, and again to answer.
const slowTime = 150 * time.Millisecond

func (m *Memory) answer(ctx context.Context, rows []account.Row) ([]account.Answer, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.swaps++
	now := time.Now().Add(m.ahead).UnixNano()
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	switch m.fault {
	case Away:
		return nil, 0, ErrFault
	case Unheard:
		m.swap(rows, now)
		return nil, 0, ErrFault
	case UntilLate:
		late := slices.Clone(rows)
		time.AfterFunc(time.Second, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.swap(late, time.Now().Add(m.ahead).UnixNano())
		})
		return nil, 0, ErrFault
	}
	return m.swap(rows, now), now, nil
}

func (m *Memory) swap(rows []account.Row, now int64) []account.Answer {
	answers := make([]account.Answer, len(rows))
	for i, r := range rows {
		key := [2]string{r.Upstream, r.Account}
		k := m.rows[key]
		if k.version == r.Version && len(r.State) > 0 {
			m.last = max(m.last+1, now)
			m.rows[key] = kept{m.last, slices.Clone(r.State)}
			answers[i] = account.Answer{Swapped: true, Version: m.last}
			continue
		}
		answers[i].Version = k.version
		if k.version != r.Version {
			answers[i].State = slices.Clone(k.state)
		}
	}
	return answers
}

// Stood is the context of a slot that was over while the process stood still: who asks knows, and nobody was told.
type Stood struct {
	context.Context
	Over atomic.Bool
}

// Err implements context.Context.
func (s *Stood) Err() error {
	if s.Over.Load() {
		return context.Canceled
	}
	return s.Context.Err()
}

// Run is the contract. open returns one of a database with nothing in it, and another one of the same database.
func Run(t *testing.T, open func(t *testing.T) (a, b account.Shared)) {
	t.Run("rows", func(t *testing.T) { testRows(t, open) })
	t.Run("one key twice", func(t *testing.T) { testTwice(t, open) })
	t.Run("any octets", func(t *testing.T) { testOctets(t, open) })
	t.Run("one of many wins", func(t *testing.T) { testRace(t, open) })
	t.Run("orders that cross", func(t *testing.T) { testOrders(t, open) })
	t.Run("clock", func(t *testing.T) { testClock(t, open) })
	t.Run("ended", func(t *testing.T) { testEnded(t, open) })
}

func swap(t *testing.T, s account.Shared, rows ...account.Row) []account.Answer {
	t.Helper()
	answers, _, err := s.Swap(t.Context(), rows)
	if err != nil {
		t.Fatal(err)
	}
	if len(answers) != len(rows) {
		t.Fatalf("%d answers to %d rows", len(answers), len(rows))
	}
	return answers
}

func row(name string, version int64, state string) account.Row {
	return account.Row{Upstream: "up", Account: name, Version: version, State: []byte(state), Forget: 1}
}

func check(t *testing.T, a account.Answer, swapped bool, version int64, state string) {
	t.Helper()
	if a.Swapped != swapped || version != 0 && a.Version != version || string(a.State) != state {
		t.Errorf("swapped %v, version %d, state %q, want %v, %d, %q", a.Swapped, a.Version, a.State, swapped, version,
			state)
	}
}

func testRows(t *testing.T, open func(t *testing.T) (a, b account.Shared)) {
	a, b := open(t)
	got := swap(t, a, row("none", 0, ""), row("x", 0, "one"), row("y", 7, "never there"))
	check(t, got[0], false, 0, "")
	check(t, got[1], true, 0, "")
	check(t, got[2], false, 0, "")
	if got[0].Version != 0 || got[2].Version != 0 || got[1].Version == 0 {
		t.Errorf("%+v", got)
	}
	one := got[1].Version
	check(t, swap(t, b, row("x", 0, ""))[0], false, one, "one")        // who knows nothing is told
	check(t, swap(t, b, row("x", one, ""))[0], false, one, "")         // who knows is not
	check(t, swap(t, b, row("x", 0, "two"))[0], false, one, "one")     // who knows nothing replaces nothing
	check(t, swap(t, b, row("x", one-1, "two"))[0], false, one, "one") // nor does who is late
	got = swap(t, b, row("x", one, "three"), row("z", 0, "new"))
	check(t, got[0], true, 0, "")
	check(t, got[1], true, 0, "")
	if got[0].Version <= one {
		t.Errorf("version %d after %d", got[0].Version, one)
	}
	check(t, swap(t, a, row("x", one, ""))[0], false, got[0].Version, "three")
	other := account.Row{Upstream: "other", Account: "x"}
	check(t, swap(t, a, other)[0], false, 0, "")
	if got := swap(t, a); len(got) != 0 {
		t.Errorf("answers to nothing: %+v", got)
	}
}

// testTwice has two tables of a process ask for one account at once, as after a reload.
func testTwice(t *testing.T, open func(t *testing.T) (a, b account.Shared)) {
	a, _ := open(t)
	got := swap(t, a, row("x", 0, "one"), row("x", 0, "two"), row("y", 0, "beside"))
	check(t, got[0], true, 0, "")
	check(t, got[1], false, got[0].Version, "one")
	check(t, got[2], true, 0, "")
	version := got[0].Version
	got = swap(t, a, row("x", version, "three"), row("x", version, "four"), row("x", version, ""), row("x", 0, ""))
	check(t, got[0], true, 0, "")
	for _, later := range got[1:] {
		check(t, later, false, got[0].Version, "three")
	}
	got = swap(t, a, row("x", got[0].Version, ""), row("x", got[0].Version, "four"))
	check(t, got[1], true, 0, "")
	check(t, swap(t, a, row("x", 0, ""))[0], false, got[1].Version, "four")
}

func testOctets(t *testing.T, open func(t *testing.T) (a, b account.Shared)) {
	a, b := open(t)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	r := account.Row{Upstream: string(all), Account: "'; \\ \" ? ?1 $1 " + string(all), State: all, Forget: 1}
	check(t, swap(t, a, r)[0], true, 0, "")
	r.State = nil
	check(t, swap(t, b, r)[0], false, 0, string(all))
}

// testRace has many replace the same version: each time one of them does.
func testRace(t *testing.T, open func(t *testing.T) (a, b account.Shared)) {
	a, b := open(t)
	const rounds, many = 20, 4
	seen := int64(0)
	for range rounds {
		var mu sync.Mutex
		var wg sync.WaitGroup
		won, next := 0, int64(0)
		for i := range many {
			wg.Go(func() {
				got, _, err := []account.Shared{a, b}[i%2].Swap(t.Context(), []account.Row{row("x", seen, "state")})
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
				} else if got[0].Swapped {
					won, next = won+1, got[0].Version
				}
			})
		}
		wg.Wait()
		if won != 1 || next <= seen {
			t.Fatalf("%d of %d replaced version %d, by %d", won, many, seen, next)
		}
		seen = next
	}
}

// testOrders has two replace the same rows in opposite order: neither may hold the other up for good, and who was not
// first for a row leaves it alone.
func testOrders(t *testing.T, open func(t *testing.T) (a, b account.Shared)) {
	a, b := open(t)
	var known sync.Map // of each the rows that it has seen
	swapped := make([]int, 2)
	var wg sync.WaitGroup
	for i, s := range []account.Shared{a, b} {
		wg.Go(func() {
			names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
			if i == 1 {
				slices.Reverse(names)
			}
			versions := make(map[string]int64)
			for range 30 {
				var rows []account.Row
				for _, n := range names {
					rows = append(rows, row(n, versions[n], n))
				}
				got, _, err := s.Swap(t.Context(), rows)
				if err != nil {
					t.Error(err)
					return
				}
				for j, n := range names {
					if got[j].Swapped {
						swapped[i]++
						if _, twice := known.LoadOrStore([2]any{n, got[j].Version}, true); twice {
							t.Errorf("version %d of %s came twice", got[j].Version, n)
						}
					}
					versions[n] = got[j].Version
				}
			}
		})
	}
	wg.Wait()
	if swapped[0]+swapped[1] < 8*30 {
		t.Errorf("%v rows were replaced", swapped)
	}
}

func testClock(t *testing.T, open func(t *testing.T) (a, b account.Shared)) {
	a, b := open(t)
	var last int64
	for _, s := range []account.Shared{a, b, a} {
		_, now, err := s.Swap(t.Context(), []account.Row{row("x", 0, "")})
		if err != nil || now < last || now == 0 {
			t.Errorf("clock says %d after %d, %v", now, last, err)
		}
		last = now
	}
}

func testEnded(t *testing.T, open func(t *testing.T) (a, b account.Shared)) {
	a, b := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := a.Swap(ctx, []account.Row{row("x", 0, "one")}); err == nil {
		t.Error("no error from a context that has ended")
	}
	swap(t, b, row("x", 0, ""))
	swap(t, a, row("x", 0, ""))
}
