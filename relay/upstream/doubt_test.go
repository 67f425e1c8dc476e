package upstream

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/fakesmtp"
	"postern/mail"
)

// doubting is a Review that believes no refusal.
func doubting(whose Doubt) func([]mail.Result) Doubt {
	return func(results []mail.Result) Doubt {
		doubted := Believed
		for i := range results {
			if r := &results[i]; r.Class.Permanent() {
				r.Class, r.Rule, doubted = mail.AccountFault, RuleStorm, whose
			}
		}
		return doubted
	}
}

// What is not believed pauses the identity, holds its sender's mail, or leaves everything as it was; a probe that says nothing
// lets the next one in at once, and one that is believed opens the gate.
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
		attempt := func(whose Doubt) string {
			t.Helper()
			tx := message(t, "a@example.net")
			tx.Review = doubting(whose)
			return classes(send(t, u, tx))
		}
		if got := attempt(DoubtMessage); got != "account-fault" || state(u).Status != Ready {
			t.Errorf("of the message: %s, %+v", got, state(u))
		}
		if got := attempt(DoubtIdentity); got != "account-fault" || state(u).Status != Paused || state(u).Reply.Code != 554 {
			t.Errorf("of the identity: %s, %+v", got, state(u))
		}
		for range 3 { // each is the probe, and lets another be one
			time.Sleep(time.Until(state(u).Until))
			if got := attempt(DoubtMessage); got != "account-fault" || state(u).Status != Paused || state(u).Probing {
				t.Errorf("a probe without news: %s, %+v", got, state(u))
			}
		}
		if got := attempt(DoubtIdentity); got != "account-fault" || state(u).Failures != 2 {
			t.Errorf("a probe: %s, %+v", got, state(u))
		}
		time.Sleep(time.Until(state(u).Until))
		if got := attempt(Believed); got != "account-fault" || state(u).Status != Ready {
			t.Errorf("believed: %s, %+v", got, state(u))
		}
		for n := range 3 {
			got := attempt(DoubtSender)
			if held := n > 0; got != "account-fault" || state(u).Status != Ready || held != heldNow(u) {
				t.Errorf("of the sender, %d: %s, %+v", n, got, state(u))
			}
		}
		refuse.Store(false)
		time.Sleep(time.Hour)
		if got := attempt(DoubtIdentity); got != "delivered" {
			t.Errorf("at the end: %s", got)
		}
	})
}

// heldNow reports that mail of a sender is not offered now.
func heldNow(u *Upstream) bool {
	for _, id := range u.identities {
		for _, s := range id.senders {
			if time.Now().Before(s.until) {
				return true
			}
		}
	}
	return false
}
