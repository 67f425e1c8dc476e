package account

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/mail"
	"postern/relay/upstream"
)

// conns is a Held that the tests set.
type conns struct {
	idle, closing int
	kept          bool // there is something to remember
}

func (c *conns) Connections() (idle, closing int) { return c.idle, c.closing }
func (c *conns) Blank() bool                      { return !c.kept }
func (c *conns) Shed(n int)                       { c.idle -= n }

const office = "office@example.com"

// newTable makes one of three slots; change may be nil.
func newTable(change func(*upstream.Settings, *Options)) *Table[*conns] {
	set := &upstream.Settings{Name: "up", Username: office, MaxConnections: 3, MaxRecipients: 100,
		Jitter: func() float64 { return 0.5 }}
	o := Options{Spent: upstream.BackingOff, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(set, &o)
	}
	return New(set, o, func() *conns { return new(conns) })
}

// rated is newTable with rates.
func rated(quotas upstream.QuotaStore, rates ...upstream.Rate) *Table[*conns] {
	return newTable(func(set *upstream.Settings, _ *Options) { set.Rates, set.Quotas = rates, quotas })
}

func messages(n int64, per time.Duration) upstream.Rate {
	return upstream.Rate{Count: n, Unit: upstream.Messages, Per: per}
}

// reserve takes a slot that must be free.
func reserve(t testing.TB, tb *Table[*conns]) *Slot[*conns] {
	t.Helper()
	s, until := tb.Reserve(time.Now(), "", nil)
	if s == nil {
		t.Fatalf("no place, until %v", until)
	}
	return s
}

// use takes a slot for a message to n recipients and says what came of it.
func use(t testing.TB, tb *Table[*conns], n int, news News) {
	t.Helper()
	s := reserve(t, tb)
	s.Charge(n)
	s.Record(news)
	s.Release(nil)
}

// refused says how the next is told to wait; busy: OnChange will tell.
func refused(t testing.TB, tb *Table[*conns], want time.Duration) {
	t.Helper()
	s, until := tb.Reserve(time.Now(), "", nil)
	wait := time.Duration(0)
	if !until.IsZero() {
		wait = time.Until(until)
	}
	if s != nil || wait < want || wait > want+want/30 {
		t.Errorf("a place %v, wait %v, want %v", s != nil, wait, want)
	}
}

func state(tb *Table[*conns]) upstream.State { return tb.States()[0] }

