package monitor

import (
	"context"
	"slices"
	"strings"
	"time"

	"postern/relay/alert"
	"postern/relay/config"
	"postern/relay/keyring"
)

// keyStore has what is known of keys.
type keyStore interface {
	Keys(context.Context) ([]keyring.Key, error)
	ConfiguredKeys(context.Context) ([]keyring.Key, error)
}

// dkimKeys alerts of DKIM keys that need a person, and of keys that were switched. Where no upstream lets us sign,
// nothing depends on them.
func dkimKeys(ctx context.Context, c *config.Config, store keyStore, a *alert.Alerter, now time.Time) {
	if !c.Signs() {
		a.Set(alert.DKIMKey, nil)
		return
	}
	rows, err := store.Keys(ctx)
	if err != nil {
		return // what was told stays
	}
	known, err := store.ConfiguredKeys(ctx)
	if err != nil {
		return
	}
	known = slices.DeleteFunc(known, func(k keyring.Key) bool { return !c.HasKey(k.Domain, k.Selector) })
	a.Set(alert.DKIMKey, keyConditions(&keyring.Ring{Keys: rows, Configured: known}, now))
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
