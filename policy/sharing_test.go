package policy_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"postern/policy"
	"postern/policy/policytest"
)

func TestShared(t *testing.T) {
	policytest.RunSharedLimits(t, func(_ *testing.T, now func() time.Time) policy.SharedLimits {
		return policytest.NewShared(now)
	})
}

func atStart() time.Time { return start }

var (
	errGone   = errors.New("connection refused")
	errUnsure = fmt.Errorf("%w: connection reset", policy.ErrUnsure)
	refuse    = policy.SharedOptions{}
	handoff   = policy.SharedOptions{Local: true}
)

// failing is a function for policytest.Shared.Fail.
func failing(err error) func() error { return func() error { return err } }

// passes counts how many messages pass.
func passes(t helper, l *policy.Limiter, now time.Time, login string, limits []policy.Limit) (n int) {
	t.Helper()
	for {
		v, err := l.Take(context.Background(), now, login, limits, oneMessage)
		if err != nil && v.OK {
			t.Fatalf("passed with the error %v", err)
		}
		if !v.OK {
			return n
		}
		n++
	}
}

// TestSharedVerdicts: nodes whose clocks are wrong and that know nothing of each other count together.
func TestSharedVerdicts(t *testing.T) {
	at := start
	counter := policytest.NewShared(func() time.Time { return at })
	a := policy.NewSharedLimiter(counter, refuse, start, nil)
	b := policy.NewSharedLimiter(counter, refuse, start.Add(time.Hour), nil)
	limits := parse(t, "3 messages/minute", "3 messages/60s", "20 recipients/hour", "5 new recipients/day", "1MB/day")
	first := take(t, a, start, "anna", limits, oneMessage)
	take(t, b, start.Add(time.Hour), "anna", limits, oneMessage)
	take(t, a, start, "anna", limits, oneMessage)
	v := take(t, b, start.Add(time.Hour), "anna", limits, oneMessage)
	if v.OK || v.Never || v.Limit != limits[0] || v.Need != 1 || v.Retry != start.Add(time.Hour+20*time.Second) {
		t.Fatalf("verdict = %+v", v)
	}
	v.Refund() // took nothing, gives nothing
	if n := counter.Calls(); n != 4 {
		t.Errorf("%d questions for four messages", n)
	}
	first.Refund()
	first.Refund() // once
	if !take(t, b, start, "anna", limits, oneMessage).OK || take(t, a, start, "anna", limits, oneMessage).OK {
		t.Error("a refund gives back what was taken, once")
	}
	at = at.Add(time.Hour)
	for _, c := range []struct {
		to, octets int
		limit      int
		need       int64
	}{{21, 1, 2, 21}, {6, 1, 3, 6}, {1, 1_000_001, 4, 1_000_001}} {
		from := 0
		if c.limit == 3 {
			from = 1 // user0 is known
		}
		u := policy.Usage{Messages: 1, Recipients: people(from, from+c.to), Bytes: int64(c.octets)}
		v := take(t, a, start, "anna", limits, u)
		if v.OK || !v.Never || v.Limit != limits[c.limit] || v.Need != c.need {
			t.Errorf("verdict = %+v, want never by %s", v, limits[c.limit])
		}
	}
	five := policy.Usage{Messages: 1, Recipients: people(1, 5)} // and one was new before
	take(t, a, start, "anna", limits, five).Refund()
	if !take(t, b, start, "anna", limits, five).OK {
		t.Error("new recipients did not stay known")
	}
	v = take(t, b, start, "anna", limits, policy.Usage{Messages: 1, Recipients: people(4, 6)})
	if v.OK || v.Limit != limits[3] || v.Need != 1 {
		t.Errorf("refunded new recipients: %+v", v)
	}
	asked := counter.Calls()
	if !take(t, a, start, "anna", nil, oneMessage).OK ||
		!take(t, a, start, "anna", limits[3:], policy.Usage{Messages: 1}).OK || counter.Calls() != asked {
		t.Error("asked although there was nothing to count")
	}
}

