package account_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/account"
	"postern/relay/upstream/account/accounttest"
)

func TestMemoryKeepsTheContract(t *testing.T) {
	accounttest.Run(t, func(*testing.T) (a, b account.Shared) {
		m := accounttest.New(0)
		return m, m
	})
}

const office = "office@example.com"

// provider counts what it has open, and what it took within the window of its rate.
type provider struct {
	t     interface{ Errorf(string, ...any) }
	limit int64
	open  atomic.Int64
	most  atomic.Int64

	rate int64 // messages in a minute, 0: any
	took []time.Time
	sum  int
}

func (p *provider) dial() {
	n := p.open.Add(1)
	if n > p.limit {
		p.t.Errorf("%d connections, %d are allowed", n, p.limit)
	}
	if n > p.most.Load() {
		p.most.Store(n)
	}
}

// take is one message to n recipients.
func (p *provider) take() {
	now := time.Now()
	p.took = append(p.took, now)
	p.sum++
	for len(p.took) > 0 && now.Sub(p.took[0]) >= time.Minute {
		p.took = p.took[1:]
	}
	if p.rate > 0 && int64(len(p.took)) > p.rate {
		p.t.Errorf("%d messages within a minute, %d are allowed", len(p.took), p.rate)
	}
}

// pool is a Held whose connections are open at a provider.
type pool struct {
	p    *provider
	idle int
}

func (c *pool) Connections() (idle, closing int) { return c.idle, 0 }
func (c *pool) Blank() bool                      { return true }
func (c *pool) Shed(n int) {
	c.idle -= n
	c.p.open.Add(int64(-n))
}

// node is one with a table, and what it is sending.
type node struct {
	p       *provider
	sharing *account.Sharing
	table   *account.Table[*pool]
	sending []*sending
	changed atomic.Int64
	ctx     context.Context
	stop    context.CancelFunc
}

type sending struct {
	slot  *account.Slot[*pool]
	bound context.Context
	end   context.CancelFunc
}

func newNode(ctx context.Context, shared account.Shared, name string, p *provider,
	change func(*upstream.Settings)) *node {
	log := slog.New(slog.DiscardHandler)
	n := &node{p: p, sharing: account.NewSharing(shared, name, log)}
	n.ctx, n.stop = context.WithCancel(ctx)
	set := &upstream.Settings{Name: "up", Username: office, MaxConnections: int(p.limit), MaxRecipients: 100,
		Jitter: func() float64 { return 0.5 }}
	if p.rate > 0 {
		set.Rates = []upstream.Rate{{Count: p.rate, Unit: upstream.Messages, Per: time.Minute}}
	}
	if change != nil {
		change(set)
	}
	n.table = account.New(set, account.Options{Spent: upstream.BackingOff, Sharing: n.sharing, Log: log},
		func() *pool { return &pool{p: p} })
	n.table.OnChange(func() { n.changed.Add(1) })
	go n.sharing.Run(n.ctx)
	return n
}

// begin reserves and dials, or takes an idle connection. It reports whether there was a slot.
func (n *node) begin() bool {
	fresh := true
	s, _ := n.table.Reserve(time.Now(), "", func(c *pool) {
		if c.idle > 0 {
			c.idle, fresh = c.idle-1, false
		}
	})
	if s == nil {
		return false
	}
	if fresh {
		n.p.dial()
	}
	x := &sending{slot: s}
	x.bound, x.end = s.Bound(n.ctx)
	n.sending = append(n.sending, x)
	return true
}

// end ends the oldest of what is sent: it was taken, unless the lease is over.
func (n *node) end(news account.News) {
	x := n.sending[0]
	n.sending = n.sending[1:]
	cut := x.bound.Err() != nil
	x.end()
	if !cut && news.Verdict == account.Works {
		x.slot.Charge(1)
		n.p.take()
	}
	x.slot.Record(news)
	x.slot.Release(func(keep bool) {
		if keep && !cut {
			x.slot.Held().idle++
		} else {
			n.p.open.Add(-1)
		}
	})
}

// cuts ends what has to be cut off, as a Send does whose context has ended.
func (n *node) cuts() {
	for i := 0; i < len(n.sending); i++ {
		if n.sending[i].bound.Err() != nil {
			n.sending[0], n.sending[i] = n.sending[i], n.sending[0]
			n.end(account.News{})
			i = -1
		}
	}
}

