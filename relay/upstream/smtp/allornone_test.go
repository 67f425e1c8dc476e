package smtp

import (
	"fmt"
	"strings"
	"testing"

	"postern/internal/fakesmtp"
)

// A message for all or nobody is sent to all by one reply, whatever the server offers, or to nobody.
func TestAllOrNone(t *testing.T) {
	refuses := func(reply string, which ...string) func(*fakesmtp.Session, string, string) fakesmtp.Action {
		return func(_ *fakesmtp.Session, verb, line string) fakesmtp.Action {
			for _, w := range which {
				if verb == "RCPT" && strings.Contains(line, w) {
					return fakesmtp.Action{Reply: reply}
				}
			}
			return fakesmtp.Action{}
		}
	}
	const later = "deferral deferral deferral"
	for name, c := range map[string]struct {
		hook func(*fakesmtp.Session, string, string) fakesmtp.Action
		most int
		want string
	}{
		"all": {want: "delivered delivered delivered"},
		"one unknown": {hook: refuses("550 5.1.1 no such user", "user1@"),
			want: "deferral recipient-fault deferral"},
		"one greylist": {hook: refuses("450 4.2.0 greylisted", "user2@"), want: later},
		"too many":     {hook: refuses("452 4.5.3 too many recipients", "user2@"), want: later},
		"known limit":  {most: 2, want: later},
	} {
		for _, without := range [][]string{nil, {"CHUNKING"}, {"PIPELINING"}, {"PIPELINING", "CHUNKING"}} {
			t.Run(fmt.Sprint(name, " without ", without), func(t *testing.T) {
				fc := provider()
				fc.Extensions, fc.Hook = fakesmtp.Without(without...), c.hook
				fake, u := start(t, fc, func(cfg *Config) {
					if c.most > 0 {
						cfg.MaxRecipients = c.most
					}
				})
				m := many(t, 3)
				m.AllOrNone = true
				wantClasses(t, send(t, u, m), c.want)
				taken := 0
				if !strings.Contains(c.want, "deferral") {
					taken = 1
				}
				if n := len(fake.Messages()); n != taken {
					t.Errorf("%d messages were taken, want %d", n, taken)
				}
				// The connection serves the next message.
				single := message(t, "user0@example.net")
				single.AllOrNone = true
				wantClasses(t, send(t, u, single), "delivered")
				if n := fake.Counts().Connections; n != 1 {
					t.Errorf("%d connections", n)
				}
			})
		}
	}
}