// TestSharedCounterAway: without a local share nothing passes that could not be counted, and all is as before when the
// counter is back.
func TestSharedCounterAway(t *testing.T) {
	counter := policytest.NewShared(atStart)
	l := policy.NewSharedLimiter(counter, refuse, start, nil)
	limits := parse(t, "10 messages/day")
	kept := take(t, l, start, "anna", limits, oneMessage)
	lost := take(t, l, start, "anna", limits, oneMessage)
	counter.Fail(failing(errGone), nil)
	v, err := l.Take(t.Context(), start, "anna", limits, oneMessage)
	if v.OK || !errors.Is(err, errGone) {
		t.Errorf("verdict = %+v, %v", v, err)
	}
	v.Refund()
	kept.Refund() // told later
	if err := l.Save(t.Context(), start); !errors.Is(err, errGone) {
		t.Errorf("Save: %v", err)
	}
	counter.Fail(nil, failing(errUnsure)) // told now, and not again
	lost.Refund()
	if err := l.Save(t.Context(), start); !errors.Is(err, policy.ErrUnsure) {
		t.Errorf("Save: %v", err)
	}
	counter.Fail(nil, nil)
	wantNil(t, l.Close(t.Context()))
	if n := passes(t, l, start, "anna", limits); n != 10 {
		t.Errorf("%d messages pass after all was refunded, want 10", n)
	}
}

// TestLocalShare: a tenth of each limit, within what is left as far as the node knows, and told later.
func TestLocalShare(t *testing.T) {
	at := start
	counter := policytest.NewShared(func() time.Time { return at })
	a := policy.NewSharedLimiter(counter, handoff, start, nil)
	b := policy.NewSharedLimiter(counter, handoff, start, nil)
	limits := parse(t, "100 messages/day", "45 recipients/day", "1000 new recipients/day", "200MB/day")
	took := take(t, a, start, "anna", limits, oneMessage)
	take(t, a, start, "ben", limits, policy.Usage{Messages: 98, Bytes: 1})
	counter.Fail(failing(errGone), nil)
	for login, want := range map[string]int{"anna": 4, "ben": 2, "carl": 4} {
		if n := passes(t, a, start, login, limits); n != want {
			t.Errorf("%d messages of %s pass, want %d", n, login, want)
		}
	}
	asked := counter.Calls()
	v, err := a.Take(t.Context(), start, "anna", limits, oneMessage)
	if v.OK || !v.Retry.IsZero() || err == nil || counter.Calls() != asked {
		t.Errorf("over the share: %+v, %v, asked %d times: a refusal would lock the login", v, err,
			counter.Calls()-asked)
	}
	v = take(t, a, start, "anna", limits, policy.Usage{Messages: 1, Bytes: 200_000_001})
	if !v.Never || v.Limit != limits[3] {
		t.Errorf("more than the limit: %+v", v)
	}
	took.Refund()
	two := parse(t, "20 messages/hour", "1 message/second", "100 new recipients/day")
	if n := passes(t, b, start, "dora", two); n != 0 {
		t.Errorf("%d messages pass within a share of less than one", n)
	}
	local := take(t, b, start, "dora", two[:1], oneMessage)
	if !local.OK || !local.Local {
		t.Errorf("verdict = %+v", local)
	}
	local.Refund()
	met := take(t, b, start, "dora", two[2:], policy.Usage{Messages: 1, Recipients: people(0, 10)})
	if !met.OK || !take(t, b, start, "dora", two[2:], policy.Usage{Messages: 1, Recipients: people(3, 7)}).OK {
		t.Error("those met by the local share are not known")
	}
	if v, err := b.Take(t.Context(), start, "dora", two[2:],
		policy.Usage{Messages: 1, Recipients: people(9, 11)}); v.OK || err == nil {
		t.Errorf("an eleventh of a hundred new ones: %+v, %v", v, err)
	}
	if n := passes(t, b, start, "dora", two[:1]); n != 2 {
		t.Errorf("%d messages pass after a refund, want 2", n)
	}

	counter.Fail(nil, failing(errUnsure)) // charges are told again, refunds are not: never more passes
	if err := a.Save(t.Context(), start); !errors.Is(err, policy.ErrUnsure) {
		t.Errorf("Save: %v", err)
	}
	counter.Fail(nil, nil)
	for _, l := range []*policy.Limiter{a, b} {
		wantNil(t, l.Save(t.Context(), start))
		wantNil(t, l.Save(t.Context(), start)) // once
	}
	for login, want := range map[string]int{"anna": 45 - 1 - 2*(4-1), "carl": 45 - 2*4} {
		if n := passes(t, b, start, login, limits); n != want {
			t.Errorf("%d messages of %s pass afterwards, want %d", n, login, want)
		}
	}
	if n := passes(t, a, start, "dora", two[:1]); n != 18 {
		t.Errorf("%d messages of dora pass afterwards, want 18", n)
	}
	if v := take(t, a, start, "dora", two[2:], policy.Usage{Messages: 1, Recipients: people(0, 100)}); !v.OK {
		t.Errorf("those met by the local share of another node are not known: %+v", v)
	}
	if v := take(t, a, start, "dora", two[2:], policy.Usage{Messages: 1, Recipients: people(100, 101)}); v.OK {
		t.Error("those met by the local share were not counted")
	}
}

