package relay

import (
	"fmt"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/alert"
	"postern/relay/config"
	"postern/relay/upstream"
	"postern/relay/upstream/storm"
)

// pausedMailboxes makes one look at so many paused mailboxes, each with a reply of its own.
func pausedMailboxes(n int) (look func()) {
	now := time.Now()
	says := &fixed{}
	for i := range n {
		says.states = append(says.states, upstream.State{
			Identity: fmt.Sprintf("m%d@example.com", i), Status: upstream.Paused, Since: now.Add(-time.Hour), Until: now.Add(time.Minute),
			Reply: mail.R(535, "5.7.139", "Authentication unsuccessful, the user credentials were incorrect. [FR%dP264CA.PROD.OUTLOOK.COM]", i),
		})
	}
	up := &configured{transport: says, config: config.Upstream{Name: "office", Provider: "microsoft365", Username: "relay"},
		homeless: newHomeless(), storms: storm.New(true)}
	a := &alerts{alerter: alert.New(alert.Options{}), paused: make(map[*configured]map[string]bool)}
	a.alerter.Use("relay.example.com", []alert.Hook{{URL: "https://hook.example.com", Events: []alert.Event{alert.UpstreamPaused}}})
	st := &state{upstreams: []*configured{up}}
	return func() { a.upstreams(st, now) }
}

func BenchmarkLookAtPaused(b *testing.B) {
	look := pausedMailboxes(200)
	look() // rules and advice are compiled
	b.ReportAllocs()
	for b.Loop() {
		look()
	}
}

// The loop looks every five seconds, whatever became of the mailboxes: what it costs for each is bounded, and no rule is
// compiled and no reply read again.
func TestPausedIdentitiesCostLittle(t *testing.T) {
	const n, most = 200, 100 // a compiled rule is thousands of allocations, a reply that is read hundreds
	look := pausedMailboxes(n)
	look()
	if allocs := testing.AllocsPerRun(3, look) / n; allocs > most {
		t.Errorf("%.0f allocations for a paused mailbox, more than %d", allocs, most)
	}
}