// shut ends a table in which nobody is.
func shut(t testing.TB, tb *Table[*conns]) {
	t.Helper()
	tb.Shut()
	if err := tb.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

// Between the taking of a slot and of its idle connection nobody sees both: the connection would be closed, or count
// twice.
func TestSlotTakesAnIdleConnection(t *testing.T) {
	tb := newTable(nil)
	tb.Update(func() { tb.accountLocked(office).held.idle = 1 })
	s, _ := tb.Reserve(time.Now(), "", func(c *conns) {
		if tb.mu.TryLock() {
			t.Error("others may look")
		}
		c.idle--
	})
	if st := state(tb); st.InUse != 1 || st.Idle != 0 || !s.lonely {
		t.Errorf("%+v, lonely %v", st, s.lonely)
	}
}

func TestPlacesAreBounded(t *testing.T) {
	tb := newTable(nil)
	woken := 0
	tb.OnChange(func() { woken++ })
	a, b, c := reserve(t, tb), reserve(t, tb), reserve(t, tb)
	refused(t, tb, 0)
	if other, _ := tb.Reserve(time.Now(), "other@example.com", nil); other == nil {
		t.Error("places of one account are taken from another")
	}
	a.Release(nil)
	a.Release(nil) // does nothing
	if st := state(tb); woken != 1 || st.InUse != 2 || st.Limit != 3 || st.Most != 3 || st.Identity != office ||
		st.Upstream != "up" {
		t.Errorf("woken %d times, %+v", woken, st)
	}
	tb.Update(func() { b.Held().closing = 1 })
	refused(t, tb, 0) // the provider counts it still
	tb.Update(func() { b.Held().closing, b.Held().idle = 0, 3 })
	reserve(t, tb).Release(nil)
	if c.Release(func(keep bool) {
		if keep {
			t.Error("there are as many connections as may be")
		}
	}); state(tb).Idle != 3 {
		t.Errorf("%+v", state(tb))
	}
	tb.Update(func() { b.Held().idle = 2 })
	b.Release(func(keep bool) {
		if !keep {
			t.Error("there is room for a third connection")
		}
	})
}

func TestNamesThatDifferInCase(t *testing.T) {
	for fold, want := range map[bool]int{false: 2, true: 1} {
		tb := newTable(func(_ *upstream.Settings, o *Options) { o.FoldCase = fold })
		reserve(t, tb)
		tb.Reserve(time.Now(), "Office@example.com", nil)
		if st := tb.States(); len(st) != want || st[len(st)-1].Identity != office {
			t.Errorf("%v: %+v", fold, st)
		}
	}
}

// TestNamesThatOnlyLookAlike: letters that Unicode has as capitals of ASCII ones, such as the sign of kelvin, are of
// other logins, which must not share an account.
func TestNamesThatOnlyLookAlike(t *testing.T) {
	tb := newTable(func(_ *upstream.Settings, o *Options) { o.FoldCase = true })
	tb.Reserve(time.Now(), "kim@example.com", nil)
	tb.Reserve(time.Now(), "\u212aim@example.com", nil)
	if st := tb.States(); len(st) != 2 {
		t.Errorf("%+v", st)
	}
}

// Accounts without a history make room; one that has anything to remember stays.
func TestAccountsAreBounded(t *testing.T) {
	tb := newTable(nil)
	kept, _ := tb.Reserve(time.Now(), "kept", nil)
	kept.Held().kept = true
	kept.Release(nil)
	for i := range maxAccounts + 500 {
		s, _ := tb.Reserve(time.Now(), fmt.Sprint("user", i), nil)
		if s == nil {
			t.Fatalf("no place for account %d", i)
		}
		s.Release(nil)
	}
	st := tb.States()
	if len(st) > maxAccounts || !slices.ContainsFunc(st, func(s upstream.State) bool { return s.Identity == "kept" }) {
		t.Errorf("%d accounts", len(st))
	}
	full := newTable(nil)
	for i := range maxAccounts {
		full.Reserve(time.Now(), fmt.Sprint("user", i), nil)
	}
	if s, until := full.Reserve(time.Now(), "one more", nil); s != nil || !until.IsZero() {
		t.Error("a table of which all is in use takes one more")
	}
}

func TestOneProbeAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(nil)
		wake := make(chan struct{}, 10)
		use(t, tb, 1, News{Verdict: Pressure, Reply: mail.R(451, "4.4.1", "no route")})
		refused(t, tb, BackoffFirst)
		tb.OnChange(func() { wake <- struct{}{} })
		<-wake // at the end of the wait
		probe := reserve(t, tb)
		refused(t, tb, 0)
		if !state(tb).Probing {
			t.Errorf("%+v", state(tb))
		}
		probe.Release(nil) // unused: another may probe
		probe = reserve(t, tb)
		probe.Record(News{Verdict: Works})
		probe.Record(News{Verdict: Fault}) // the first counts
		if st := state(tb); st.Status != upstream.Ready {
			t.Errorf("%+v", st)
		}
		reserve(t, tb)
		reserve(t, tb)
	})
}

// Attempts that fail together are one failure.
func TestFailuresOfACohortCountOnce(t *testing.T) {
	tb := newTable(nil)
	for _, s := range []*Slot[*conns]{reserve(t, tb), reserve(t, tb), reserve(t, tb)} {
		defer s.Release(nil)
		s.Record(News{Verdict: Fault, Reply: mail.R(535, "5.7.8", "no")})
	}
	if st := state(tb); st.Failures != 1 || st.Status != upstream.Paused || st.Reply.Code != 535 || st.Since.IsZero() {
		t.Errorf("%+v", st)
	}
}

