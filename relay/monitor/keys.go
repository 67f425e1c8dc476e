package monitor

import (
	"context"
	"strings"
	"time"

	"postern/relay/alert"
	"postern/relay/keyring"
)

// keys alerts of DKIM keys that need a person, and of keys that were switched. Where no upstream lets us sign, nothing
// depends on them.
func (m *Monitor) keys(ctx context.Context, now time.Time) {
	c := m.InForce().Config
	if !c.Signs() {
		m.alerter.Set(alert.DKIMKey, nil)
		return
	}
	rows, err := m.Store.Keys(ctx)
	if err != nil {
		return // what was told stays
	}
	m.alerter.Set(alert.DKIMKey, keyConditions(&keyring.Ring{Keys: rows, Configured: c.KeyDomains()}, now))
}

func keyConditions(ring *keyring.Ring, now time.Time) (hold []alert.Condition) {
	for _, r := range ring.Reminders(now) {
		hold = append(hold, alert.Condition{
			Event: alert.DKIMKey, Subject: r.Subject, Group: r.Kind, Summary: r.What, Over: r.Over,
			Details: map[string]string{"domain": r.Domain, "what": r.Kind, "since": clock(r.Since),
				"keys": strings.Join(r.Keys, " ")},
		})
	}
	return hold
}
