package policy_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"postern/mail"
	"postern/policy"
	"postern/policy/policytest"
)

func TestMemory(t *testing.T) {
	policytest.RunLimitStore(t, func(*testing.T) policy.LimitStore { return policytest.NewMemory() })
}

var start = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)

type helper interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func newLimiter(t helper, store policy.LimitStore, now time.Time) *policy.Limiter {
	t.Helper()
	l, err := policy.NewLimiter(context.Background(), store, now, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func parse(t helper, texts ...string) (limits []policy.Limit) {
	t.Helper()
	for _, s := range texts {
		l, err := policy.ParseLimit(s)
		if err != nil {
			t.Fatal(err)
		}
		limits = append(limits, l)
	}
	return limits
}

func people(from, to int) (list []mail.Address) {
	for i := from; i < to; i++ {
		list = append(list, mail.Address{Local: fmt.Sprint("user", i), Domain: "example.com"})
	}
	return list
}

func take(t helper, l *policy.Limiter, now time.Time, login string, limits []policy.Limit,
	u policy.Usage) policy.Verdict {
	t.Helper()
	v, err := l.Take(context.Background(), now, login, limits, u)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var oneMessage = policy.Usage{Messages: 1, Recipients: people(0, 1), Bytes: 1000}

func TestBurstThenRate(t *testing.T) {
	l := newLimiter(t, policytest.NewMemory(), start)
	limits := parse(t, "60 messages/minute")
	for i := range 60 {
		if !take(t, l, start, "anna", limits, oneMessage).OK {
			t.Fatalf("message %d was refused", i+1)
		}
	}
	v := take(t, l, start, "anna", limits, oneMessage)
	if v.OK || v.Never || v.Limit != limits[0] || v.Retry.Sub(start).Round(time.Second/10) != time.Second {
		t.Fatalf("verdict = %+v", v)
	}
	if !take(t, l, start, "bob", limits, oneMessage).OK {
		t.Error("another login pays for it")
	}
	if !take(t, l, v.Retry, "anna", limits, oneMessage).OK || take(t, l, v.Retry, "anna", limits, oneMessage).OK {
		t.Error("at the time to come back one message passes, not none and not two")
	}
}

func TestAllOrNothing(t *testing.T) {
	l := newLimiter(t, policytest.NewMemory(), start)
	limits := parse(t, "10 messages/minute", "20 recipients/hour", "1MB/day")
	ten := policy.Usage{Messages: 1, Recipients: people(0, 10), Bytes: 1000}
	take(t, l, start, "anna", limits, ten)
	take(t, l, start, "anna", limits, ten)
	for range 20 { // the recipients are used up: nothing else may be taken
		v := take(t, l, start, "anna", limits, oneMessage)
		if v.OK || v.Limit.Unit != policy.Recipients || v.Need != 1 {
			t.Fatalf("verdict = %+v", v)
		}
	}
	v := take(t, l, start, "anna", limits, policy.Usage{Messages: 8, Bytes: 998_000})
	if !v.OK {
		t.Errorf("refused messages were counted: %+v", v)
	}
}

// TestWhenToComeBack: of several limits the one that stands in the way longest is named.
func TestWhenToComeBack(t *testing.T) {
	l := newLimiter(t, policytest.NewMemory(), start)
	limits := parse(t, "1 message/minute", "1 message/hour", "2 messages/day")
	take(t, l, start, "anna", limits, oneMessage)
	v := take(t, l, start, "anna", limits, oneMessage)
	if v.OK || v.Limit != limits[1] || v.Retry.Sub(start).Round(time.Minute) != time.Hour {
		t.Fatalf("verdict = %+v", v)
	}
	if !take(t, l, v.Retry, "anna", limits, oneMessage).OK {
		t.Error("the time to come back was too early")
	}
}

func TestNever(t *testing.T) {
	l := newLimiter(t, policytest.NewMemory(), start)
	limits := parse(t, "60 messages/minute", "10 recipients/day")
	v := take(t, l, start, "anna", limits, policy.Usage{Messages: 1, Recipients: people(0, 11)})
	if v.OK || !v.Never || v.Limit != limits[1] || v.Need != 11 {
		t.Fatalf("verdict = %+v", v)
	}
	if !take(t, l, start, "anna", limits, policy.Usage{Messages: 60, Recipients: people(0, 10)}).OK {
		t.Error("what can never pass was counted")
	}
}

func TestRefund(t *testing.T) {
	l := newLimiter(t, policytest.NewMemory(), start)
	limits := parse(t, "2 messages/hour", "1MB/hour")
	v := take(t, l, start, "anna", limits, policy.Usage{Messages: 2, Bytes: 1_000_000})
	v.Refund()
	v.Refund() // once
	v = take(t, l, start, "anna", limits, policy.Usage{Messages: 1, Bytes: 600_000})
	if !v.OK {
		t.Fatalf("nothing came back: %+v", v)
	}
	take(t, l, start, "anna", limits, policy.Usage{Messages: 1, Bytes: 400_000})
	if refused := take(t, l, start, "anna", limits, oneMessage); refused.OK {
		t.Error("more came back than was taken")
	} else {
		refused.Refund() // took nothing, gives nothing
	}
	later := start.Add(time.Hour) // refilled meanwhile: a refund fills no more than the bucket
	v.Refund()
	if !take(t, l, later, "anna", limits, policy.Usage{Messages: 2}).OK ||
		take(t, l, later, "anna", limits, oneMessage).OK {
		t.Error("the bucket holds another number than its count")
	}
	first := take(t, l, later, "bob", limits, oneMessage)
	take(t, l, later, "bob", limits, oneMessage)
	first.Refund()
	first.Refund()
	if !take(t, l, later, "bob", limits, oneMessage).OK || take(t, l, later, "bob", limits, oneMessage).OK {
		t.Error("a refund counts as often as it is called")
	}
}

func TestRefundIsSaved(t *testing.T) {
	store := policytest.NewMemory()
	l := newLimiter(t, store, start)
	limits := parse(t, "1 message/day")
	v := take(t, l, start, "anna", limits, oneMessage)
	wantNil(t, l.Save(t.Context(), start))
	v.Refund()
	wantNil(t, l.Save(t.Context(), start))
	if !take(t, newLimiter(t, store, start), start, "anna", limits, oneMessage).OK {
		t.Error("a restart takes back the refund")
	}
}

func TestSameLimitTwiceCountsOnce(t *testing.T) {
	l := newLimiter(t, policytest.NewMemory(), start)
	limits := parse(t, "2 messages/hour", "2 messages/60m")
	for range 2 {
		if !take(t, l, start, "anna", limits, oneMessage).OK {
			t.Fatal("counted twice")
		}
	}
}

// TestClockBackwards: an hour that is lived twice refills once.
func TestClockBackwards(t *testing.T) {
	l := newLimiter(t, policytest.NewMemory(), start)
	limits := parse(t, "60 messages/hour")
	sixty := policy.Usage{Messages: 60}
	take(t, l, start, "anna", limits, sixty)
	if !take(t, l, start.Add(time.Hour), "anna", limits, sixty).OK {
		t.Fatal("not refilled after an hour")
	}
	if take(t, l, start, "anna", limits, oneMessage).OK ||
		take(t, l, start.Add(time.Hour), "anna", limits, oneMessage).OK {
		t.Error("the hour was refilled twice")
	}
}

func TestNewRecipients(t *testing.T) {
	store := policytest.NewMemory()
	l := newLimiter(t, store, start)
	limits := parse(t, "5 new recipients/day")
	to := func(list []mail.Address) policy.Usage { return policy.Usage{Messages: 1, Recipients: list} }
	if !take(t, l, start, "anna", limits, to(people(0, 3))).OK {
		t.Fatal("refused")
	}
	for range 10 { // known by now, in whatever case and form they are written
		known := append(people(0, 3), mail.Address{Local: "USER1", Domain: "example.com"})
		if !take(t, l, start, "anna", limits, to(known)).OK {
			t.Fatal("known recipients count as new")
		}
	}
	if v := take(t, l, start, "anna", limits, to(people(0, 6))); v.OK || v.Need != 3 {
		t.Fatalf("verdict = %+v", v)
	}
	if v := take(t, l, start, "anna", limits, to(people(3, 6))); v.OK {
		t.Error("who was refused became known")
	}
	if !take(t, l, start, "anna", limits, to(append(people(3, 4), people(3, 5)...))).OK {
		t.Error("the same recipient twice counts twice")
	}
	if !take(t, l, start, "bob", limits, to(people(0, 5))).OK {
		t.Error("logins share what is new")
	}
	if n := store.Calls("RememberRecipients"); n != 0 {
		t.Errorf("%d writes, one for each message: they must wait for the next save", n)
	}

	wantNil(t, l.Save(t.Context(), start))
	again := newLimiter(t, store, start)
	if !take(t, again, start, "anna", limits, to(people(0, 5))).OK ||
		take(t, again, start, "anna", limits, to(people(5, 6))).OK {
		t.Error("a restart forgot who is known, or what was taken")
	}
	asked := store.Calls("NewRecipients")
	for range 10 {
		take(t, again, start, "anna", limits, to(people(0, 5)))
	}
	if n := store.Calls("NewRecipients") - asked; n != 0 {
		t.Errorf("the store was asked %d times about recipients that memory knows", n)
	}
}

// TestRefundKeepsNewRecipients: a message that is refused after it was counted must not make its
// recipients known for free.
func TestRefundKeepsNewRecipients(t *testing.T) {
	l := newLimiter(t, policytest.NewMemory(), start)
	limits := parse(t, "5 new recipients/day", "1 message/day")
	v := take(t, l, start, "anna", limits, policy.Usage{Messages: 1, Recipients: people(0, 5)})
	v.Refund()
	if !take(t, l, start, "anna", limits, policy.Usage{Messages: 1, Recipients: people(0, 5)}).OK {
		t.Error("the same message does not pass again")
	}
	if take(t, l, start, "anna", limits[:1], policy.Usage{Messages: 1, Recipients: people(5, 6)}).OK {
		t.Error("recipients became known for free")
	}
}

func TestStoreTrouble(t *testing.T) {
	store := policytest.NewMemory()
	broken := errors.New("disk full")
	store.Fail(broken)
	if _, err := policy.NewLimiter(t.Context(), store, start, nil); !errors.Is(err, broken) {
		t.Errorf("NewLimiter: %v", err)
	}
	store.Fail(nil)
	l := newLimiter(t, store, start)
	store.Fail(broken)
	v, err := l.Take(t.Context(), start, "anna", parse(t, "5 new recipients/day"), oneMessage)
	if !errors.Is(err, broken) || v.OK {
		t.Errorf("Take = %+v, %v", v, err)
	}
	v.Refund()
	limits := parse(t, "1 message/day")
	if !take(t, l, start, "anna", limits, oneMessage).OK {
		t.Error("limits that need no store stop with it")
	}
	if err := l.Save(t.Context(), start); !errors.Is(err, broken) {
		t.Errorf("Save: %v", err)
	}
	store.Fail(nil)
	wantNil(t, l.Save(t.Context(), start))
	if take(t, newLimiter(t, store, start), start, "anna", limits, oneMessage).OK {
		t.Error("what could not be saved was not tried again")
	}

	fresh := parse(t, "1 new recipient/day")
	if !take(t, l, start, "carl", fresh, oneMessage).OK {
		t.Fatal("refused")
	}
	store.Fail(broken)
	if err := l.Save(t.Context(), start); !errors.Is(err, broken) {
		t.Errorf("Save: %v", err)
	}
	store.Fail(nil)
	wantNil(t, l.Save(t.Context(), start))
	if !take(t, newLimiter(t, store, start), start, "carl", fresh, oneMessage).OK {
		t.Error("a recipient that could not be saved was not tried again")
	}
}

func TestRestart(t *testing.T) {
	store := policytest.NewMemory()
	l := newLimiter(t, store, start)
	limits := parse(t, "60 messages/hour", "60 messages/day")
	take(t, l, start, "anna", limits, policy.Usage{Messages: 60})
	wantNil(t, l.Save(t.Context(), start.Add(time.Second)))
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{time.Second, 0}, {time.Hour + time.Second, 2}, {10*time.Hour + time.Second, 25}, {48 * time.Hour, 60},
		{-time.Hour, 0}} {
		again := newLimiter(t, store, start.Add(c.after))
		passed := 0
		for take(t, again, start.Add(c.after), "anna", limits, oneMessage).OK {
			passed++
		}
		if passed != c.want {
			t.Errorf("restarted after %s: %d messages pass, want %d", c.after, passed, c.want)
		}
	}
}

// TestManyRestarts: parts of a token that were refilled are not lost either.
func TestManyRestarts(t *testing.T) {
	store := policytest.NewMemory()
	limits := parse(t, "60 messages/hour")
	now := start
	l := newLimiter(t, store, now)
	take(t, l, now, "anna", limits, policy.Usage{Messages: 50})
	for range 61 { // 61 times ten seconds are ten messages
		wantNil(t, l.Save(t.Context(), now))
		now = now.Add(10 * time.Second)
		l = newLimiter(t, store, now)
		take(t, l, now, "anna", limits, oneMessage).Refund() // a change: it is saved again
	}
	passed := 0
	for take(t, l, now, "anna", limits, oneMessage).OK {
		passed++
	}
	if passed != 20 {
		t.Errorf("%d messages pass, want 20", passed)
	}
}

// TestClockWrongAtRestart: a state from the future refills nothing, and does not wait for that future.
func TestClockWrongAtRestart(t *testing.T) {
	store := policytest.NewMemory()
	limits := parse(t, "60 messages/hour")
	future := start.AddDate(10, 0, 0)
	l := newLimiter(t, store, future)
	take(t, l, future, "anna", limits, policy.Usage{Messages: 60})
	wantNil(t, l.Save(t.Context(), future))
	again := newLimiter(t, store, start)
	v := take(t, again, start, "anna", limits, oneMessage)
	if v.OK || v.Retry.Sub(start) > 2*time.Minute {
		t.Errorf("verdict = %+v", v)
	}
	if !take(t, again, v.Retry, "anna", limits, oneMessage).OK {
		t.Error("the limit waits for the future")
	}
}

func TestStatesThatCannotBeRead(t *testing.T) {
	store := policytest.NewMemory()
	full := start.Add(time.Hour)
	wantNil(t, store.SaveLimits(t.Context(), start, []policy.State{
		{Login: "a", Limit: "of another age", Tokens: 1, At: start, Full: full},
		{Login: "b", Limit: "2 messages/hour", Tokens: math.NaN(), At: start, Full: full},
		{Login: "c", Limit: "2 messages/hour", Tokens: -5, At: start, Full: full},
		{Login: "d", Limit: "2 messages/hour", Tokens: 99, At: start, Full: full},
	}))
	l := newLimiter(t, store, start)
	limits := parse(t, "2 messages/hour")
	for login, want := range map[string]int{"c": 0, "d": 2} {
		passed := 0
		for take(t, l, start, login, limits, oneMessage).OK {
			passed++
		}
		if passed != want {
			t.Errorf("%s: %d messages pass, want %d", login, passed, want)
		}
	}
}

func TestRunSaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := policytest.NewMemory()
		l := newLimiter(t, store, time.Now())
		limits := parse(t, "1 message/day")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); l.Run(ctx) }()
		take(t, l, time.Now(), "anna", limits, oneMessage)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if take(t, newLimiter(t, store, time.Now()), time.Now(), "anna", limits, oneMessage).OK {
			t.Error("a crash after three seconds gives everything away")
		}
		saves := store.Calls("SaveLimits")
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := store.Calls("SaveLimits") - saves; n != 0 {
			t.Errorf("%d writes while nothing happened", n)
		}
		take(t, l, time.Now(), "bob", limits, oneMessage)
		cancel()
		<-done
		wantNil(t, l.Close(context.Background()))
		if take(t, newLimiter(t, store, time.Now()), time.Now(), "bob", limits, oneMessage).OK {
			t.Error("a restart gives away what was taken last")
		}
	})
}

