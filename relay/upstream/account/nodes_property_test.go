package account_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"postern/mail"
	"postern/relay/upstream/account"
	"postern/relay/upstream/account/accounttest"
)

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
		kind: rapid.IntRange(0, 14).Draw(t, "kind"),
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
	case 12:
		n.link.cut.Store(true)
	case 13:
		n.link.cut.Store(false)
	case 10:
		if len(w.nodes) < 3 {
			w.grow()
		} else {
			w.nodes[2].die()
			w.nodes = w.nodes[:2]
		}
	case 14: // it begins again
		n.die()
		again := newNode(w.t.Context(), w.m, n.name, w.p, nil)
		again.link.cut.Store(n.link.cut.Load())
		w.nodes[s.node%len(w.nodes)] = again
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
		n.link.cut.Store(false)
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
