package account_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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

// link is the way of one node to what is shared.
type link struct {
	account.Shared
	cut atomic.Bool
}

func (l *link) Swap(ctx context.Context, rows []account.Row) ([]account.Answer, int64, error) {
	if l.cut.Load() {
		return nil, 0, accounttest.ErrFault
	}
	return l.Shared.Swap(ctx, rows)
}

// node is one with a table, and what it is sending.
type node struct {
	name    string
	link    *link
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
	n := &node{name: name, p: p, link: &link{Shared: shared}}
	n.sharing = account.NewSharing(n.link, name, log)
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

// lose ends what is sent by the loss of its connections: nothing was sent, and none is kept.
func (n *node) lose() {
	for _, x := range n.sending {
		x.end()
		x.slot.Release(func(bool) { n.p.open.Add(-1) })
	}
	n.sending = nil
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

// Who begins again has the slots of a former process of the same node at once, and nothing of nodes whose names are
// like its own, dead or not.
func TestSlotsOfAFormerLifeReturnAtOnce(t *testing.T) {
	for _, other := range []string{"b", "mail", "mail-10", "mail-1/", "mail-1/x", "mail-1/x.1", "mail-1.1", "MAIL-1",
		"x/mail-1", "/mail-1"} {
		t.Run(other, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &provider{t: t, limit: 4, rate: 40}
				m := accounttest.New(time.Hour)
				beside := newNode(t.Context(), m, other, p, nil)
				within(t, 2*time.Second, "the other has two", func() bool {
					return len(beside.sending) == 2 || beside.begin() && len(beside.sending) == 2
				})
				n := newNode(t.Context(), m, "mail-1", p, nil)
				for life := range 3 {
					within(t, time.Second, "it has the rest", func() bool { n.begin(); return len(n.sending) == 2 })
					if n.begin() {
						t.Fatal("what another node has was to be had")
					}
					time.Sleep(time.Second) // for what it has asked for
					synctest.Wait()
					if n.begin() {
						t.Fatalf("life %d has what another node has", life)
					}
					n.end(works)
					if life == 1 {
						beside.die() // and nobody may know that for as long as its lease lasts
					}
					n.die()
					n = newNode(t.Context(), m, "mail-1", p, nil)
				}
				within(t, time.Second, "it has the rest", func() bool { n.begin(); return len(n.sending) == 2 })
				time.Sleep(20 * time.Second)
				synctest.Wait()
				if n.begin() {
					t.Error("it has what another node may use")
				}
				within(t, 45*time.Second, "it has all", func() bool { n.begin(); return len(n.sending) == 4 })
				n.close(t)
			})
		})
	}
}

// A former process that has asked for something before it ended, and is answered later, has nothing of it.
func TestLateWriteOfAFormerLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{t: t, limit: 1}
		m := accounttest.New(time.Hour)
		m.Set(accounttest.UntilLate)
		n := newNode(t.Context(), m, "a", p, nil)
		time.Sleep(100 * time.Millisecond)
		n.die()
		m.Set(accounttest.None)
		n = newNode(t.Context(), m, "a", p, nil)
		for range 30 { // the late one takes place meanwhile
			within(t, time.Second, "there is a slot", n.begin)
			n.end(works)
			time.Sleep(100 * time.Millisecond)
		}
		n.close(t)
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