// A login that somebody has mended is tried at once; what was said of a message waits its time.
func TestTryAgain(t *testing.T) {
	for early, want := range map[bool]bool{true: true, false: false} {
		tb := newTable(nil)
		use(t, tb, 1, News{Verdict: Fault, Early: early})
		woken := false
		tb.OnChange(func() { woken = true })
		tb.TryAgain()
		if s, _ := tb.Reserve(time.Now(), "", nil); (s != nil) != want || woken != want {
			t.Errorf("early %v: a place %v, woken %v", early, s != nil, woken)
		}
	}
}

// Too much at a time costs a slot, and a wait only where there is none to take or nobody else was there.
func TestTooMuchAtATime(t *testing.T) {
	tb := newTable(nil)
	slow := News{Verdict: Pressure, Slow: true, Reply: mail.R(432, "4.3.2", "too many")}
	a, b := reserve(t, tb), reserve(t, tb)
	if !a.Record(slow) || state(tb).Status != upstream.Ready || state(tb).Limit != 2 {
		t.Errorf("the first of two: %+v", state(tb))
	}
	a.Release(nil)
	b.Release(nil)
	alone := reserve(t, tb)
	if !alone.Record(slow) || state(tb).Status != upstream.BackingOff {
		t.Errorf("alone: %+v", state(tb))
	}
}

func TestWaitsForTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := rated(nil, messages(2, 30*time.Second), messages(3, time.Hour))
		began, wake := time.Now(), make(chan struct{}, 10)
		use(t, tb, 1, News{Verdict: Works})
		use(t, tb, 1, News{Verdict: Works})
		tb.OnChange(func() { wake <- struct{}{} })
		refused(t, tb, 0) // a short wait is no time to postpone until
		<-wake
		if waited := time.Since(began); waited < 30*time.Second || waited > 31*time.Second {
			t.Errorf("woken after %v", waited)
		}
		use(t, tb, 1, News{Verdict: Works})
		refused(t, tb, time.Hour-30*time.Second)
		if other, _ := tb.Reserve(time.Now(), "somebody@example.com", nil); other == nil {
			t.Error("another account shares the rate")
		}
	})
}

// A slot that is given back has used up nothing.
func TestReleaseGivesTheShareBack(t *testing.T) {
	tb := rated(nil, messages(1, time.Hour), upstream.Rate{Count: 1, Unit: upstream.Recipients, Per: time.Hour})
	for range 3 {
		s := reserve(t, tb)
		refused(t, tb, 0) // what is under way may come back
		s.Release(nil)
	}
}

func TestClaimsAreForWhatThereIsRoomFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := rated(nil, upstream.Rate{Count: 5, Unit: upstream.Recipients, Per: time.Hour})
		s := reserve(t, tb)
		if got, _ := s.Claim(t.Context(), 3); got != 3 {
			t.Errorf("%d of 3", got)
		}
		s.Charge(3)
		if got, _ := s.Claim(t.Context(), 9); got != 2 {
			t.Errorf("%d of 9, with room for 2", got)
		}
		s.Charge(2)
		if got, wait := s.Claim(t.Context(), 1); got != 0 || wait < 59*time.Minute {
			t.Errorf("%d, wait %v", got, wait)
		}
	})
}