// TestLocalShareOfManyNodes: with more than ten nodes all shares together are the limit still.
func TestLocalShareOfManyNodes(t *testing.T) {
	counter := policytest.NewShared(atStart)
	counter.Fail(failing(errGone), nil)
	limits := parse(t, "100 messages/day")
	for nodes, want := range map[int]int{0: 10, 3: 10, 11: 9, 25: 4, 101: 0} {
		l := policy.NewSharedLimiter(counter, policy.SharedOptions{Local: true, Nodes: func() int { return nodes }},
			start, nil)
		if n := passes(t, l, start, "anna", limits); n != want {
			t.Errorf("%d nodes: %d messages pass, want %d", nodes, n, want)
		}
	}
}

// TestLocalShareIsNoNewOne: a store that comes and goes renews no share.
func TestLocalShareIsNoNewOne(t *testing.T) {
	counter := policytest.NewShared(atStart)
	l := policy.NewSharedLimiter(counter, handoff, start, nil)
	limits := parse(t, "100 messages/day")
	passed := 0
	for range 5 {
		counter.Fail(failing(errGone), nil)
		passed += passes(t, l, start, "anna", limits)
		counter.Fail(nil, nil)
		wantNil(t, l.Save(t.Context(), start))
		if v := take(t, l, start, "anna", limits, oneMessage); !v.OK || v.Local {
			t.Fatalf("back again: %+v", v)
		}
		passed++
	}
	if passed != 15 {
		t.Errorf("%d messages pass, want 15", passed)
	}
}

// gate is a counter whose questions wait until they are let in.
type gate struct {
	*policytest.Shared
	let chan struct{}

	mu    sync.Mutex
	sizes []int
	boom  bool
}

func (g *gate) CountLimits(ctx context.Context, demands []policy.Demand) ([]policy.Answer, error) {
	g.mu.Lock()
	g.sizes = append(g.sizes, len(demands))
	boom := g.boom
	g.mu.Unlock()
	select {
	case <-g.let:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if boom {
		panic("boom")
	}
	return g.Shared.CountLimits(ctx, demands)
}

func newGate() *gate { return &gate{Shared: policytest.NewShared(atStart), let: make(chan struct{})} }

// TestSharedQuestionsTogether: who comes while a question is under way is in the next, with all others.
func TestSharedQuestionsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		l := policy.NewSharedLimiter(g, refuse, start, nil)
		limits := parse(t, "100 messages/day")
		var wg sync.WaitGroup
		passed := make(chan bool, 200)
		ask := func(ctx context.Context) {
			wg.Go(func() {
				v, err := l.Take(ctx, start, "anna", limits, oneMessage)
				passed <- v.OK && err == nil
			})
			synctest.Wait()
		}
		first, cancelFirst := context.WithCancel(t.Context())
		ask(first)
		gone, cancel := context.WithCancel(t.Context())
		ask(gone)
		for range 149 {
			ask(t.Context())
		}
		cancel() // it left before it was asked for
		cancelFirst()
		synctest.Wait()
		for range 4 {
			g.let <- struct{}{}
			synctest.Wait()
		}
		wg.Wait()
		n := 0
		for range 151 {
			if <-passed {
				n++
			}
		}
		if n != 100 || fmt.Sprint(g.sizes) != "[1 64 64 21]" {
			t.Errorf("%d passed of questions of %v", n, g.sizes)
		}
	})
}