// TestNeverMoreThanBurstAndRate: over any history of messages, refunds, restarts and clocks that go
// backwards, what passed since the beginning is at most the count and what was refilled.
func TestNeverMoreThanBurstAndRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := policytest.NewMemory()
		count := rapid.Int64Range(1, 1000).Draw(t, "count")
		window := time.Duration(rapid.IntRange(1, 100_000).Draw(t, "window")) * time.Second
		limit := policy.Limit{Count: count, Unit: policy.Messages, Window: window}
		limits := []policy.Limit{limit, {Count: 1 << 40, Unit: policy.Bytes, Window: time.Hour}}
		now, latest := start, start
		l := newLimiter(t, store, now)
		passed := int64(0)
		var refunds []policy.Verdict
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			step := time.Duration(rapid.Int64Range(-int64(window)/20, int64(window)/5).Draw(t, "step"))
			now = now.Add(step)
			if now.After(latest) {
				latest = now
			}
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0: // restart; the clock of a new process is the wall clock, which we hold to be right
				now = latest
				wantNil(t, l.Save(context.Background(), now))
				l = newLimiter(t, store, now)
				refunds = nil
			case 1:
				if len(refunds) > 0 {
					refunds[len(refunds)-1].Refund()
					passed -= refunds[len(refunds)-1].Need
					refunds = refunds[:len(refunds)-1]
				}
			default:
				n := rapid.Int64Range(1, count).Draw(t, "n")
				v := take(t, l, now, "anna", limits, policy.Usage{Messages: int(n), Bytes: 1})
				if v.OK {
					passed += n
					v.Need = n
					refunds = append(refunds, v)
					break
				}
				if !v.Retry.After(now) {
					t.Fatalf("refused until %s, and it is %s", v.Retry, now)
				}
			}
			allowed := float64(count) + float64(count)*latest.Sub(start).Seconds()/window.Seconds()
			if float64(passed) > allowed+1e-6 {
				t.Fatalf("%d passed, at most %.3f may", passed, allowed)
			}
		}
	})
}

