package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/fakesmtp"
	"postern/mail"
)

// bubble makes an Upstream whose connections are pipes to a fake with a hook.
func bubble(t *testing.T, hook func(*fakesmtp.Session, string, string) fakesmtp.Action, change func(*Config)) (*fakesmtp.Server, *Upstream) {
	fake := fakesmtp.New(fakesmtp.Config{Extensions: fakesmtp.Full, Hook: hook})
	u := pipes(t, fake.Serve, func(cfg *Config) {
		cfg.Jitter = func() float64 { return 0.5 }
		if change != nil {
			change(cfg)
		}
	})
	t.Cleanup(fake.Close)
	return fake, u
}

func TestReserveWaitsForTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, u := bubble(t, nil, func(cfg *Config) {
			cfg.Rates = []Rate{{Count: 2, Unit: Messages, Per: 30 * time.Second}, {Count: 3, Unit: Messages, Per: time.Hour}}
		})
		wake := make(chan struct{}, 1)
		u.OnChange(func() {
			select {
			case wake <- struct{}{}:
			default:
			}
		})
		began := time.Now()
		send(t, u, message(t))
		send(t, u, message(t))
		for len(wake) > 0 {
			<-wake
		}
		if s, until := u.Reserve(time.Now(), ""); s != nil || !until.IsZero() {
			t.Fatalf("a short wait is no time to postpone until: %v %v", s != nil, until)
		}
		var s *Slot
		for s == nil {
			<-wake // comes by itself
			s, _ = u.Reserve(time.Now(), "")
		}
		s.Release()
		if waited := time.Since(began); waited < 30*time.Second || waited > 31*time.Second {
			t.Errorf("woken after %v", waited)
		}
		send(t, u, message(t))
		var until time.Time
		if s, until = u.Reserve(time.Now(), ""); s != nil || until.Sub(began) < time.Hour || until.Sub(began) > 62*time.Minute {
			t.Errorf("a long wait: %v %v", s != nil, until)
		}
		if other, _ := u.Reserve(time.Now(), "somebody@example.com"); other == nil {
			t.Error("another identity shares the rate")
		} else {
			other.Release()
		}
		if n := len(fake.Messages()); n != 3 {
			t.Errorf("%d messages", n)
		}
	})
}

// A place that is given back has used up nothing.
func TestReleaseGivesTheShareBack(t *testing.T) {
	u := newUpstream(t, Config{Name: "office", Host: "mx.example.com", TLS: TLSNone,
		Rates: []Rate{{Count: 1, Unit: Messages, Per: time.Hour}, {Count: 1, Unit: Recipients, Per: time.Hour}}})
	for range 3 {
		s, _ := u.Reserve(time.Now(), "")
		if s == nil {
			t.Fatal("no place")
		}
		if again, until := u.Reserve(time.Now(), ""); again != nil || !until.IsZero() {
			t.Fatalf("what is under way may come back: %v %v", again != nil, until)
		}
		s.Release()
	}
}

// A connection that does not get ready has used up nothing either.
func TestFailedConnectionsCostNoRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(t, Config{Name: "office", Host: "mx.example.com", TLS: TLSNone, Rates: []Rate{{Count: 1, Unit: Messages, Per: 24 * time.Hour}},
			Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route") }})
		for range 5 {
			wantClasses(t, send(t, u, message(t)), "back-pressure")
			time.Sleep(time.Until(state(u).Until)) // the fake clock's
		}
		if used := state(u).Rates[0].Used; used != 0 {
			t.Errorf("%d used", used)
		}
	})
}