// TestSharedWaiterLeaves: what was counted for one who left meanwhile is given back.
func TestSharedWaiterLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		l := policy.NewSharedLimiter(g, refuse, start, nil)
		limits := parse(t, "3 messages/day")
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go l.Take(t.Context(), start, "anna", limits, oneMessage)
		synctest.Wait()
		go l.Take(t.Context(), start, "anna", limits, oneMessage)
		synctest.Wait()
		go func() {
			_, err := l.Take(ctx, start, "anna", limits, oneMessage)
			left <- err
		}()
		synctest.Wait()
		g.let <- struct{}{}
		synctest.Wait() // the second question, of two, is under way
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("left with %v", err)
		}
		close(g.let)
		synctest.Wait()
		wantNil(t, l.Save(t.Context(), start))
		if n := passes(t, l, start, "anna", limits); n != 1 {
			t.Errorf("%d messages pass, want 1", n)
		}
	})
}

// TestSharedFault: a fault of our own ends the message that met it and those asked for together with it, not the next.
func TestSharedFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		l := policy.NewSharedLimiter(g, refuse, start, nil)
		limits := parse(t, "2 messages/day")
		results := make(chan string, 4)
		ask := func() {
			defer func() {
				if p := recover(); p != nil {
					results <- fmt.Sprint(p)
				}
			}()
			v, err := l.Take(t.Context(), start, "anna", limits, oneMessage)
			results <- fmt.Sprint(v.OK, err)
		}
		want := func(want ...string) {
			t.Helper()
			var got []string
			for range want {
				got = append(got, <-results)
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
		}
		for range 3 {
			go ask()
			synctest.Wait()
		}
		g.boom = true // for the second question, of two
		g.let <- struct{}{}
		want("true <nil>")
		synctest.Wait()
		go ask()
		synctest.Wait()
		g.boom = false
		g.let <- struct{}{}
		want("boom",
			`false count a message of "anna" against its limits: a fault of our own while the limits were counted`)
		g.let <- struct{}{}
		want("true <nil>")
	})
}

// TestSharedTimeout: a counter that hangs is given up.
func TestSharedTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := policy.NewSharedLimiter(newGate(), handoff, start, nil)
		v, err := l.Take(t.Context(), start, "anna", parse(t, "20 messages/day"), oneMessage)
		if err != nil || !v.Local || time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) > 10*time.Second {
			t.Errorf("verdict = %+v, %v", v, err)
		}
	})
}

