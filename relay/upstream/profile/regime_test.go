package profile_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/fakesmtp"
	"postern/mail"
	"postern/policy"
	"postern/relay/upstream"
	"postern/relay/upstream/profile"
	"postern/relay/upstream/smtp"
)

// regime is how a fake provider treats one account. It counts what goes over what it allows.
type regime struct {
	connections int           // 0: any
	messages    int           // within per
	per         time.Duration // 0: any
	limited     string        // the reply over it
	refuse      func(from string, now time.Time) string

	mu   sync.Mutex
	open map[int]bool // connections
	seen []time.Time  // messages offered
	over int          // refused because of connections or messages
}

func (r *regime) hook(s *fakesmtp.Session, verb, line string) fakesmtp.Action {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	switch verb {
	case fakesmtp.Connect:
		if r.connections > 0 && len(r.open) >= r.connections {
			r.over++
			return fakesmtp.Action{Reply: "421 4.3.2 Concurrent connections limit exceeded"}
		}
		if r.open == nil {
			r.open = make(map[int]bool)
		}
		r.open[s.Number] = true
	case "QUIT":
		delete(r.open, s.Number)
	case "MAIL":
		return fakesmtp.Action{Reply: r.mail(line, now)}
	}
	return fakesmtp.Action{}
}

func (r *regime) mail(line string, now time.Time) string {
	if r.per > 0 {
		recent := 0
		for _, at := range r.seen {
			if now.Sub(at) < r.per {
				recent++
			}
		}
		if recent >= r.messages {
			r.over++
			return r.limited
		}
	}
	if r.refuse != nil {
		if reply := r.refuse(line, now); reply != "" {
			return reply
		}
	}
	r.seen = append(r.seen, now)
	return ""
}

// provider is a fake provider in a bubble: its connections are pipes.
func provider(t *testing.T, r *regime, change func(*smtp.Config)) (*fakesmtp.Server, *smtp.Upstream) {
	t.Helper()
	fake := fakesmtp.New(fakesmtp.Config{Extensions: fakesmtp.Full, Hook: r.hook})
	cfg := smtp.Config{
		Settings: upstream.Settings{
			Name: "office", MaxConnections: 10, MaxRecipients: 100, Logger: slog.New(slog.DiscardHandler),
			Jitter: func() float64 { return 0.5 },
			Dial: func(context.Context, string, string) (net.Conn, error) {
				c, s := net.Pipe()
				go fake.Serve(s)
				return c, nil
			},
		},
		Host: "mx.example.com", Port: 25, TLS: upstream.TLSNone, LocalName: "relay.example.com",
		MessagesPerConnection: 100, IdleClose: 30 * time.Second, MaxAge: 15 * time.Minute, Timeouts: smtp.Standard,
	}
	change(&cfg)
	u, err := smtp.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(context.Background()); err != nil {
			t.Error(err)
		}
		fake.Close()
	})
	return fake, u
}

// as takes over what a profile says.
func as(t *testing.T, name string) func(*smtp.Config) {
	p, ok := profile.Get(name)
	if !ok {
		t.Fatalf("no profile %s", name)
	}
	return func(cfg *smtp.Config) {
		cfg.MaxConnections, cfg.MessagesPerConnection, cfg.IdleClose = p.MaxConnections, p.MessagesPerConnection,
			p.IdleClose.Std()
		cfg.MaxRecipients, cfg.Rules = p.MaxRecipients, p.UpstreamRules()
		for _, text := range p.Rate {
			l, err := policy.ParseLimit(text)
			if err != nil {
				t.Fatal(err)
			}
			unit := upstream.Messages
			if l.Unit == policy.Recipients {
				unit = upstream.Recipients
			}
			cfg.Rates = append(cfg.Rates, upstream.Rate{Count: l.Count, Unit: unit, Per: l.Window})
		}
	}
}

// office is what the queue and its people do: ten of them send, what is deferred is tried again, nothing is given up.
type office struct {
	t       *testing.T
	u       *smtp.Upstream
	pending []*letter
	wake    chan struct{}
	tries   int
	classes map[mail.Class]int
}

