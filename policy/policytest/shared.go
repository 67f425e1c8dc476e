package policytest

import (
	"context"
	"fmt"
	"math/big"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postern/policy"
)

// Shared is a policy.SharedLimits in memory, by the definition of a token bucket and in exact fractions.
type Shared struct {
	now func() time.Time

	mu      sync.Mutex
	before  func() error
	after   func() error
	buckets map[sharedKey]*sharedBucket
	known   map[[2]string]bool
	calls   int
}

type sharedKey struct {
	login string
	limit policy.Limit
}

// sharedBucket has tokens at a moment.
type sharedBucket struct {
	tokens *big.Rat
	at     time.Time
}

// NewShared returns a counter that nothing was counted on, with a clock.
func NewShared(now func() time.Time) *Shared {
	return &Shared{now: now, buckets: map[sharedKey]*sharedBucket{}, known: map[[2]string]bool{}}
}

// Fail makes each call return the error of before, with nothing counted, or that of after, with all of it counted; nil
// for none.
func (s *Shared) Fail(before, after func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before, s.after = before, after
}

// Calls returns how often it was asked to count.
func (s *Shared) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// CountLimits implements policy.SharedLimits.
func (s *Shared) CountLimits(ctx context.Context, demands []policy.Demand) (answers []policy.Answer, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.before != nil {
		if err := s.before(); err != nil {
			return nil, err
		}
	}
	now := s.now()
	for _, d := range demands {
		answers = append(answers, s.count(now, d))
	}
	if s.after != nil {
		if err := s.after(); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

func (s *Shared) count(now time.Time, d policy.Demand) policy.Answer {
	a := policy.Answer{OK: true, Exceeded: -1}
	for _, r := range d.Recipients {
		if !s.known[[2]string{d.Login, r}] {
			a.New++
		}
	}
	left := make([]*big.Rat, len(d.Charges))
	for i, c := range d.Charges {
		n := c.N
		if c.Limit.Unit == policy.NewRecipients && !d.Settle {
			n = a.New
		}
		left[i] = s.tokens(now, sharedKey{d.Login, c.Limit})
		count := big.NewRat(c.Limit.Count, 1)
		if n > c.Limit.Count && !d.Settle && !a.Never {
			a.OK, a.Never, a.Exceeded, a.Wait = false, true, i, 0
		}
		if n == 0 || a.Never {
			continue
		}
		after := new(big.Rat).Sub(left[i], big.NewRat(n, 1))
		if d.Settle {
			after = atLeast(after, new(big.Rat).Neg(count))
		} else if wait := refill(c.Limit, new(big.Rat).Neg(after)); wait > a.Wait {
			a.OK, a.Exceeded, a.Wait = false, i, wait
		}
		if after.Cmp(count) > 0 {
			after = count
		}
		left[i] = after
	}
	for i, c := range d.Charges {
		k := sharedKey{d.Login, c.Limit}
		if a.OK {
			s.buckets[k] = &sharedBucket{left[i], now}
		} else {
			left[i] = s.tokens(now, k)
		}
		a.Full = append(a.Full, refill(c.Limit, new(big.Rat).Sub(big.NewRat(c.Limit.Count, 1), left[i])))
	}
	for _, r := range d.Recipients {
		if a.OK {
			s.known[[2]string{d.Login, r}] = true
		}
	}
	return a
}

// refill is how long some tokens take to come back, rounded up to a nanosecond; 0 for less than none.
func refill(l policy.Limit, tokens *big.Rat) time.Duration {
	if tokens.Sign() <= 0 {
		return 0
	}
	t := new(big.Rat).Mul(tokens, big.NewRat(int64(l.Window), l.Count))
	q, r := new(big.Int).QuoRem(t.Num(), t.Denom(), new(big.Int))
	if r.Sign() > 0 {
		q.Add(q, big.NewInt(1))
	}
	return time.Duration(q.Int64())
}

func atLeast(a, b *big.Rat) *big.Rat {
	if a.Cmp(b) < 0 {
		return b
	}
	return a
}

// tokens is what a bucket has now. One whose clock was more than a window ahead is empty as of now.
func (s *Shared) tokens(now time.Time, k sharedKey) *big.Rat {
	count := big.NewRat(k.limit.Count, 1)
	b := s.buckets[k]
	if b == nil {
		return count
	}
	perNano := big.NewRat(k.limit.Count, int64(k.limit.Window))
	tokens := new(big.Rat).Add(b.tokens, perNano.Mul(perNano, big.NewRat(int64(now.Sub(b.at)), 1)))
	switch {
	case tokens.Cmp(new(big.Rat).Neg(count)) < 0:
		s.buckets[k] = &sharedBucket{new(big.Rat), now}
		return new(big.Rat)
	case tokens.Cmp(count) > 0:
		return count
	}
	return tokens
}

// DropFullLimits implements policy.SharedLimits.
func (s *Shared) DropFullLimits(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for k := range s.buckets {
		if s.tokens(now, k).Cmp(big.NewRat(k.limit.Count, 1)) == 0 {
			delete(s.buckets, k)
		}
	}
	return ctx.Err()
}

// RunSharedLimits tests a SharedLimits. open returns one that nothing was counted on, with a clock, which starts at
// some time of this century and shows whole microseconds.
func RunSharedLimits(t *testing.T, open func(t *testing.T, now func() time.Time) policy.SharedLimits) {
	t.Run("one by one", func(t *testing.T) { testSharedCases(t, open) })
	t.Run("new recipients", func(t *testing.T) { testSharedRecipients(t, open) })
	t.Run("the largest numbers", func(t *testing.T) { testSharedLargest(t, open) })
	t.Run("a wrong clock", func(t *testing.T) { testSharedClock(t, open) })
	t.Run("as the definition says", func(t *testing.T) { testSharedModel(t, open) })
	t.Run("exact under concurrency", func(t *testing.T) { testSharedConcurrent(t, open) })
	t.Run("a cancelled context counts nothing", func(t *testing.T) {
		s := open(t, func() time.Time { return now })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		one := demand("anna", policy.Charge{Limit: limit(t, "1 message/day"), N: 1})
		if _, err := s.CountLimits(ctx, []policy.Demand{one}); err == nil {
			t.Error("no error")
		}
		wantAnswers(t, s, []policy.Demand{one}, true)
	})
}

func limit(t *testing.T, text string) policy.Limit {
	t.Helper()
	l, err := policy.ParseLimit(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func demand(login string, charges ...policy.Charge) policy.Demand {
	return policy.Demand{Login: login, Charges: charges}
}

func count(t *testing.T, s policy.SharedLimits, demands ...policy.Demand) []policy.Answer {
	t.Helper()
	answers, err := s.CountLimits(t.Context(), demands)
	if err != nil || len(answers) != len(demands) {
		t.Fatalf("%d answers to %d demands, %v", len(answers), len(demands), err)
	}
	return answers
}

func wantAnswers(t *testing.T, s policy.SharedLimits, demands []policy.Demand, want ...bool) []policy.Answer {
	t.Helper()
	answers := count(t, s, demands...)
	for i, a := range answers {
		if a.OK != want[i] || len(a.Full) != len(demands[i].Charges) {
			t.Fatalf("answer %d of %d: %+v, want OK %v", i, len(answers), a, want[i])
		}
	}
	return answers
}

func testSharedCases(t *testing.T, open func(t *testing.T, now func() time.Time) policy.SharedLimits) {
	at := now
	s := open(t, func() time.Time { return at })
	minute, hour := limit(t, "3 messages/minute"), limit(t, "2MB/hour")
	mail := func(login string, octets int64) policy.Demand {
		return demand(login, policy.Charge{Limit: minute, N: 1}, policy.Charge{Limit: hour, N: octets})
	}
	if got := count(t, s); len(got) != 0 {
		t.Errorf("nothing demanded: %v", got)
	}
	// One question, one after the other; what the second is refused for counts nothing.
	got := wantAnswers(t, s, []policy.Demand{mail("anna", 1_500_000), mail("anna", 500_001), mail("anna", 500_000),
		mail("a\xff'\n", 2_000_000), mail("anna", 0)}, true, false, true, true, true)
	if a := got[1]; a.Exceeded != 1 || a.Wait != 1_800_000 || a.Never || a.Full[0] != 20*time.Second {
		t.Errorf("refused: %+v", a) // one octet comes back in 1.8 ms
	}
	if a := got[4]; a.Full[0] != time.Minute || a.Full[1] != time.Hour {
		t.Errorf("used up: %+v", a)
	}
	a := wantAnswers(t, s, []policy.Demand{mail("anna", 1)}, false)[0]
	if a.Exceeded != 0 || a.Wait != 20*time.Second {
		t.Errorf("the longest wait: %+v", a)
	}
	at = at.Add(20*time.Second - time.Microsecond)
	wantAnswers(t, s, []policy.Demand{mail("anna", 1)}, false)
	at = at.Add(time.Microsecond)
	wantAnswers(t, s, []policy.Demand{mail("anna", 1), mail("anna", 1)}, true, false)
	a = count(t, s, demand("anna", policy.Charge{Limit: minute, N: 1}, policy.Charge{Limit: hour, N: 2_000_001}))[0]
	if a.OK || !a.Never || a.Exceeded != 1 {
		t.Errorf("more than the limit: %+v", a)
	}
	back := mail("anna", -1)
	back.Charges[0].N, back.Settle = -1, true
	wantAnswers(t, s, []policy.Demand{back, mail("anna", 1), mail("anna", 0)}, true, true, false)
	at = at.Add(2 * time.Hour) // full: what comes back then is nothing
	if err := s.DropFullLimits(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantAnswers(t, s, []policy.Demand{back, mail("anna", 0), mail("anna", 0), mail("anna", 0), mail("anna", 0)},
		true, true, true, true, false)
	if err := s.DropFullLimits(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantAnswers(t, s, []policy.Demand{mail("anna", 0)}, false) // not dropped
	// What was decided elsewhere is counted whatever is left, and waited for.
	debt := demand("ben", policy.Charge{Limit: minute, N: 3})
	debt.Settle = true
	a = wantAnswers(t, s, []policy.Demand{mail("ben", 1), debt, mail("ben", 1)}, true, true, false)[2]
	if a.Wait != 40*time.Second {
		t.Errorf("after a debt: %+v", a)
	}
	debt.Charges[0].N = 1 << 53 // no debt is longer than a window
	a = wantAnswers(t, s, []policy.Demand{debt, mail("ben", 1)}, true, false)[1]
	if a.Wait != time.Minute+20*time.Second {
		t.Errorf("after a debt without measure: %+v", a)
	}
}

func testSharedRecipients(t *testing.T, open func(t *testing.T, now func() time.Time) policy.SharedLimits) {
	at := now
	s := open(t, func() time.Time { return at })
	two := policy.Charge{Limit: limit(t, "2 new recipients/day")}
	to := func(login string, addrs ...string) policy.Demand {
		return policy.Demand{Login: login, Charges: []policy.Charge{two}, Recipients: addrs}
	}
	got := wantAnswers(t, s, []policy.Demand{to("anna", "a@x", "b@x", "c@x"), to("anna", "a@x"),
		to("anna", "a@x", "b@x"), to("anna", "a@x", "b@x"), to("anna", "b@x", "\xff\\,\n"), to("ben", "a@x")},
		false, true, true, true, false, true)
	for i, want := range []int64{3, 1, 1, 0, 1, 1} {
		if got[i].New != want {
			t.Errorf("answer %d: %d new, want %d", i, got[i].New, want)
		}
	}
	if !got[0].Never || got[4].Never || got[4].Wait != 12*time.Hour {
		t.Errorf("refused: %+v, %+v", got[0], got[4])
	}
	met := to("anna", "d@x", "e@x")
	met.Settle = true // remembered, and counted as it says: not at all
	at = at.Add(12 * time.Hour)
	got = wantAnswers(t, s, []policy.Demand{met, to("anna", "d@x", "e@x", "f@x"), to("anna", "g@x")}, true, true, false)
	if got[1].New != 1 {
		t.Errorf("after they were remembered: %+v", got[1])
	}
	at = at.Add(100 * 24 * time.Hour)
	wantAnswers(t, s, []policy.Demand{to("anna", "a@x", "b@x", "d@x", "e@x", "f@x")}, true)
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprintf("user%d@example.com", i))
	}
	two.Limit = limit(t, "1000 new recipients/day")
	got = count(t, s, to("carl", many...), to("carl", many...))
	if !got[0].OK || got[0].New != 1000 || got[1].New != 0 {
		t.Errorf("a thousand: %+v", got)
	}
}

// testSharedLargest: products of what is counted and windows exceed 64 bits.
func testSharedLargest(t *testing.T, open func(t *testing.T, now func() time.Time) policy.SharedLimits) {
	at := now
	s := open(t, func() time.Time { return at })
	year := policy.Limit{Count: 1 << 53, Unit: policy.Bytes, Window: 366 * 24 * time.Hour}
	second := policy.Limit{Count: 1 << 53, Unit: policy.Bytes, Window: time.Second}
	rare := policy.Limit{Count: 1, Unit: policy.Messages, Window: 366 * 24 * time.Hour}
	both := func(n int64) policy.Demand {
		return demand("anna", policy.Charge{Limit: year, N: n}, policy.Charge{Limit: second, N: n})
	}
	wantAnswers(t, s, []policy.Demand{both(1<<53 - 1), both(1), demand("anna", policy.Charge{Limit: rare, N: 1})},
		true, true, true)
	a := count(t, s, both(1), demand("anna", policy.Charge{Limit: rare, N: 1}))
	if a[0].OK || a[0].Wait != 4 || a[0].Exceeded != 0 || a[1].Wait != rare.Window {
		t.Errorf("refused: %+v", a)
	}
	at = at.Add(time.Microsecond) // 284.8 octets of the year
	wantAnswers(t, s, []policy.Demand{both(285), both(284), both(1)}, false, true, false)
	at = at.Add(time.Microsecond) // 569.6
	wantAnswers(t, s, []policy.Demand{both(285), both(1)}, true, false)
}

// testSharedClock: a clock that goes back refills no time twice; one that was far ahead is not waited for.
func testSharedClock(t *testing.T, open func(t *testing.T, now func() time.Time) policy.SharedLimits) {
	at := now
	s := open(t, func() time.Time { return at })
	one := demand("anna", policy.Charge{Limit: limit(t, "60 messages/hour"), N: 60})
	wantAnswers(t, s, []policy.Demand{one}, true)
	at = now.Add(time.Hour)
	wantAnswers(t, s, []policy.Demand{one}, true)
	at = now.Add(time.Minute)
	wantAnswers(t, s, []policy.Demand{one}, false)
	at = now.Add(time.Hour)
	wantAnswers(t, s, []policy.Demand{one}, false)
	at = now.AddDate(-10, 0, 0)
	if a := wantAnswers(t, s, []policy.Demand{one}, false)[0]; a.Wait != time.Hour {
		t.Errorf("in the past: %+v", a)
	}
	at = at.Add(time.Hour)
	wantAnswers(t, s, []policy.Demand{one, one}, true, false)
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		l := policy.Limit{Count: rapid.Int64Range(1, 1000).Draw(t, "count"), Unit: policy.Messages,
			Window: time.Duration(rapid.IntRange(1, 100_000).Draw(t, "window")) * time.Second}
		first, latest, passed := at, at, int64(0)
		for i := range 20 {
			w := int64(l.Window / time.Microsecond)
			at = at.Add(time.Duration(rapid.Int64Range(-w/20, w/5).Draw(t, "step")) * time.Microsecond)
			if i == 0 {
				first = at
			}
			if at.After(latest) {
				latest = at
			}
			n := rapid.Int64Range(1, l.Count).Draw(t, "n")
			d := demand(fmt.Sprint("clock", run), policy.Charge{Limit: l, N: n})
			answers, err := s.CountLimits(context.Background(), []policy.Demand{d})
			if err != nil {
				t.Fatal(err)
			}
			if answers[0].OK {
				passed += n
			}
			refilled := new(big.Rat).Mul(big.NewRat(l.Count, int64(l.Window)), big.NewRat(int64(latest.Sub(first)), 1))
			if allowed := refilled.Add(refilled, big.NewRat(l.Count, 1)); big.NewRat(passed, 1).Cmp(allowed) > 0 {
				t.Fatalf("%d passed, at most %s may", passed, allowed.FloatString(3))
			}
		}
		at = latest
	})
}

// testSharedModel compares random histories with Shared, answer by answer.
func testSharedModel(t *testing.T, open func(t *testing.T, now func() time.Time) policy.SharedLimits) {
	at := now
	clock := func() time.Time { return at }
	s, model := open(t, clock), NewShared(clock)
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++ // other logins: what was is not disturbed
		var limits []policy.Limit
		for i := range rapid.IntRange(1, 4).Draw(t, "limits") {
			limits = append(limits, policy.Limit{
				Count: rapid.SampledFrom([]int64{1, 2, 3, 7, 10, 60, 999, 1 << 31, 1<<53 - 111}).Draw(t,
					fmt.Sprint("count", i)),
				Unit: policy.Unit(rapid.IntRange(1, 4).Draw(t, fmt.Sprint("unit", i))),
				// Plus i, so that no two are the same.
				Window: time.Duration(rapid.SampledFrom([]int{1, 60, 3601, 86400, 31_000_000}).Draw(t,
					fmt.Sprint("window", i))+i) * time.Second,
			})
		}
		var taken []policy.Demand
		for range rapid.IntRange(1, 12).Draw(t, "questions") {
			w := int64(limits[rapid.IntRange(0, len(limits)-1).Draw(t, "whose")].Window / time.Microsecond)
			step := rapid.OneOf(rapid.Int64Range(0, w/3), rapid.Int64Range(0, 10)).Draw(t, "step")
			at = at.Add(time.Duration(step) * time.Microsecond)
			var demands []policy.Demand
			for range rapid.IntRange(0, 4).Draw(t, "demands") {
				demands = append(demands, drawDemand(t, run, limits, &taken))
			}
			if rapid.IntRange(0, 9).Draw(t, "drop") == 0 {
				if err := s.DropFullLimits(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			got, err := s.CountLimits(context.Background(), demands)
			want, _ := model.CountLimits(context.Background(), demands)
			if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("%+v\n     = %+v, %v\nwant %+v", demands, got, err, want)
			}
			for i, a := range want {
				if a.OK && !demands[i].Settle {
					taken = append(taken, demands[i])
				}
			}
		}
	})
}

// drawDemand draws a message, a refund of one that was counted, or a debt.
func drawDemand(t *rapid.T, run int, limits []policy.Limit, taken *[]policy.Demand) policy.Demand {
	what := rapid.IntRange(0, 5).Draw(t, "what")
	if what == 0 && len(*taken) > 0 {
		i := rapid.IntRange(0, len(*taken)-1).Draw(t, "which")
		d := (*taken)[i]
		*taken = append((*taken)[:i:i], (*taken)[i+1:]...)
		back := policy.Demand{Login: d.Login, Settle: true}
		for _, c := range d.Charges {
			if c.Limit.Unit != policy.NewRecipients {
				back.Charges = append(back.Charges, policy.Charge{Limit: c.Limit, N: -c.N})
			}
		}
		return back
	}
	d := policy.Demand{Login: fmt.Sprint("login", run, "-", rapid.IntRange(0, 1).Draw(t, "login")), Settle: what == 1}
	for _, l := range limits {
		c := policy.Charge{Limit: l}
		if l.Unit != policy.NewRecipients || d.Settle {
			c.N = rapid.OneOf(rapid.Int64Range(0, l.Count), rapid.Int64Range(0, min(2, l.Count))).Draw(t, "n")
		}
		d.Charges = append(d.Charges, c)
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "recipients") {
		if rapid.Bool().Draw(t, "whom") {
			d.Recipients = append(d.Recipients, fmt.Sprint("user", i, "@example.com"))
		}
	}
	return d
}

// testSharedConcurrent: what many ask for at once, in whatever order of logins, lets exactly the limits pass.
func testSharedConcurrent(t *testing.T, open func(t *testing.T, now func() time.Time) policy.SharedLimits) {
	s := open(t, func() time.Time { return now })
	hundred, octets := limit(t, "100 messages/day"), limit(t, "50MB/day")
	met := policy.Charge{Limit: limit(t, "150 new recipients/day")}
	logins := []string{"anna", "ben", "carl"}
	var mu sync.Mutex
	passed, fresh, known := map[string]int{}, map[string]int64{}, map[[2]string]bool{}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for j := range 25 {
				var demands []policy.Demand
				for i := range logins {
					login := logins[(i*(1+g%2)+j)%3]
					demands = append(demands, policy.Demand{Login: login,
						Recipients: []string{fmt.Sprint(j), fmt.Sprint(g, "-", j/5)},
						Charges:    []policy.Charge{{Limit: octets, N: 1}, {Limit: hundred, N: 1}, met}})
				}
				answers, err := s.CountLimits(context.Background(), demands)
				if err != nil {
					t.Error(err)
					return
				}
				var back []policy.Demand
				for i, a := range answers {
					mu.Lock()
					for _, to := range demands[i].Recipients {
						known[[2]string{demands[i].Login, to}] = known[[2]string{demands[i].Login, to}] || a.OK
					}
					if a.OK {
						fresh[demands[i].Login] += a.New
					}
					if a.OK && j%5 != 0 {
						passed[demands[i].Login]++
					}
					mu.Unlock()
					if a.OK && j%5 == 0 {
						back = append(back, policy.Demand{Login: demands[i].Login, Settle: true,
							Charges: []policy.Charge{{Limit: hundred, N: -1}, {Limit: octets, N: -1}}})
					}
				}
				if _, err := s.CountLimits(context.Background(), back); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, login := range logins {
		for count(t, s, demand(login, policy.Charge{Limit: hundred, N: 1}))[0].OK {
			passed[login]++
		}
		if passed[login] != 100 {
			t.Errorf("%d messages of %s passed, want 100", passed[login], login)
		}
		for k, met := range known {
			if met && k[0] == login {
				fresh[login]--
			}
		}
		if fresh[login] != 0 {
			t.Errorf("%s: %d more were new than there are", login, fresh[login])
		}
	}
}
