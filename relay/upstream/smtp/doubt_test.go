package smtp

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/fakesmtp"
	"postern/mail"
	"postern/relay/upstream"
)

// doubting is a Review that believes no refusal.
func doubting(whose upstream.Doubt) func([]mail.Result) upstream.Doubt {
	return func(results []mail.Result) upstream.Doubt {
		doubted := upstream.Believed
		for i := range results {
			if r := &results[i]; r.Class.Permanent() {
				r.Class, r.Rule, doubted = mail.AccountFault, upstream.RuleStorm, whose
			}
		}
		return doubted
	}
}

// What is not believed pauses the identity, holds its sender's mail, or leaves everything as it was; a probe that says
// nothing lets the next one in at once, and one that is believed closes the breaker.
func TestDoubtsReachTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := provider()
		var refuse atomic.Bool
		refuse.Store(true)
		fc.Hook = func(_ *fakesmtp.Session, verb, _ string) fakesmtp.Action {
			if refuse.Load() && (verb == fakesmtp.Content || verb == fakesmtp.Chunk) {
				return fakesmtp.Action{Reply: "554 5.0.0 the wind blows from the north"}
			}
			return fakesmtp.Action{}
		}
		_, u := startPiped(t, fc, nil)
		attempt := func(whose upstream.Doubt) string {
			t.Helper()
			tx := message(t, "a@example.net")
			tx.Review = doubting(whose)
			return classes(send(t, u, tx))
		}
		if got := attempt(upstream.DoubtMessage); got != "account-fault" || state(u).Status != upstream.Ready {
			t.Errorf("of the message: %s, %+v", got, state(u))
		}
		if got := attempt(upstream.DoubtIdentity); got != "account-fault" || state(u).Status != upstream.Paused ||
			state(u).Reply.Code != 554 {
			t.Errorf("of the identity: %s, %+v", got, state(u))
		}
		for range 3 { // each is the probe, and lets another be one
			time.Sleep(time.Until(state(u).Until))
			if got := attempt(upstream.DoubtMessage); got != "account-fault" || state(u).Status != upstream.Paused ||
				state(u).Probing {
				t.Errorf("a probe without news: %s, %+v", got, state(u))
			}
		}
		if got := attempt(upstream.DoubtIdentity); got != "account-fault" || state(u).Failures != 2 {
			t.Errorf("a probe: %s, %+v", got, state(u))
		}
		time.Sleep(time.Until(state(u).Until))
		if got := attempt(upstream.Believed); got != "account-fault" || state(u).Status != upstream.Ready {
			t.Errorf("believed: %s, %+v", got, state(u))
		}
		for n := range 3 {
			got := attempt(upstream.DoubtSender)
			if held := n > 0; got != "account-fault" || state(u).Status != upstream.Ready ||
				held != (len(u.Denied(time.Now())) > 0) {
				t.Errorf("of the sender, %d: %s, %+v", n, got, state(u))
			}
		}
		refuse.Store(false)
		time.Sleep(time.Hour)
		if got := attempt(upstream.DoubtIdentity); got != "delivered" {
			t.Errorf("at the end: %s", got)
		}
	})
}