// TestComingBackInTime: who comes back when told to, passes.
func TestComingBackInTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLimiter(t, policytest.NewMemory(), start)
		var limits []policy.Limit
		for i := range rapid.IntRange(1, 4).Draw(t, "limits") {
			limits = append(limits, policy.Limit{
				Count:  rapid.Int64Range(1, 1<<32).Draw(t, fmt.Sprint("count", i)),
				Unit:   rapid.SampledFrom([]policy.Unit{policy.Messages, policy.Bytes}).Draw(t, fmt.Sprint("unit", i)),
				Window: time.Duration(rapid.Int64Range(1, 30_000_000).Draw(t, fmt.Sprint("window", i))) * time.Second,
			})
		}
		now := start
		for range 20 {
			u := policy.Usage{Messages: rapid.IntRange(1, 3).Draw(t, "messages"),
				Bytes: rapid.Int64Range(1, 1<<32).Draw(t, "bytes")}
			v := take(t, l, now, "anna", limits, u)
			if v.OK || v.Never {
				continue
			}
			if v.Retry.Sub(now) > v.Limit.Window+time.Second {
				t.Fatalf("told to wait %s for a window of %s", v.Retry.Sub(now), v.Limit.Window)
			}
			now = v.Retry
			if again := take(t, l, now, "anna", limits, u); !again.OK {
				t.Fatalf("came back in time and was refused: %+v", again)
			}
		}
	})
}