// An envelope that has no room goes in parts, and the rest waits without blame.
func TestEnvelopesAreSplitToFitTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, u := bubble(t, nil, func(cfg *Config) { cfg.Rates = []Rate{{Count: 3, Unit: Recipients, Per: time.Hour}} })
		var to []string
		for i := range 5 {
			to = append(to, fmt.Sprintf("r%d@example.net", i))
		}
		r := send(t, u, message(t, to...))
		wantClasses(t, r, "delivered delivered delivered deferral deferral")
		if r[4].RetryAfter < 59*time.Minute || r[4].Reply.Enhanced != "4.4.5" {
			t.Errorf("%+v", r[4])
		}
		if st := state(u); st.Status != Ready || st.Rates[0].Used != 3 || len(fake.Messages()) != 1 {
			t.Errorf("%+v, %d messages", st, len(fake.Messages()))
		}
	})
}

// Too many connections takes places away before anybody waits, idle ones first; success gives them back.
func TestPlacesFollowTheAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		refuse := 0
		fake, u := bubble(t, func(_ *fakesmtp.Session, verb, _ string) fakesmtp.Action {
			mu.Lock()
			defer mu.Unlock()
			if verb == "MAIL" && refuse > 0 {
				refuse--
				return fakesmtp.Action{Reply: "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded"}
			}
			return fakesmtp.Action{}
		}, func(cfg *Config) { cfg.MaxConnections = 4 })
		crowd := func(n int) {
			var slots []*Slot // all of them before the first is used: an answer may take places away
			for range n {
				s, _ := u.Reserve(time.Now(), "")
				if s == nil {
					t.Fatalf("place %d of %d is taken", len(slots)+1, n)
				}
				slots = append(slots, s)
			}
			var sends sync.WaitGroup
			for _, s := range slots {
				sends.Go(func() { use(s, context.Background(), message(t)) })
			}
			sends.Wait()
			synctest.Wait()
		}
		crowd(4)
		refuse = 3
		crowd(4)
		st := state(u)
		if st.Status != Ready || st.Limit != 3 || st.Most != 4 || st.Idle+st.Closing > 3 {
			t.Errorf("after one crowd: %+v", st)
		}
		a, _ := u.Reserve(time.Now(), "")
		b, _ := u.Reserve(time.Now(), "")
		for range 3 * riseShare { // with every place in use
			wantClasses(t, send(t, u, message(t)), "delivered")
		}
		a.Release()
		b.Release()
		if st = state(u); st.Limit != 4 {
			t.Errorf("after %d rounds: %+v", riseShare, st)
		}
		if n := fake.Counts().MostOpen; n > 4 {
			t.Errorf("%d connections at once", n)
		}
		mu.Lock()
		refuse = 1000
		mu.Unlock()
		for range 20 {
			if s, _ := u.Reserve(time.Now(), ""); s != nil {
				use(s, context.Background(), message(t))
			}
		}
		if st = state(u); st.Status != BackingOff {
			t.Errorf("nobody gets through: %+v", st)
		}
	})
}

// Who is the last of a crowd to be refused was not alone, even if the connections of the others have ended by then.
func TestTheLastOfACrowdDoesNotPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mails atomic.Int32
		_, u := bubble(t, func(_ *fakesmtp.Session, verb, _ string) fakesmtp.Action {
			if verb != "MAIL" {
				return fakesmtp.Action{}
			}
			n := mails.Add(1)
			time.Sleep(time.Duration(n) * time.Minute / 10) // the fake clock's: one after the other, with time to say QUIT
			return fakesmtp.Action{Reply: "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded"}
		}, func(cfg *Config) { cfg.MaxConnections = 4 })
		a, _ := u.Reserve(time.Now(), "")
		b, _ := u.Reserve(time.Now(), "")
		var sends sync.WaitGroup
		for _, s := range []*Slot{a, b} {
			sends.Go(func() { use(s, context.Background(), message(t)) })
		}
		sends.Wait()
		if st := state(u); st.Status != Ready {
			t.Errorf("after two: %+v", st)
		}
		synctest.Wait()
		send(t, u, message(t)) // this one is alone: others use the account
		if st := state(u); st.Status != BackingOff {
			t.Errorf("alone: %+v", st)
		}
	})
}

func TestHeldSendersAreNotOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		granted := false
		fake, u := bubble(t, func(_ *fakesmtp.Session, verb, line string) fakesmtp.Action {
			if verb == "MAIL" && strings.Contains(line, "alice@") && !granted {
				asked++
				return fakesmtp.Action{Reply: "554 5.2.252 SendAsDenied; relay not allowed to send as alice"}
			}
			return fakesmtp.Action{}
		}, func(cfg *Config) {
			cfg.Rules = []Rule{{Name: "send-as", Stages: fromMail, Text: "SendAsDenied", Class: mail.AccountFault, Scope: ScopeSender, RetryAfter: time.Hour}}
		})
		for range 10 {
			r := send(t, u, message(t))
			if r[0].Class != mail.AccountFault || r[0].Rule != "send-as" || r[0].RetryAfter != time.Hour || r[0].Reply.Code != 554 {
				t.Fatalf("%+v", r[0])
			}
		}
		if asked != 2 || send(t, u, message(t))[0].Note != noteHeld {
			t.Errorf("asked %d times", asked)
		}
		if d := u.Denied(time.Now()); len(d) != 1 || d[0].Sender != "alice@example.com" || d[0].Refusals != 2 || d[0].Reply.Code != 554 || !d[0].Until.After(time.Now()) {
			t.Errorf("denied: %+v", d)
		}
		bob := message(t)
		bob.From = address(t, "bob@example.com")
		wantClasses(t, send(t, u, bob), "delivered")
		time.Sleep(time.Minute) // the fake clock's
		if d := u.Denied(time.Now()); len(d) != 0 {
			t.Errorf("denied after its time: %+v", d)
		}
		granted = true
		wantClasses(t, send(t, u, message(t)), "delivered")
		granted = false
		send(t, u, message(t)) // one refusal does not hold
		granted = true
		wantClasses(t, send(t, u, message(t)), "delivered")
		if n := len(fake.Messages()); n != 3 {
			t.Errorf("%d messages", n)
		}
	})
}

func TestRefusedSendersAreBounded(t *testing.T) {
	u := newUpstream(t, Config{Name: "office", Host: "mx.example.com", TLS: TLSNone})
	s, _ := u.Reserve(time.Now(), "")
	defer s.Release()
	for i := range 5 * maxSenders {
		for range 2 {
			s.senderRefused(time.Now(), address(t, fmt.Sprintf("a%d@example.com", i)), &fault{})
		}
	}
	if n := len(s.id.senders); n > maxSenders {
		t.Errorf("%d senders are remembered", n)
	}
}