// TestSharedNodes: over any history of messages and refunds of three nodes with clocks of their own, deaths included,
// what passes is what one bucket lets pass: not one more, and not one less.
func TestSharedNodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := start
		clock := func() time.Time { return at }
		counter, model := policytest.NewShared(clock), policytest.NewShared(clock)
		var nodes []*policy.Limiter
		for range 3 {
			nodes = append(nodes, policy.NewSharedLimiter(counter, refuse, start, nil))
		}
		limits := []policy.Limit{
			{Count: rapid.Int64Range(1, 50).Draw(t, "count"), Unit: policy.Messages, Window: time.Hour},
			{Count: rapid.Int64Range(1, 1<<40).Draw(t, "octets"), Unit: policy.Bytes, Window: 24 * time.Hour},
		}
		type passed struct {
			node int
			v    policy.Verdict
			d    policy.Demand
		}
		var taken []passed
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			at = at.Add(time.Duration(rapid.Int64Range(0, int64(10*time.Minute)).Draw(t, "step")))
			node := rapid.IntRange(0, 2).Draw(t, "node")
			switch what := rapid.IntRange(0, 9).Draw(t, "what"); {
			case what == 0: // it dies: what it took stays taken
				nodes[node] = policy.NewSharedLimiter(counter, refuse, start, nil)
			case what < 3 && len(taken) > 0:
				i := rapid.IntRange(0, len(taken)-1).Draw(t, "which")
				p := taken[i]
				taken = append(taken[:i:i], taken[i+1:]...)
				p.v.Refund()
				for i := range p.d.Charges {
					p.d.Charges[i].N *= -1
				}
				p.d.Settle = true
				model.CountLimits(context.Background(), []policy.Demand{p.d})
			default:
				n := rapid.Int64Range(1, limits[0].Count).Draw(t, "n")
				octets := rapid.Int64Range(1, limits[1].Count).Draw(t, "of")
				d := policy.Demand{Login: "anna", Charges: []policy.Charge{{Limit: limits[0], N: n},
					{Limit: limits[1], N: octets}}}
				want, _ := model.CountLimits(context.Background(), []policy.Demand{d})
				now := start.Add(time.Duration(rapid.Int64Range(-1e15, 1e15).Draw(t, "clock")))
				v := take(t, nodes[node], now, "anna", limits, policy.Usage{Messages: int(n), Bytes: octets})
				w := want[0]
				if v.OK != w.OK || !v.OK && (v.Retry.Sub(now) != w.Wait || v.Limit != limits[w.Exceeded]) {
					t.Fatalf("verdict = %+v, want %+v", v, want[0])
				}
				if v.OK {
					taken = append(taken, passed{node, v, d})
				}
			}
		}
	})
}

// TestLocalSharesInBounds: over any history of outages what three nodes let pass is what the limit and their shares let
// pass; and when all is told, no node lets pass what the limit alone would not.
func TestLocalSharesInBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := start
		counter := policytest.NewShared(func() time.Time { return at })
		var nodes []*policy.Limiter
		for range 3 {
			nodes = append(nodes, policy.NewSharedLimiter(counter, handoff, start, nil))
		}
		count := rapid.Int64Range(1, 200).Draw(t, "count")
		limits := []policy.Limit{{Count: count, Unit: policy.Messages, Window: time.Hour}}
		share := float64(count / 10)
		var passed int64
		type taken struct {
			v policy.Verdict
			n int64
		}
		var refunds []taken
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			at = at.Add(time.Duration(rapid.Int64Range(0, int64(5*time.Minute)).Draw(t, "step")))
			l := nodes[rapid.IntRange(0, 2).Draw(t, "node")]
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				counter.Fail(failing(errGone), nil)
			case 1:
				counter.Fail(nil, failing(errUnsure))
			case 2:
				counter.Fail(nil, nil)
			case 3:
				l.Save(context.Background(), at)
			case 4:
				if n := len(refunds); n > 0 {
					refunds[n-1].v.Refund()
					passed -= refunds[n-1].n
					refunds = refunds[:n-1]
				}
			default:
				n := rapid.Int64Range(1, min(count, 8)).Draw(t, "n")
				v, err := l.Take(context.Background(), at, "anna", limits, policy.Usage{Messages: int(n)})
				if err != nil && v.OK {
					t.Fatalf("%+v with %v", v, err)
				}
				if v.OK {
					passed += n
					refunds = append(refunds, taken{v, n})
				}
			}
			windows := 1 + at.Sub(start).Hours()
			if allowed := windows * (float64(count) + 3*share); float64(passed) > allowed+1e-6 {
				t.Fatalf("%d passed, at most %.3f may", passed, allowed)
			}
		}
		counter.Fail(nil, nil)
		for _, l := range nodes {
			wantNil(t, l.Save(context.Background(), at))
		}
		n := int64(0)
		for take(t, nodes[0], at, "anna", limits, policy.Usage{Messages: 1}).OK {
			n++
		}
		windows := 1 + at.Sub(start).Hours()
		if allowed := windows * float64(count); n > 0 && float64(passed+n) > allowed+1e-6 {
			t.Fatalf("%d more passed after all was told, %d in all, at most %.3f may", n, passed+n, allowed)
		}
	})
}