func TestConcurrentTakes(t *testing.T) {
	store := policytest.NewMemory()
	l := newLimiter(t, store, start)
	limits := parse(t, "100 messages/day", "50 new recipients/day")
	var wg sync.WaitGroup
	var mu sync.Mutex
	passed := 0
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				v, err := l.Take(context.Background(), start, "anna", limits,
					policy.Usage{Messages: 1, Recipients: people(j%5, j%5+1)})
				if err != nil {
					t.Error(err)
				}
				if v.OK && j%10 == 9 {
					v.Refund()
				} else if v.OK {
					mu.Lock()
					passed++
					mu.Unlock()
				}
				if i == 0 && j%10 == 0 {
					l.Save(context.Background(), start)
				}
			}
		})
	}
	wg.Wait()
	if passed != 100 {
		t.Errorf("%d messages passed, want 100", passed)
	}
}

func wantNil(t helper, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func BenchmarkTake(b *testing.B) {
	l := newLimiter(b, policytest.NewMemory(), start)
	limits := parse(b, "60 messages/second", "100000000 messages/day", "200000000 recipients/day",
		"200 new recipients/day", "2000GB/day")
	ctx := context.Background()
	now := start
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		if v, err := l.Take(ctx, now, "anna", limits, oneMessage); err != nil || !v.OK {
			b.Fatal(v, err)
		}
	}
}