func TestRefusedSenders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(nil)
		s := reserve(t, tb)
		from := mail.Address{Local: "alice", Domain: "example.com"}
		said := mail.Result{Class: mail.AccountFault, Reply: mail.R(554, "5.2.252", "SendAsDenied"),
			RetryAfter: time.Hour}
		s.SenderRefused(time.Now(), from, said)
		if _, held := s.SenderHeld(time.Now(), from); held || len(tb.Denied(time.Now())) != 0 {
			t.Error("held after one refusal")
		}
		s.SenderRefused(time.Now(), from, said)
		if r, held := s.SenderHeld(time.Now(), from); !held || r != said {
			t.Errorf("%v, %+v", held, r)
		}
		if d := tb.Denied(time.Now()); len(d) != 1 || d[0].Sender != "alice@example.com" || d[0].Identity != office ||
			d[0].Refusals != 2 || d[0].Reply.Code != 554 || time.Until(d[0].Until) != senderFirst {
			t.Errorf("%+v", d)
		}
		time.Sleep(senderFirst)
		if _, held := s.SenderHeld(time.Now(), from); held {
			t.Error("held after its time")
		}
		s.SenderWorks(from)
		s.SenderRefused(time.Now(), from, said)
		if _, held := s.SenderHeld(time.Now(), from); held {
			t.Error("a success is forgotten")
		}
		for i := range 5 * maxSenders {
			from.Local = fmt.Sprint("a", i)
			s.SenderRefused(time.Now(), from, said)
			s.SenderRefused(time.Now(), from, said)
		}
		if n := len(s.a.senders); n > maxSenders {
			t.Errorf("%d senders are remembered", n)
		}
	})
}

// shelf is a QuotaStore in memory that can fail.
type shelf struct {
	mu     sync.Mutex
	quotas []upstream.Quota
	fail   error
	saves  int
}

func (q *shelf) LoadQuotas(context.Context, string) ([]upstream.Quota, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.quotas, q.fail
}

func (q *shelf) SaveQuotas(_ context.Context, _ string, quotas []upstream.Quota) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.saves++
	if q.fail == nil {
		q.quotas = slices.Clone(quotas)
	}
	return q.fail
}

// Saving is rare under load, comes at the end, and its failure stops nobody.
func TestQuotasAreSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		saved := &shelf{}
		rates := []upstream.Rate{{Count: 1000, Unit: upstream.Recipients, Per: 24 * time.Hour},
			messages(100, time.Second)}
		tb := rated(saved, rates...)
		for range 50 {
			use(t, tb, 4, News{Verdict: Works})
		}
		time.Sleep(saveEvery + time.Second)
		synctest.Wait()
		if saved.saves != 1 {
			t.Errorf("%d saves", saved.saves)
		}
		use(t, tb, 1, News{Verdict: Works})
		shut(t, tb)
		time.Sleep(time.Hour)
		synctest.Wait()
		if saved.saves != 2 || len(saved.quotas[0].Counts) != 1 {
			t.Errorf("%d saves an hour after the end: %+v", saved.saves, saved.quotas)
		}
		if used := state(rated(saved, rates...)).Rates[0].Used; used != 201 {
			t.Errorf("%d used", used)
		}
		saved.fail = errors.New("disk full")
		use(t, rated(saved, rates...), 1, News{Verdict: Works})
	})
}

// What a crash may forget is half a minute; what has left the window meanwhile does not count.
func TestCountsSurviveACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		saved, day := &shelf{}, messages(3, 24*time.Hour)
		tb := rated(saved, day)
		for range 3 {
			use(t, tb, 1, News{Verdict: Works})
		}
		time.Sleep(saveEvery + time.Second)
		synctest.Wait()
		refused(t, rated(saved, day), 24*time.Hour)
		time.Sleep(26 * time.Hour)
		reserve(t, rated(saved, day))
	})
}

// What was saved by another version, or by nobody sane, does no harm.
func TestQuotasAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		count := func(unit upstream.Unit, leaves time.Duration, n int64) upstream.QuotaCount {
			return upstream.QuotaCount{Unit: unit, Per: time.Hour, Leaves: now.Add(leaves), Count: n}
		}
		tb := rated(&shelf{quotas: []upstream.Quota{{Identity: office, Until: now.Add(1000 * time.Hour * 24),
			Counts: []upstream.QuotaCount{
				count(upstream.Messages, 100*time.Hour, 5), count(upstream.Messages, -time.Hour, 5),
				count(upstream.Messages, time.Minute, -5), count("octets", time.Minute, 5),
			}}}}, messages(10, time.Hour))
		if st := state(tb); st.Rates[0].Used != 5 || st.Until.Sub(now) > upstream.MaxQuota {
			t.Errorf("%+v", st)
		}
		time.Sleep(62 * time.Minute)
		if st := state(tb); st.Rates[0].Used != 0 {
			t.Errorf("counts for longer than its window: %+v", st)
		}
	})
}

