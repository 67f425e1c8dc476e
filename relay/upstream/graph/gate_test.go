package graph

import (
	"testing"
	"testing/synctest"
	"time"

	"postern/mail"
	"postern/relay/fakeprovider"
)

// Requests that fail together are one failure, and the waiting doubles with each further one.
func TestFailuresOfACohortCountOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{Latency: time.Second})
		fake.Fail(fakeprovider.GraphFault{Status: 503})
		u, _ := connected(t, fake, nil)
		done := make(chan struct{})
		for range DefaultConnections {
			s := reserve(t, u)
			go func() {
				s.Send(t.Context(), to(t, "", "a@example.org"))
				done <- struct{}{}
			}()
		}
		for range DefaultConnections {
			<-done
		}
		if s := u.States()[0]; s.Failures != 1 || time.Until(s.Until) != backoffFirst {
			t.Errorf("%+v", s)
		}
		for n, want := range []time.Duration{2 * backoffFirst, 4 * backoffFirst} {
			time.Sleep(time.Until(u.States()[0].Until))
			send(t, u, to(t, "", "a@example.org"))
			if s := u.States()[0]; s.Failures != n+2 || time.Until(s.Until) != want {
				t.Errorf("%+v", s)
			}
		}
	})
}

// A probe that proves nothing waits as long again; one that is not used lets another try.
func TestProbes(t *testing.T) {
	now := time.Now()
	var g gate
	g.settle(now, g.admit(), news{verdict: vPressure, reply: mail.R(451, "4.3.2", "busy"), atLeast: time.Minute}, 0.5)
	now = now.Add(time.Minute)
	unused := g.admit()
	if _, busy := g.wait(now); !busy {
		t.Error("two probes")
	}
	if g.settle(now, unused, news{}, 0.5) {
		t.Error("news of nothing")
	}
	if until, busy := g.wait(now); busy || !until.IsZero() {
		t.Error("no further probe")
	}
	if !g.settle(now, g.admit(), news{verdict: vReached}, 0.5) || g.ready() || g.reply.Text != "busy" {
		t.Errorf("after a probe without proof: %+v", g)
	}
	now = g.until
	if !g.settle(now, g.admit(), news{verdict: vWorks}, 0.5) || !g.ready() || g.pressure != 0 {
		t.Errorf("after a probe that worked: %+v", g)
	}
	g.settle(now, g.admit(), news{verdict: vPressure, early: true}, 0.5)
	if g.settle(g.until, g.admit(), news{verdict: vReached}, 0.5); !g.ready() {
		t.Error("an answer is proof that the network is back")
	}
}

// A login that somebody has mended is tried at once; what Graph itself has said waits its time.
func TestTryAgain(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	u, k := connected(t, fake, nil)
	k.err = lasting(true)
	if r := only(t, send(t, u, to(t, "", "a@example.org"))); r.Class != mail.AccountFault {
		t.Fatalf("%s: %s", r.Class, r.Reply)
	}
	woken := 0
	u.OnChange(func() { woken++ })
	k.err = nil
	u.TryAgain()
	if r := only(t, send(t, u, to(t, "", "a@example.org"))); r.Class != mail.Delivered || woken < 1 {
		t.Errorf("%s: %s, woken %d times", r.Class, r.Reply, woken)
	}
	fake.Fail(fakeprovider.GraphFault{Status: 404, Code: "ErrorInvalidUser"})
	send(t, u, to(t, "", "a@example.org"))
	u.TryAgain()
	if s, until := u.Reserve(time.Now(), ""); s != nil || until.IsZero() {
		t.Error("a mailbox that does not exist is asked again")
	}
}
