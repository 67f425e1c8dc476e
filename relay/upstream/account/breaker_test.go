package account

import (
	"testing"
	"time"

	"postern/mail"
	"postern/relay/upstream"
)

var epoch = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

func mustWait(t *testing.T, b *Breaker, at time.Time, until time.Time, busy bool) {
	t.Helper()
	if u, is := b.Wait(at); !u.Equal(until) || is != busy {
		t.Errorf("wait = %v, %v; want %v, %v", u, is, until, busy)
	}
}

func TestBreakerBacksOffAndProbes(t *testing.T) {
	var g Breaker
	at := epoch
	for i, want := range []time.Duration{5, 10, 20, 40, 80, 160, 320, 640, 900, 900} {
		mustWait(t, &g, at, time.Time{}, false)
		a := g.Admit()
		if a.Probe != (i > 0) {
			t.Errorf("attempt %d: probe = %v", i, a.Probe)
		}
		if a.Probe {
			mustWait(t, &g, at, time.Time{}, true) // one at a time
		}
		g.Record(at, a, News{Verdict: Pressure, Early: true, Reply: mail.R(451, "4.4.1", "refused")}, 0.5)
		until := at.Add(want * time.Second)
		mustWait(t, &g, at, until, false)
		mustWait(t, &g, until.Add(-time.Nanosecond), until, false)
		at = until
	}
	a := g.Admit()
	if !g.Record(at, a, News{Verdict: Works}, 0.5) || !g.Ready() || g.Pressure != 0 {
		t.Errorf("success leaves %+v", g)
	}
	mustWait(t, &g, at, time.Time{}, false)
}

func TestBreakerPauses(t *testing.T) {
	var g Breaker
	at := epoch
	for _, want := range []time.Duration{5, 10, 20, 40, 60, 60} {
		g.Record(at, g.Admit(), News{Verdict: Fault}, 0.5)
		if g.Status != upstream.Paused || g.Until.Sub(at) != want*time.Minute {
			t.Errorf("%s for %v, want %v min", g.Status, g.Until.Sub(at), want)
		}
		at = g.Until
	}
	if !g.Since.Equal(epoch) {
		t.Errorf("since %v", g.Since)
	}
}

// Ten connections that break together are one failure, and old news does not end a wait.
func TestBreakerCountsACohortOnce(t *testing.T) {
	var g Breaker
	cohort := make([]Admission, 10)
	for i := range cohort {
		cohort[i] = g.Admit()
	}
	for _, a := range cohort[:9] {
		g.Record(epoch, a, News{Verdict: Pressure, Early: true}, 0.5)
	}
	if g.Pressure != 1 || g.Until.Sub(epoch) != 5*time.Second {
		t.Errorf("%d failures, waits %v", g.Pressure, g.Until.Sub(epoch))
	}
	g.Record(epoch, cohort[9], News{Verdict: Works}, 0.5)
	if g.Ready() {
		t.Error("a success of before the failure ended the wait")
	}
}

func TestBreakerProbeWithoutProof(t *testing.T) {
	for _, c := range []struct {
		early bool
		news  News
		ready bool
	}{
		{true, News{Verdict: Reached}, true},   // connection trouble, and the connection stood
		{false, News{Verdict: Reached}, false}, // trouble at MAIL: a connection proves nothing
		{true, News{Verdict: Nothing}, false},
	} {
		var g Breaker
		g.Record(epoch, g.Admit(), News{Verdict: Fault, Early: c.early, Reply: mail.R(530, "", "x")}, 0.5)
		at := g.Until
		g.Record(at, g.Admit(), c.news, 0.5)
		if g.Ready() != c.ready {
			t.Errorf("%+v: %+v", c, g)
		}
		if c.news.Verdict == Nothing {
			mustWait(t, &g, at, time.Time{}, false) // released: the next may probe
		} else if !c.ready && g.Reply.Code != 530 {
			t.Error("the reason got lost")
		}
	}
}

func TestBreakerRespectsRetryAfterAndJitter(t *testing.T) {
	var g Breaker
	g.Record(epoch, g.Admit(), News{Verdict: Pressure, AtLeast: time.Hour}, 0.5)
	if g.Until.Sub(epoch) != time.Hour {
		t.Errorf("waits %v", g.Until.Sub(epoch))
	}
	if lo, hi := backoff(1, 0), backoff(1, 0.999); lo != 4500*time.Millisecond || hi <= 5400*time.Millisecond ||
		hi >= 5500*time.Millisecond {
		t.Errorf("jitter from %v to %v", lo, hi)
	}
}

// A probe that proves nothing waits as long again; one that is not used lets another try.
func TestProbes(t *testing.T) {
	now := time.Now()
	var g Breaker
	g.Record(now, g.Admit(), News{Verdict: Pressure, Reply: mail.R(451, "4.3.2", "busy"), AtLeast: time.Minute}, 0.5)
	now = now.Add(time.Minute)
	unused := g.Admit()
	if _, busy := g.Wait(now); !busy {
		t.Error("two probes")
	}
	if g.Record(now, unused, News{}, 0.5) {
		t.Error("news of nothing")
	}
	if until, busy := g.Wait(now); busy || !until.IsZero() {
		t.Error("no further probe")
	}
	if !g.Record(now, g.Admit(), News{Verdict: Reached}, 0.5) || g.Ready() || g.Reply.Text != "busy" {
		t.Errorf("after a probe without proof: %+v", g)
	}
	now = g.Until
	if !g.Record(now, g.Admit(), News{Verdict: Works}, 0.5) || !g.Ready() || g.Pressure != 0 {
		t.Errorf("after a probe that worked: %+v", g)
	}
	g.Record(now, g.Admit(), News{Verdict: Pressure, Early: true}, 0.5)
	if g.Record(g.Until, g.Admit(), News{Verdict: Reached}, 0.5); !g.Ready() {
		t.Error("an answer is proof that the network is back")
	}
}