// A quota that is used up waits until what was sent leaves its window, survives a restart and a change of the
// configuration, and is forgotten with the first success.
func TestSpentQuotas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		saved := &shelf{}
		open := func(set *upstream.Settings, o *Options) {
			set.Quotas, o.Windows, o.Spent = saved, []time.Duration{time.Hour}, upstream.Paused
		}
		tb := newTable(open)
		for range ourShare {
			use(t, tb, 1, News{Verdict: Works})
		}
		use(t, tb, 1, News{Verdict: Fault, Spent: true, Window: time.Hour, Reply: mail.R(454, "4.2.3", "used up")})
		refused(t, tb, time.Hour)
		synctest.Wait() // saved at once
		again := newTable(open)
		refused(t, again, time.Hour)
		if st := state(again); st.Status != upstream.Paused || st.Reply.Code != 454 {
			t.Errorf("%+v", st)
		}
		heir := newTable(open)
		heir.Inherit(again.HandOver())
		refused(t, heir, time.Hour)
		time.Sleep(time.Hour + 2*time.Minute)
		use(t, heir, 1, News{Verdict: Works})
		synctest.Wait()
		if len(saved.quotas) != 1 || !saved.quotas[0].Until.IsZero() {
			t.Errorf("%+v", saved.quotas)
		}
	})
}

// Who inherits goes on counting, what is under way included, and the other writes no more.
func TestInherit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		saved, rates := &shelf{}, []upstream.Rate{messages(5, time.Hour), messages(5, 10*time.Second)}
		old := rated(saved, rates...)
		use(t, old, 1, News{Verdict: Works})
		time.Sleep(saveEvery)
		synctest.Wait()
		if saved.saves != 1 {
			t.Fatalf("%d saves", saved.saves)
		}
		use(t, old, 1, News{Verdict: Works})
		flying := reserve(t, old)
		heir := rated(saved, rates...) // reads what was saved
		heir.Inherit(old.HandOver())
		if st := state(heir); st.Rates[0].Used != 3 || st.Rates[1].Used != 2 {
			t.Errorf("%+v", st.Rates)
		}
		flying.Release(nil)
		shut(t, old)
		if saved.saves != 1 {
			t.Errorf("%d saves", saved.saves)
		}
		shut(t, heir)
		if len(saved.quotas) != 1 || len(saved.quotas[0].Counts) != 1 {
			t.Errorf("%+v", saved.quotas)
		}
	})
}

// What the store says is older than what is inherited: a quota that is free again holds nobody.
func TestInheritOutweighsTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stale := &shelf{quotas: []upstream.Quota{{Identity: office, Until: time.Now().Add(time.Hour)}}}
		heir := newTable(func(set *upstream.Settings, _ *Options) { set.Quotas = stale })
		refused(t, heir, time.Hour)
		heir.Inherit(newTable(nil).HandOver())
		use(t, heir, 1, News{Verdict: Works})
		shut(t, heir)
	})
}

func TestWaitIsForEveryPlace(t *testing.T) {
	tb := newTable(nil)
	s := reserve(t, tb)
	tb.Update(func() { s.Held().idle = 1 })
	tb.Shut()
	refused(t, tb, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tb.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a place is in use: %v", err)
	}
	s.Release(nil)
	if err := tb.Wait(ctx); err == nil {
		t.Error("a connection is open")
	}
	tb.Each(func(c *conns) { c.idle = 0 })
	if err := tb.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

func BenchmarkReserve(b *testing.B) {
	tb := rated(nil, messages(1<<30, time.Minute), upstream.Rate{Count: 1 << 30, Unit: upstream.Recipients,
		Per: 24 * time.Hour})
	at := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		s, _ := tb.Reserve(at, "", nil)
		s.Release(nil)
	}
}
