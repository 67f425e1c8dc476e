package smtp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/fakesmtp"
	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/replies"
)

// bubble makes an Upstream whose connections are pipes to a fake with a hook.
func bubble(t *testing.T, hook func(*fakesmtp.Session, string, string) fakesmtp.Action,
	change func(*Config)) (*fakesmtp.Server, *Upstream) {
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

// A connection that does not get ready has used up nothing either.
func TestFailedConnectionsCostNoRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(t, Config{TLS: upstream.TLSNone, Settings: upstream.Settings{
			Rates: []upstream.Rate{{Count: 1, Unit: upstream.Messages, Per: 24 * time.Hour}},
			Dial:  func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route") }}})
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
		fake, u := bubble(t, nil, func(cfg *Config) {
			cfg.Rates = []upstream.Rate{{Count: 3, Unit: upstream.Recipients,
				Per: time.Hour}}
		})
		var to []string
		for i := range 5 {
			to = append(to, fmt.Sprintf("r%d@example.net", i))
		}
		r := send(t, u, message(t, to...))
		wantClasses(t, r, "delivered delivered delivered deferral deferral")
		if r[4].RetryAfter < 59*time.Minute || r[4].Reply.Enhanced != "4.4.5" {
			t.Errorf("%+v", r[4])
		}
		if st := state(u); st.Status != upstream.Ready || st.Rates[0].Used != 3 || len(fake.Messages()) != 1 {
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
		burst := func(n int) {
			var slots []upstream.Slot // all of them before the first is used: an answer may take places away
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
		burst(4)
		refuse = 3
		burst(4)
		st := state(u)
		if st.Status != upstream.Ready || st.Limit != 3 || st.Most != 4 || st.Idle+st.Closing > 3 {
			t.Errorf("after one burst: %+v", st)
		}
		a, _ := u.Reserve(time.Now(), "")
		b, _ := u.Reserve(time.Now(), "")
		for range 3 * 4 { // with every place in use
			wantClasses(t, send(t, u, message(t)), "delivered")
		}
		a.Release()
		b.Release()
		if st = state(u); st.Limit != 4 {
			t.Errorf("after %d rounds: %+v", 4, st)
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
		if st = state(u); st.Status != upstream.BackingOff {
			t.Errorf("nobody gets through: %+v", st)
		}
	})
}

// Who is the last of a burst to be refused was not alone, even if the connections of the others have ended by then.
func TestTheLastOfACrowdDoesNotPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mails atomic.Int32
		_, u := bubble(t, func(_ *fakesmtp.Session, verb, _ string) fakesmtp.Action {
			if verb != "MAIL" {
				return fakesmtp.Action{}
			}
			n := mails.Add(1)
			// the fake clock's: one after the other, with time to say QUIT
			time.Sleep(time.Duration(n) * time.Minute / 10)
			return fakesmtp.Action{Reply: "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded"}
		}, func(cfg *Config) { cfg.MaxConnections = 4 })
		a, _ := u.Reserve(time.Now(), "")
		b, _ := u.Reserve(time.Now(), "")
		var sends sync.WaitGroup
		for _, s := range []upstream.Slot{a, b} {
			sends.Go(func() { use(s, context.Background(), message(t)) })
		}
		sends.Wait()
		if st := state(u); st.Status != upstream.Ready {
			t.Errorf("after two: %+v", st)
		}
		synctest.Wait()
		send(t, u, message(t)) // this one is alone: others use the account
		if st := state(u); st.Status != upstream.BackingOff {
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
			cfg.Rules = []replies.Rule{{Name: "send-as", Stages: atMail, Text: "SendAsDenied", Class: mail.AccountFault,
				Scope: replies.ScopeSender, RetryAfter: time.Hour}}
		})
		for range 10 {
			r := send(t, u, message(t))
			if r[0].Class != mail.AccountFault || r[0].Rule != "send-as" || r[0].RetryAfter != time.Hour ||
				r[0].Reply.Code != 554 {
				t.Fatalf("%+v", r[0])
			}
		}
		if asked != 2 || send(t, u, message(t))[0].Note != noteHeld {
			t.Errorf("asked %d times", asked)
		}
		if d := u.Denied(time.Now()); len(d) != 1 || d[0].Sender != "alice@example.com" || d[0].Refusals != 2 ||
			d[0].Reply.Code != 554 || !d[0].Until.After(time.Now()) {
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

func TestExtensionsAreAdjusted(t *testing.T) {
	r := mail.Reply{Code: 250, Text: "hello\nSIZE 52428800\nPIPELINING\nCHUNKING\n8BITMIME"}
	for _, c := range []struct {
		assume, deny []string
		most         int64
		want         extensions
	}{
		{nil, nil, 0, extensions{pipelining: true, chunking: true, eightBit: true, sizeOffered: true, size: 52428800}},
		{nil, nil, 25e6, extensions{pipelining: true, chunking: true, eightBit: true, sizeOffered: true, size: 25e6}},
		{nil, nil, 99e6, extensions{pipelining: true, chunking: true, eightBit: true, sizeOffered: true,
			size: 52428800}},
		{[]string{"dsn", "SMTPUTF8"}, []string{"chunking", "PIPELINING", "8BITMIME"}, 0,
			extensions{dsn: true, utf8: true, sizeOffered: true, size: 52428800}},
		{[]string{"SIZE 1000"}, []string{"DSN", "SMTPUTF8"}, 0,
			extensions{pipelining: true, chunking: true, eightBit: true, sizeOffered: true, size: 1000}},
		{nil, []string{"SIZE"}, 500, extensions{pipelining: true, chunking: true, eightBit: true, size: 500}},
	} {
		x := parseEHLO(r)
		x.adjust(c.assume, c.deny, c.most)
		x.keywords = nil
		if fmt.Sprint(x) != fmt.Sprint(c.want) {
			t.Errorf("%v %v %d: %+v, want %+v", c.assume, c.deny, c.most, x, c.want)
		}
	}
}