type letter struct {
	tx      upstream.Transaction
	after   time.Time
	flying  bool
	done    bool
	pending []mail.Recipient
}

func newOffice(t *testing.T, u *smtp.Upstream, messages, recipients int) *office {
	o := &office{t: t, u: u, wake: make(chan struct{}, 1), classes: make(map[mail.Class]int)}
	for i := range messages {
		var to []mail.Recipient
		for j := range recipients {
			to = append(to, mail.Recipient{To: address(t, fmt.Sprintf("r%d-%d@example.net", i, j))})
		}
		content := mail.BytesContent(fmt.Appendf(nil, "Subject: %d\r\n\r\nhello\r\n", i))
		o.pending = append(o.pending, &letter{pending: to,
			tx: upstream.Transaction{ID: fmt.Sprint(i), From: address(t, fmt.Sprintf("person%d@example.com", i%10)),
				Content: content}})
	}
	u.OnChange(func() {
		select {
		case o.wake <- struct{}{}:
		default:
		}
	})
	return o
}

func address(t *testing.T, s string) mail.Address {
	a, err := mail.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// run sends until everything is gone or the time is over.
func (o *office) run(limit time.Duration) {
	var sends sync.WaitGroup
	var mu sync.Mutex
	end := time.Now().Add(limit)
	for time.Now().Before(end) {
		mu.Lock()
		next, left := end, 0
		for _, l := range o.pending {
			if l.done {
				continue
			}
			left++
			now := time.Now()
			if l.flying || now.Before(l.after) {
				if !l.flying && l.after.Before(next) {
					next = l.after
				}
				continue
			}
			slot, until := o.u.Reserve(now, "")
			if slot == nil {
				if !until.IsZero() && until.Before(next) {
					next = until
				}
				break
			}
			l.flying = true
			o.tries++
			sends.Go(func() {
				l.tx.Recipients = slices.Clone(l.pending)
				results := slot.Send(context.Background(), l.tx)
				slot.Release()
				mu.Lock()
				defer mu.Unlock()
				o.record(l, results)
				select {
				case o.wake <- struct{}{}:
				default:
				}
			})
		}
		mu.Unlock()
		if left == 0 {
			break
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-o.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
	sends.Wait()
}

func (o *office) record(l *letter, results []mail.Result) {
	l.flying = false
	var left []mail.Recipient
	wait := time.Minute
	for i, r := range results {
		o.classes[r.Class]++
		switch {
		case r.Class == mail.Delivered:
			continue
		case r.Class.Permanent():
			o.t.Errorf("%s bounces: %s (rule %s)", l.tx.ID, r.Reply, r.Rule)
		case r.RetryAfter > 0:
			wait = r.RetryAfter
		}
		left = append(left, l.pending[i])
	}
	l.pending, l.done, l.after = left, len(left) == 0, time.Now().Add(wait)
}

// arrived checks that everything is with the provider, once.
func arrived(t *testing.T, fake *fakesmtp.Server, recipients int) {
	t.Helper()
	seen := make(map[string]int)
	for _, m := range fake.Messages() {
		for _, to := range m.To {
			seen[to]++
		}
	}
	for to, n := range seen {
		if n != 1 {
			t.Errorf("%s got it %d times", to, n)
		}
	}
	if len(seen) != recipients {
		t.Errorf("%d of %d recipients have it", len(seen), recipients)
	}
}

// 3 connections and 30 messages a minute, as the profile knows: the provider never has to say so.
func TestProfileKeepsWithinItsLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &regime{connections: 3, messages: 30, per: time.Minute,
			limited: "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded"}
		fake, u := provider(t, r, as(t, "microsoft365"))
		began := time.Now()
		newOffice(t, u, 500, 1).run(24 * time.Hour)
		arrived(t, fake, 500)
		if r.over > 0 || fake.Counts().MostOpen > 3 {
			t.Errorf("%d times over a limit, %d connections at once", r.over, fake.Counts().MostOpen)
		}
		if took := time.Since(began); took > 20*time.Minute {
			t.Errorf("took %v for 500 messages at 30 a minute", took)
		}
	})
}

