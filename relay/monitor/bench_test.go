package monitor

import (
	"fmt"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/outbound"
	"postern/relay/upstream"
)

// pausedMailboxes makes one look at so many paused mailboxes, each with a reply of its own.
func pausedMailboxes(t testing.TB, n int) (look func()) {
	now := time.Now()
	says := &fixed{}
	for i := range n {
		says.states = append(says.states, upstream.State{
			Identity: fmt.Sprintf("m%d@example.com", i), Status: upstream.Paused, Since: now.Add(-time.Hour),
			Until: now.Add(time.Minute),
			Reply: mail.R(535, "5.7.139", "Authentication unsuccessful, the user credentials were incorrect. "+
				"[FR%dP264CA.PROD.OUTLOOK.COM]", i),
		})
	}
	up := office(t, says, config.Upstream{Provider: "microsoft365", Username: "relay",
		OAuth: &config.OAuth{Identity: config.IdentitySender}})
	m := stand(t, Options{})
	routes := &outbound.Routes{Upstreams: []*outbound.Upstream{up}}
	return func() { m.upstreams(routes, now) }
}

func BenchmarkLookAtPaused(b *testing.B) {
	look := pausedMailboxes(b, 200)
	look() // rules and advice are compiled
	b.ReportAllocs()
	for b.Loop() {
		look()
	}
}

// The loop looks every five seconds, whatever became of the mailboxes: what it costs for each is bounded, and no rule
// is compiled and no reply read again.
func TestPausedIdentitiesCostLittle(t *testing.T) {
	const n, most = 200, 100 // a compiled rule is thousands of allocations, a reply that is read hundreds
	look := pausedMailboxes(t, n)
	look()
	if allocs := testing.AllocsPerRun(3, look) / n; allocs > most {
		t.Errorf("%.0f allocations for a paused mailbox, more than %d", allocs, most)
	}
}
