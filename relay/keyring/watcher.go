package keyring

import (
	"context"
	"log/slog"
	"time"

	"postern/relay/sign"
)

// lookFor bounds the look at one key.
const lookFor = 20 * time.Second

// Store has the keys.
type Store interface {
	Keys(context.Context) ([]Key, error)
	// ChangeKeys lets change work on all keys in one transaction and stores what it did to their states. An error of
	// change leaves everything as it was. change may be called more than once.
	ChangeKeys(ctx context.Context, change func(keys []Key) error) error
}

// Watcher looks for keys in DNS and moves them on.
type Watcher struct {
	Store      Store
	Lookup     Lookup
	Configured func() []string // domains that keys of relay.toml sign for
	Every      time.Duration   // between two rounds of Run, which look for ten keys at most
	Logger     *slog.Logger
}

// Run looks until ctx ends, first when Every has passed: a start has other things to do.
func (w *Watcher) Run(ctx context.Context) {
	tick := time.NewTicker(w.Every)
	defer tick.Stop()
	for failing := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := w.round(ctx, time.Now)
		if err != nil && !failing && ctx.Err() == nil {
			w.Logger.Warn("DKIM keys are not looked for in DNS", "err", err)
		}
		failing = err != nil
	}
}

func (w *Watcher) round(ctx context.Context, clock func() time.Time) error {
	keys, err := w.Store.Keys(ctx)
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

// Look looks for keys in DNS, one after the other, and moves them on. It returns what changed.
func (w *Watcher) Look(ctx context.Context, keys []Key, clock func() time.Time) ([]Change, error) {
	sightings := make([]Sighting, 0, len(keys))
	for _, k := range keys {
		s := w.look(ctx, k)
		if ctx.Err() != nil { // what was cut off says nothing
			return nil, ctx.Err()
		}
		sightings = append(sightings, s)
	}
	var changes []Change
	err := w.Store.ChangeKeys(ctx, func(now []Key) error {
		ring := Ring{Keys: now, Configured: w.Configured()}
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

// look looks for one key. One that cannot be read, which the start of the daemon refuses too, keeps nobody from looking
// for the others.
func (w *Watcher) look(ctx context.Context, k Key) Sighting {
	signer, err := sign.ParseKey([]byte(k.PEM))
	if err != nil {
		w.Logger.Warn("a DKIM key of the store cannot be read, and is not looked for in DNS", "key", k, "err", err)
		return Sighting{Key: k, Found: Unknown}
	}
	found, detail := Look(ctx, w.Lookup, sign.Key{Domain: k.Domain, Selector: k.Selector, Signer: signer})
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