// A provider that allows less than anybody knows: fewer connections, a rate of its own.
func TestUnknownLimitsAreFoundOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &regime{connections: 2, messages: 20, per: time.Minute,
			limited: "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded"}
		fake, u := provider(t, r, func(cfg *smtp.Config) {
			as(t, "microsoft365")(cfg)
			cfg.MaxConnections, cfg.Rates = 10, nil
		})
		o := newOffice(t, u, 300, 1)
		o.run(24 * time.Hour)
		arrived(t, fake, 300)
		if r.over == 0 || r.over > 300 {
			t.Errorf("%d times over a limit for 300 messages", r.over)
		}
		t.Logf("%d tries, %d over", o.tries, r.over)
	})
}

// A daily quota that comes as 554: nothing bounces, and nobody tries all night.
func TestQuotaAsPermanentReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &regime{messages: 200, per: 24 * time.Hour,
			limited: "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException"}
		fake, u := provider(t, r, as(t, "microsoft365"))
		began := time.Now()
		newOffice(t, u, 500, 1).run(7 * 24 * time.Hour)
		arrived(t, fake, 500)
		if took := time.Since(began); took < 48*time.Hour || took > 75*time.Hour {
			t.Errorf("took %v", took)
		}
		if r.over > 30 {
			t.Errorf("asked %d times in vain", r.over)
		}
	})
}

// Where the account is used by others too, only trying can tell when the quota is free again.
func TestQuotaUsedByOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opens := time.Now().Add(9*time.Hour + 30*time.Minute)
		r := &regime{refuse: func(_ string, now time.Time) string {
			if now.Before(opens) {
				return "550 5.4.5 Daily user sending limit exceeded. - gsmtp"
			}
			return ""
		}}
		fake, u := provider(t, r, as(t, "gmail"))
		began := time.Now()
		o := newOffice(t, u, 40, 1)
		o.run(48 * time.Hour)
		arrived(t, fake, 40)
		if took := time.Since(began); took > 11*time.Hour {
			t.Errorf("took %v", took)
		}
		if refused := o.classes[mail.BackPressure]; refused > 20 {
			t.Errorf("asked %d times in vain", refused)
		}
	})
}

// One sender without permission waits alone; when it is granted, his mail goes out.
func TestSendAsDeniedStopsNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		granted := time.Now().Add(20 * time.Hour)
		asked := 0
		r := &regime{connections: 3}
		r.refuse = func(from string, now time.Time) string {
			if strings.Contains(from, "person3@") && now.Before(granted) {
				asked++
				return "554 5.2.252 SendAsDenied; relay@example.com not allowed to send as person3@example.com"
			}
			return ""
		}
		fake, u := provider(t, r, as(t, "microsoft365"))
		o := newOffice(t, u, 200, 1)
		o.run(30 * time.Minute)
		if n := len(fake.Messages()); n != 180 {
			t.Errorf("%d of 180 messages of others are out after half an hour", n)
		}
		if st := u.States()[0]; st.Status != upstream.Ready {
			t.Errorf("the identity is %s", st.Status)
		}
		o.run(36 * time.Hour)
		arrived(t, fake, 200)
		if asked > 120 { // of 20 messages for 20 hours, each hour
			t.Errorf("asked %d times in vain", asked)
		}
	})
}

// Our own mailbox is full: everything waits, until somebody empties it.
func TestMailboxFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		emptied := time.Now().Add(30 * time.Hour)
		asked := 0
		r := &regime{}
		r.refuse = func(_ string, now time.Time) string {
			if now.Before(emptied) {
				asked++
				return "554 5.2.2 mailbox full"
			}
			return ""
		}
		fake, u := provider(t, r, as(t, "microsoft365"))
		newOffice(t, u, 100, 1).run(72 * time.Hour)
		arrived(t, fake, 100)
		if asked > 50 {
			t.Errorf("asked %d times in 30 hours", asked)
		}
	})
}

