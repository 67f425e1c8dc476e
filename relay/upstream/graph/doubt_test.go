package graph

import (
	"testing"

	"postern/mail"
	"postern/relay/fakeprovider"
	"postern/relay/upstream"
)

// A refusal that is not believed pauses the mailbox or leaves it alone. Our own refusals are none of
// Graph's.
func TestDoubtsReachTheMailbox(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	u, _ := connected(t, fake, nil)
	for _, c := range []struct {
		doubt upstream.Doubt
		want  upstream.Status
	}{{upstream.DoubtMessage, upstream.Ready}, {upstream.DoubtSender, upstream.Ready},
		{upstream.DoubtIdentity, upstream.Paused}} {
		fake.Fail(fakeprovider.GraphFault{Status: 400, Code: "ErrorMessageBlocked",
			Message: "The message was blocked."})
		tx := to(t, "", "a@example.org")
		tx.Review = func(results []mail.Result) upstream.Doubt {
			if r := &results[0]; r.Class != mail.MessageFault || r.Rule != "refused-content" {
				t.Errorf("it is shown %s by %q: %s", r.Class, r.Rule, r.Reply)
			}
			results[0].Class, results[0].Rule = mail.AccountFault, upstream.RuleStorm
			return c.doubt
		}
		if r := only(t, send(t, u, tx)); r.Class != mail.AccountFault || status(u) != c.want {
			t.Errorf("%d: %s, the mailbox is %s, want %s", c.doubt, r.Class, status(u), c.want)
		}
	}
}
