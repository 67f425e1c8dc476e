package monitor

import (
	"context"
	"strings"
	"time"

	"postern/relay/alert"
	"postern/relay/config"
	"postern/relay/keyring"
	"postern/relay/outbound"
)

// dkimKeys alerts of DKIM keys that need a person, and of keys that were switched. Where no upstream lets us sign,
// nothing depends on them.
func dkimKeys(ctx context.Context, c *config.Config, store outbound.KeyStore, a *alert.Alerter, now time.Time) {
	if !c.Signs() {
		a.Set(alert.DKIMKey, nil)
		return
	}
	rows, err := store.Keys(ctx)
	if err != nil {
		return // what was told stays
	}
	a.Set(alert.DKIMKey, keyConditions(&keyring.Ring{Keys: rows, Configured: c.KeyDomains()}, now))
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
