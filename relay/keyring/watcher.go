package keyring

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"postern/internal/periodic"
	"postern/relay/sign"
)

// lookFor bounds the look at one key.
const lookFor = 20 * time.Second

// Store has the keys, and what is known of the records of those of relay.toml.
type Store interface {
	Keys(context.Context) ([]Key, error)
	// ChangeKeys lets change work on all keys in one transaction and stores what it did to their states. An error of
	// change leaves everything as it was. change may be called more than once.
	ChangeKeys(ctx context.Context, change func(keys []Key) error) error
	// ConfiguredKeys returns the keys of relay.toml that were looked for, each with its record and what was found.
	ConfiguredKeys(context.Context) ([]Key, error)
	// ChangeConfiguredKeys stores what change makes of them, in one transaction: those that it leaves out are
	// forgotten.
	ChangeConfiguredKeys(ctx context.Context, change func(known []Key) []Key) error
}

// Watcher looks for keys in DNS and moves them on.
type Watcher struct {
	Store      Store
	Lookup     Lookup
	Configured func() []sign.Key // of relay.toml, that sign
	Every      time.Duration     // between two rounds of Run, which look for ten keys at most
	Logger     *slog.Logger
}

// Run looks until ctx ends, first when Every has passed: a start has other things to do.
func (w *Watcher) Run(ctx context.Context) {
	failing := false
	periodic.Run(ctx, w.Every, func() {
		err := w.round(ctx, time.Now)
		if err != nil && !failing && ctx.Err() == nil {
			w.Logger.Warn("DKIM keys are not looked for in DNS", "err", err)
		}
		failing = err != nil
	})
}

func (w *Watcher) round(ctx context.Context, clock func() time.Time) error {
	keys, err := w.Keys(ctx)
	if err != nil {
		return err
	}
	due := Due(keys, clock())
	if len(due) == 0 {
		return nil
	}
	_, err = w.Look(ctx, due, clock)
	return err
}

// Keys returns all keys: those of the store, then those of relay.toml.
func (w *Watcher) Keys(ctx context.Context) ([]Key, error) {
	keys, err := w.Store.Keys(ctx)
	if err != nil {
		return nil, err
	}
	known, err := w.Store.ConfiguredKeys(ctx)
	if err != nil {
		return nil, err
	}
	return slices.Concat(keys, Configured(w.Configured(), known)), nil
}

// Look looks for keys in DNS, one after the other, and moves them on. It returns what changed.
func (w *Watcher) Look(ctx context.Context, keys []Key, clock func() time.Time) ([]Change, error) {
	configured := w.Configured()
	sightings := make([]Sighting, 0, len(keys))
	for _, k := range keys {
		s := w.look(ctx, k, configured)
		if ctx.Err() != nil { // what was cut off says nothing
			return nil, ctx.Err()
		}
		sightings = append(sightings, s)
	}
	if err := w.note(ctx, configured, sightings, clock); err != nil {
		return nil, err
	}
	var changes []Change
	err := w.Store.ChangeKeys(ctx, func(now []Key) error {
		ring := Ring{Keys: now, Configured: Configured(configured, nil)}
		changes = ring.Step(clock(), sightings)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, c := range changes {
		w.Logger.Info("DKIM key", "key", c.Key, "stage", c.Key.Stage, "before", c.From, "detail", c.Key.Detail)
	}
	return changes, nil
}

// note writes down what was found of the keys of relay.toml, and forgets those that are no more.
func (w *Watcher) note(ctx context.Context, configured []sign.Key, sightings []Sighting,
	clock func() time.Time) error {
	if !slices.ContainsFunc(sightings, func(s Sighting) bool { return s.Key.Record != "" }) {
		return nil
	}
	return w.Store.ChangeConfiguredKeys(ctx, func(known []Key) []Key {
		ring := Ring{Configured: Configured(configured, known)}
		ring.Step(clock(), sightings)
		return ring.Configured
	})
}

// look looks for one key. One that cannot be read, which the start of the daemon refuses too, keeps nobody from looking
// for the others.
func (w *Watcher) look(ctx context.Context, k Key, configured []sign.Key) Sighting {
	key := sign.Key{Domain: k.Domain, Selector: k.Selector}
	if k.Record != "" {
		for _, c := range configured {
			if record, err := c.Record(); err == nil && record == k.Record {
				key.Signer = c.Signer
			}
		}
		if key.Signer == nil { // taken out meanwhile
			return Sighting{Key: k, Found: Unknown}
		}
	} else {
		signer, err := sign.ParseKey([]byte(k.PEM))
		if err != nil {
			w.Logger.Warn("a DKIM key of the store cannot be read, and is not looked for in DNS", "key", k, "err", err)
			return Sighting{Key: k, Found: Unknown}
		}
		key.Signer = signer
	}
	found, detail := Look(ctx, w.Lookup, key)
	return Sighting{Key: k, Found: found, Detail: detail}
}

// Look looks for the record of a key, for 20 seconds at most.
func Look(ctx context.Context, dns Lookup, key sign.Key) (Found, string) {
	ctx, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	a, err := dns.DKIM(ctx, key.Domain, key.Selector)
	if err != nil {
		return Unknown, ""
	}
	return Judge(a, key)
}
