package upstream

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"postern/mail"
)

var epoch = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

func mustWait(t *testing.T, g *gate, at time.Time, until time.Time, busy bool) {
	t.Helper()
	if u, b := g.wait(at); !u.Equal(until) || b != busy {
		t.Errorf("wait = %v, %v; want %v, %v", u, b, until, busy)
	}
}

func TestGateBacksOffAndProbes(t *testing.T) {
	var g gate
	at := epoch
	for i, want := range []time.Duration{5, 10, 20, 40, 80, 160, 320, 640, 900, 900} {
		mustWait(t, &g, at, time.Time{}, false)
		a := g.admit()
		if a.probe != (i > 0) {
			t.Errorf("attempt %d: probe = %v", i, a.probe)
		}
		if a.probe {
			mustWait(t, &g, at, time.Time{}, true) // one at a time
		}
		g.settle(at, a, news{verdict: vPressure, early: true, reply: mail.R(451, "4.4.1", "refused")}, 0.5)
		until := at.Add(want * time.Second)
		mustWait(t, &g, at, until, false)
		mustWait(t, &g, until.Add(-time.Nanosecond), until, false)
		at = until
	}
	a := g.admit()
	if !g.settle(at, a, news{verdict: vWorks}, 0.5) || !g.ready() || g.pressure != 0 {
		t.Errorf("success leaves %+v", g)
	}
	mustWait(t, &g, at, time.Time{}, false)
}

func TestGatePauses(t *testing.T) {
	var g gate
	at := epoch
	for _, want := range []time.Duration{5, 10, 20, 40, 60, 60} {
		g.settle(at, g.admit(), news{verdict: vFault}, 0.5)
		if g.status != Paused || g.until.Sub(at) != want*time.Minute {
			t.Errorf("%s for %v, want %v min", g.status, g.until.Sub(at), want)
		}
		at = g.until
	}
	if !g.since.Equal(epoch) {
		t.Errorf("since %v", g.since)
	}
}

// Ten connections that break together are one failure, and old news does not end a wait.
func TestGateCountsACohortOnce(t *testing.T) {
	var g gate
	cohort := make([]admission, 10)
	for i := range cohort {
		cohort[i] = g.admit()
	}
	for _, a := range cohort[:9] {
		g.settle(epoch, a, news{verdict: vPressure, early: true}, 0.5)
	}
	if g.pressure != 1 || g.until.Sub(epoch) != 5*time.Second {
		t.Errorf("%d failures, waits %v", g.pressure, g.until.Sub(epoch))
	}
	g.settle(epoch, cohort[9], news{verdict: vWorks}, 0.5)
	if g.ready() {
		t.Error("a success of before the failure ended the wait")
	}
}

func TestGateProbeWithoutProof(t *testing.T) {
	for _, c := range []struct {
		early bool
		news  news
		ready bool
	}{
		{true, news{verdict: vReached}, true},   // connection trouble, and the connection stood
		{false, news{verdict: vReached}, false}, // trouble at MAIL: a connection proves nothing
		{true, news{verdict: vNothing}, false},
	} {
		var g gate
		g.settle(epoch, g.admit(), news{verdict: vFault, early: c.early, reply: mail.R(530, "", "x")}, 0.5)
		at := g.until
		g.settle(at, g.admit(), c.news, 0.5)
		if g.ready() != c.ready {
			t.Errorf("%+v: %+v", c, g)
		}
		if c.news.verdict == vNothing {
			mustWait(t, &g, at, time.Time{}, false) // released: the next may probe
		} else if !c.ready && g.reply.Code != 530 {
			t.Error("the reason got lost")
		}
	}
}

func TestGateRespectsRetryAfterAndJitter(t *testing.T) {
	var g gate
	g.settle(epoch, g.admit(), news{verdict: vPressure, atLeast: time.Hour}, 0.5)
	if g.until.Sub(epoch) != time.Hour {
		t.Errorf("waits %v", g.until.Sub(epoch))
	}
	if lo, hi := backoffFor(1, 0), backoffFor(1, 0.999); lo != 4500*time.Millisecond || hi <= 5400*time.Millisecond || hi >= 5500*time.Millisecond {
		t.Errorf("jitter from %v to %v", lo, hi)
	}
}

// A dead upstream is probed, not hammered: in a day of constant demand it is dialled about once a quarter of an hour.
func TestDeadUpstreamIsProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int64
		var wakes atomic.Int64
		u := newUpstream(t, Config{Name: "office", Host: "mx.example.com", TLS: TLSNone, Jitter: func() float64 { return 0.5 },
			Dial: func(context.Context, string, string) (net.Conn, error) {
				dials.Add(1)
				return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
			}})
		wake := make(chan struct{}, 1)
		u.OnChange(func() {
			wakes.Add(1)
			select {
			case wake <- struct{}{}:
			default:
			}
		})
		day := time.Now().Add(24 * time.Hour)
		for time.Now().Before(day) {
			s, until := u.Reserve(time.Now(), "")
			if s == nil {
				if until.IsZero() {
					t.Fatal("busy without a probe")
				}
				<-wake // OnChange alone must bring us back
				continue
			}
			r := use(s, context.Background(), message(t))
			wantClasses(t, r, "back-pressure")
			if r[0].Stage != mail.StageConnect || r[0].Reply.Enhanced != "4.4.1" {
				t.Fatalf("result %+v", r[0])
			}
		}
		if n := dials.Load(); n < 90 || n > 110 {
			t.Errorf("%d dials in a day", n)
		}
		if st := state(u); st.Status != BackingOff || st.Failures < 90 {
			t.Errorf("state %+v", st)
		}
	})
}

func TestOneProbeAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := true
		u := newUpstream(t, Config{Name: "office", Host: "mx.example.com", TLS: TLSNone,
			Dial: func(context.Context, string, string) (net.Conn, error) {
				if fail {
					return nil, errors.New("no route")
				}
				c, s := net.Pipe()
				go serveOne(s)
				return c, nil
			}})
		send(t, u, message(t))
		if s, until := u.Reserve(time.Now(), ""); s != nil || until.IsZero() {
			t.Fatal("admitted while backing off")
		}
		time.Sleep(6 * time.Second) // the fake clock's
		fail = false
		probe, _ := u.Reserve(time.Now(), "")
		if probe == nil {
			t.Fatal("no probe after the wait")
		}
		if s, until := u.Reserve(time.Now(), ""); s != nil || !until.IsZero() {
			t.Fatalf("a second one beside the probe: %v %v", s, until)
		}
		if st := state(u); !st.Probing {
			t.Errorf("state %+v", st)
		}
		probe.Release() // unused: another may probe
		if probe, _ = u.Reserve(time.Now(), ""); probe == nil {
			t.Fatal("a released probe blocks the next")
		}
		wantClasses(t, use(probe, context.Background(), message(t)), "delivered")
		if st := state(u); st.Status != Ready {
			t.Errorf("state %+v", st)
		}
		a, _ := u.Reserve(time.Now(), "")
		b, _ := u.Reserve(time.Now(), "")
		if a == nil || b == nil {
			t.Fatal("not open after success")
		}
		a.Release()
		b.Release()
	})
}
