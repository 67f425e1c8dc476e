package graph

import (
	"testing"
	"testing/synctest"
	"time"

	"postern/mail"
	"postern/relay/fakeprovider"
	"postern/relay/upstream/internal/gate"
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
		if s := u.States()[0]; s.Failures != 1 || time.Until(s.Until) != gate.BackoffFirst {
			t.Errorf("%+v", s)
		}
		for n, want := range []time.Duration{2 * gate.BackoffFirst, 4 * gate.BackoffFirst} {
			time.Sleep(time.Until(u.States()[0].Until))
			send(t, u, to(t, "", "a@example.org"))
			if s := u.States()[0]; s.Failures != n+2 || time.Until(s.Until) != want {
				t.Errorf("%+v", s)
			}
		}
	})
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