// die ends a node without a word: its connections are closed by the provider's side.
func (n *node) die() {
	n.stop()
	n.p.open.Add(int64(-len(n.sending)))
	n.table.Each(func(c *pool) { c.Shed(c.idle) })
	n.sending = nil
}

func (n *node) close(t testing.TB) {
	t.Helper()
	for len(n.sending) > 0 {
		n.end(account.News{})
	}
	n.table.Shut()
	n.table.Each(func(c *pool) { c.Shed(c.idle) })
	if err := n.table.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	n.stop()
	synctest.Wait()
}

var works = account.News{Verdict: account.Works}

// within waits until f, and fails after d.
func within(t testing.TB, d time.Duration, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !f(); {
		if time.Now().After(end) {
			t.Fatalf("within %v not: %s", d, what)
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
	}
}

func two(t *testing.T, m *accounttest.Memory, p *provider) (a, b *node) {
	a, b = newNode(t.Context(), m, "a", p, nil), newNode(t.Context(), m, "b", p, nil)
	return a, b
}

func TestIdleNodeGivesItsSlotsToAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{t: t, limit: 3}
		a, b := two(t, accounttest.New(time.Hour), p)
		within(t, 2*time.Second, "a has all slots", func() bool { a.begin(); return len(a.sending) == 3 })
		for range 3 {
			a.end(works)
		}
		within(t, 3*time.Second, "b has all slots", func() bool { b.begin(); return len(b.sending) == 3 })
		a.close(t)
		b.close(t)
	})
}

// A busy node gives a fair share, and of a single slot every second turn.
func TestBusyNodesShare(t *testing.T) {
	for _, limit := range []int64{1, 2, 3, 10} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &provider{t: t, limit: limit}
				m := accounttest.New(-time.Hour)
				nodes := []*node{newNode(t.Context(), m, "a", p, nil), newNode(t.Context(), m, "b", p, nil),
					newNode(t.Context(), m, "c", p, nil)}
				var sent [3]int
				for range 600 { // a minute, each message takes 100 ms
					for i, n := range nodes {
						for len(n.sending) > 0 {
							n.end(works)
							sent[i]++
						}
					}
					for _, n := range nodes {
						for n.begin() {
						}
					}
					time.Sleep(100 * time.Millisecond)
					synctest.Wait()
				}
				all := sent[0] + sent[1] + sent[2]
				for i, n := range sent {
					if n < all/6 {
						t.Errorf("node %d sent %d of %d", i, n, all)
					}
				}
				if all < 600*int(limit)*2/3 {
					t.Errorf("%d were sent, there was room for %d", all, 600*limit)
				}
				for _, n := range nodes {
					n.close(t)
				}
			})
		})
	}
}

func TestSlotsOfADeadNodeReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{t: t, limit: 2}
		a, b := two(t, accounttest.New(time.Hour), p)
		within(t, 2*time.Second, "a has all slots", func() bool { a.begin(); return len(a.sending) == 2 })
		a.die()
		within(t, 45*time.Second, "b has all slots", func() bool { b.begin(); return len(b.sending) == 2 })
		b.close(t)
	})
}

// While the database is away a node uses what it has, then cuts off and closes before another may have the slots.
func TestLeaseEndsWithoutTheDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{t: t, limit: 2}
		m := accounttest.New(time.Hour)
		a, b := two(t, m, p)
		within(t, 2*time.Second, "a has all slots", func() bool { a.begin(); return len(a.sending) == 2 })
		m.Set(accounttest.Away)
		a.end(works) // one idle connection, one message on its way
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if !a.begin() {
			t.Error("what is leased may not be used")
		}
		a.end(works)
		time.Sleep(21 * time.Second)
		synctest.Wait()
		if a.begin() || a.sending[0].bound.Err() == nil {
			t.Error("a lease that cannot be renewed is used on")
		}
		if p.open.Load() != 1 {
			t.Errorf("%d connections are open, of a message that is cut off 1", p.open.Load())
		}
		a.cuts()
		m.Set(accounttest.None)
		within(t, 3*time.Second, "both have one", func() bool {
			return (len(a.sending) > 0 || a.begin()) && (len(b.sending) > 0 || b.begin())
		})
		a.close(t)
		b.close(t)
	})
}

// step is one thing that happens to nodes; what of it counts depends on kind.
type step struct {
	kind, node, n int
	time          time.Duration
	fault         accounttest.Fault
	clock         time.Duration
}