// Recipients are counted where the provider counts recipients, envelopes are split to fit.
func TestRecipientsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var seen []time.Time
		over := 0
		fake := fakesmtp.New(fakesmtp.Config{Extensions: fakesmtp.Without("PIPELINING"),
			Hook: func(_ *fakesmtp.Session, verb, _ string) fakesmtp.Action {
				if verb != "RCPT" {
					return fakesmtp.Action{}
				}
				mu.Lock()
				defer mu.Unlock()
				seen = append(seen, time.Now())
				recent := 0
				for _, at := range seen {
					if time.Since(at) < time.Minute {
						recent++
					}
				}
				if recent > 14 {
					over++
				}
				return fakesmtp.Action{}
			}})
		_, u := provider(t, &regime{}, func(cfg *smtp.Config) {
			as(t, "ses")(cfg)
			cfg.Rates = []upstream.Rate{{Count: 14, Unit: upstream.Recipients, Per: time.Minute}}
			cfg.Dial = func(context.Context, string, string) (net.Conn, error) {
				c, s := net.Pipe()
				go fake.Serve(s)
				return c, nil
			}
		})
		t.Cleanup(fake.Close)
		began := time.Now()
		newOffice(t, u, 5, 40).run(24 * time.Hour)
		arrived(t, fake, 200)
		if over > 0 {
			t.Errorf("%d recipients over the rate", over)
		}
		if took := time.Since(began); took < 13*time.Minute || took > 40*time.Minute {
			t.Errorf("took %v", took)
		}
	})
}

// memory is a store that forgets nothing.
type memory struct {
	mu     sync.Mutex
	quotas []upstream.Quota
	saves  int
}

func (m *memory) LoadQuotas(context.Context, string) ([]upstream.Quota, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.quotas, nil
}

func (m *memory) SaveQuotas(_ context.Context, _ string, quotas []upstream.Quota) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.quotas, m.saves = quotas, m.saves+1
	return nil
}

// A quota that is used up, configured or learned, stays so over restarts.
func TestQuotasOutliveRestarts(t *testing.T) {
	for name, rates := range map[string][]upstream.Rate{
		"configured": {{Count: 100, Unit: upstream.Messages, Per: 24 * time.Hour}},
		"learned":    nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &memory{}
				r := &regime{messages: 100, per: 24 * time.Hour,
					limited: "550 5.4.5 Daily user sending limit exceeded. - gsmtp"}
				change := func(cfg *smtp.Config) {
					as(t, "gmail")(cfg)
					cfg.Rates, cfg.Quotas = rates, store
				}
				began := time.Now()
				fake, u := provider(t, r, change)
				o := newOffice(t, u, 150, 1)
				o.run(2 * time.Hour)
				if n := len(fake.Messages()); n != 100 {
					t.Fatalf("%d messages in the first hours", n)
				}
				asked := r.over
				if err := u.Close(context.Background()); err != nil {
					t.Fatal(err)
				}
				if len(store.quotas) == 0 {
					t.Fatal("nothing was saved")
				}
				next, u := provider(t, r, change)
				if slot, until := u.Reserve(time.Now(), ""); slot != nil || until.Sub(began) < 23*time.Hour {
					t.Fatalf("after the restart: %v, until %v", slot != nil, until)
				}
				o.u = u
				u.OnChange(func() {
					select {
					case o.wake <- struct{}{}:
					default:
					}
				})
				o.run(72 * time.Hour)
				if n := len(next.Messages()); n != 50 {
					t.Errorf("%d messages after the restart", n)
				}
				if rates != nil && r.over > 0 || r.over-asked > 10 {
					t.Errorf("asked %d times in vain, %d after the restart", r.over, r.over-asked)
				}
			})
		})
	}
}

// A changed configuration goes on counting where the old one stopped.
func TestInherit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		change := func(cfg *smtp.Config) {
			cfg.Rates = []upstream.Rate{{Count: 3, Unit: upstream.Messages, Per: time.Hour}}
		}
		r := &regime{}
		_, old := provider(t, r, change)
		newOffice(t, old, 3, 1).run(time.Minute)
		_, u := provider(t, r, change)
		u.Inherit(old.HandOver())
		if slot, until := u.Reserve(time.Now(), ""); slot != nil || until.IsZero() {
			t.Errorf("room for a fourth, until %v", until)
		}
		if st := u.States()[0]; len(st.Rates) != 1 || st.Rates[0].Used != 3 {
			t.Errorf("%+v", st)
		}
	})
}