func TestExtensionsAreAdjusted(t *testing.T) {
	r := mail.Reply{Code: 250, Text: "hello\nSIZE 52428800\nPIPELINING\nCHUNKING\n8BITMIME"}
	for _, c := range []struct {
		assume, deny []string
		most         int64
		want         extensions
	}{
		{nil, nil, 0, extensions{pipelining: true, chunking: true, eightBit: true, sizeOffered: true, size: 52428800}},
		{nil, nil, 25e6, extensions{pipelining: true, chunking: true, eightBit: true, sizeOffered: true, size: 25e6}},
		{nil, nil, 99e6, extensions{pipelining: true, chunking: true, eightBit: true, sizeOffered: true, size: 52428800}},
		{[]string{"dsn", "SMTPUTF8"}, []string{"chunking", "PIPELINING", "8BITMIME"}, 0, extensions{dsn: true, utf8: true, sizeOffered: true, size: 52428800}},
		{[]string{"SIZE 1000"}, []string{"DSN", "SMTPUTF8"}, 0, extensions{pipelining: true, chunking: true, eightBit: true, sizeOffered: true, size: 1000}},
		{nil, []string{"SIZE"}, 500, extensions{pipelining: true, chunking: true, eightBit: true, size: 500}},
	} {
		x := parseEHLO(r)
		x.adjust(c.assume, c.deny, c.most)
		x.keywords = nil
		if fmt.Sprint(x) != fmt.Sprint(c.want) {
			t.Errorf("%v %v %d: %+v, want %+v", c.assume, c.deny, c.most, x, c.want)
		}
	}
	for _, cfg := range []Config{{AssumeExtensions: []string{"AUTH PLAIN"}}, {DenyExtensions: []string{"STARTTLS"}},
		{Rates: []Rate{{Count: 0, Unit: Messages, Per: time.Hour}}}, {Rates: []Rate{{Count: 1, Unit: "octets", Per: time.Hour}}}, {Rates: []Rate{{Count: 1, Unit: Messages}}}} {
		cfg.Host = "mx.example.com"
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
}

// quotaShelf is a QuotaStore that can fail.
type quotaShelf struct {
	mu     sync.Mutex
	quotas []Quota
	fail   error
	saves  int
}

func (q *quotaShelf) LoadQuotas(context.Context, string) ([]Quota, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.quotas, q.fail
}

func (q *quotaShelf) SaveQuotas(_ context.Context, _ string, quotas []Quota) error {
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
		shelf := &quotaShelf{}
		rates := []Rate{{Count: 1000, Unit: Recipients, Per: 24 * time.Hour}}
		_, u := bubble(t, nil, func(cfg *Config) { cfg.Rates, cfg.Quotas = rates, shelf })
		for range 200 {
			send(t, u, message(t))
		}
		time.Sleep(saveEvery + time.Second) // the fake clock's
		synctest.Wait()
		if shelf.saves != 1 {
			t.Errorf("%d saves", shelf.saves)
		}
		send(t, u, message(t))
		if err := u.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if shelf.saves != 2 {
			t.Errorf("%d saves after Close", shelf.saves)
		}
		time.Sleep(time.Hour) // the fake clock's
		if shelf.saves != 2 {
			t.Errorf("%d saves an hour after Close", shelf.saves)
		}
		_, u = bubble(t, nil, func(cfg *Config) { cfg.Rates, cfg.Quotas = rates, shelf })
		if st := state(u); st.Rates[0].Used != 201 {
			t.Errorf("%+v", st)
		}
		shelf.fail = errors.New("disk full")
		_, u = bubble(t, nil, func(cfg *Config) { cfg.Rates, cfg.Quotas = rates, shelf })
		wantClasses(t, send(t, u, message(t)), "delivered")
	})
}

// What was saved by another version, or by nobody sane, does no harm.
func TestQuotasAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		shelf := &quotaShelf{quotas: []Quota{
			{Identity: "", Until: now.Add(1000 * time.Hour * 24), Counts: []QuotaCount{
				{Unit: Messages, Per: time.Hour, Leaves: now.Add(100 * time.Hour), Count: 5},
				{Unit: Messages, Per: time.Hour, Leaves: now.Add(-time.Hour), Count: 5},
				{Unit: Messages, Per: time.Hour, Leaves: now.Add(time.Minute), Count: -5},
				{Unit: "octets", Per: time.Hour, Leaves: now.Add(time.Minute), Count: 5},
			}},
		}}
		_, u := bubble(t, nil, func(cfg *Config) {
			cfg.Rates, cfg.Quotas = []Rate{{Count: 10, Unit: Messages, Per: time.Hour}}, shelf
		})
		st := state(u)
		if st.Rates[0].Used != 5 || st.Until.Sub(now) > maxQuota {
			t.Errorf("%+v", st)
		}
		time.Sleep(62 * time.Minute) // the fake clock's
		if st = state(u); st.Rates[0].Used != 0 {
			t.Errorf("counts for longer than its window: %+v", st)
		}
	})
}

func BenchmarkReserveWithRates(b *testing.B) {
	u, err := New(Config{Name: "office", Host: "mx.example.com", TLS: TLSNone,
		Rates: []Rate{{Count: 1 << 30, Unit: Messages, Per: time.Minute}, {Count: 1 << 30, Unit: Recipients, Per: 24 * time.Hour}}})
	if err != nil {
		b.Fatal(err)
	}
	at := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		s, _ := u.Reserve(at, "")
		s.Release()
	}
}