func (s step) String() string {
	return fmt.Sprintf("{%d node %d n %d time %v fault %d clock %v}", s.kind, s.node, s.n, s.time, s.fault, s.clock)
}

var anyStep = rapid.Custom(func(t *rapid.T) step {
	return step{
		kind: rapid.IntRange(0, 11).Draw(t, "kind"),
		node: rapid.IntRange(0, 2).Draw(t, "node"),
		n:    rapid.IntRange(1, 4).Draw(t, "n"),
		time: rapid.SampledFrom([]time.Duration{time.Millisecond, 300 * time.Millisecond, 2 * time.Second,
			20 * time.Second}).Draw(t, "time"),
		fault: rapid.SampledFrom([]accounttest.Fault{accounttest.None, accounttest.None, accounttest.Away,
			accounttest.Unheard, accounttest.UntilLate, accounttest.Slow, accounttest.Slow}).Draw(t, "fault"),
		clock: rapid.SampledFrom([]time.Duration{-time.Hour, -3 * time.Second, 3 * time.Second,
			time.Hour}).Draw(t, "clock"),
	}
})

// faults keeps the first thing that went wrong.
type faults struct{ atomic.Pointer[string] }

func (f *faults) Errorf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	f.CompareAndSwap(nil, &text)
}

// TestNodesNeverExceed does anything with three nodes and the database between them: there are never too many
// connections or messages, and in the end every node can send.
func TestNodesNeverExceed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.Int64Range(1, 5).Draw(rt, "limit")
		rate := rapid.SampledFrom([]int64{0, 3, 30, 1000}).Draw(rt, "rate")
		steps := rapid.SliceOfN(anyStep, 1, 60).Draw(rt, "steps")
		var wrong faults
		synctest.Test(t, func(t *testing.T) {
			w := &world{t: t, p: &provider{t: &wrong, limit: limit, rate: rate}, m: accounttest.New(time.Hour)}
			w.grow()
			w.grow()
			for _, s := range steps {
				w.do(s)
			}
			w.settle(&wrong)
		})
		if text := wrong.Load(); text != nil {
			rt.Fatal(*text)
		}
	})
}

type world struct {
	t     *testing.T
	p     *provider
	m     *accounttest.Memory
	nodes []*node
	born  int
}

func (w *world) grow() {
	w.born++
	w.nodes = append(w.nodes, newNode(w.t.Context(), w.m, fmt.Sprint("n", w.born), w.p, nil))
}

func (w *world) do(s step) {
	n := w.nodes[s.node%len(w.nodes)]
	switch s.kind {
	case 0, 1, 2, 3:
		for range s.n {
			n.begin()
		}
	case 4, 5:
		if len(n.sending) > 0 {
			n.end(works)
		}
	case 6:
		if len(n.sending) > 0 {
			n.end(account.News{Verdict: account.Pressure, Slow: true, Reply: mail.R(421, "", "too many")})
		}
	case 7, 8:
		w.pass(s.time)
	case 9:
		w.m.Set(s.fault)
	case 10:
		if len(w.nodes) < 3 {
			w.grow()
		} else {
			w.nodes[2].die()
			w.nodes = w.nodes[:2]
		}
	case 11:
		if s.clock < 0 || w.p.rate == 0 { // set forward, it lets a rate's window pass as much earlier
			w.m.Step(s.clock)
		}
	}
}

// pass lets time pass. What is to be cut off is.
func (w *world) pass(d time.Duration) {
	for ; d > 0; d -= 100 * time.Millisecond {
		time.Sleep(min(d, 100*time.Millisecond))
		synctest.Wait()
		for _, n := range w.nodes {
			n.cuts()
		}
	}
}

// settle has every node send one message, and ends them.
func (w *world) settle(wrong *faults) {
	w.m.Set(accounttest.None)
	for _, n := range w.nodes {
		for len(n.sending) > 0 {
			n.end(works)
		}
	}
	for i, n := range w.nodes {
		for end := time.Now().Add(20 * time.Minute); !n.begin(); w.pass(100 * time.Millisecond) {
			if time.Now().After(end) {
				wrong.Errorf("node %d cannot send: %+v", i, n.table.States())
				break
			}
		}
		if len(n.sending) > 0 {
			n.end(works)
		}
	}
	for _, n := range w.nodes {
		n.close(w.t)
	}
	if open := w.p.open.Load(); open != 0 {
		wrong.Errorf("%d connections are left open", open)
	}
	time.Sleep(10 * time.Second) // what came late
}
