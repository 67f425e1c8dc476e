package policy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"postern/mail"
)

// Run saves changes until ctx is done. Close saves the last ones.
func (l *Limiter) Run(ctx context.Context) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	failing := false
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := l.Save(ctx, time.Now())
		if err == nil && l.shared != nil && n%dropFullAt == 0 {
			err = l.shared.counter.DropFullLimits(ctx)
		}
		if err != nil && !failing && ctx.Err() == nil {
			l.log.Error("cannot save the state of limits; a restart would forget it", "err", err)
		}
		failing = err != nil
	}
}

// Close saves the last changes. The Limiter must not be used afterwards.
func (l *Limiter) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	return l.Save(ctx, time.Now())
}

// Save writes the buckets that changed since the last Save, and new recipients. The next Save retries what failed. With
// a shared counter it tells that one what was decided without it.
func (l *Limiter) Save(ctx context.Context, now time.Time) error {
	if l.shared != nil {
		return l.shared.settle(ctx, now)
	}
	return errors.Join(l.saveBuckets(ctx, now), l.known.save(ctx, now))
}

func (l *Limiter) saveBuckets(ctx context.Context, now time.Time) error {
	states, saved := l.changed(now)
	if len(states) == 0 {
		return nil
	}
	if err := l.store.SaveLimits(ctx, now, states); err != nil {
		l.markDirty(saved)
		return fmt.Errorf("save the state of %d limits: %w", len(states), err)
	}
	return nil
}

func (l *Limiter) changed(now time.Time) (states []State, buckets []*bucket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now = l.advanceLocked(now)
	for b := range l.dirty {
		states = append(states, b.state(now))
		buckets = append(buckets, b)
	}
	clear(l.dirty)
	return states, buckets
}

func (l *Limiter) markDirty(buckets []*bucket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range buckets {
		if l.buckets[b.key] == b {
			l.dirty[b] = struct{}{}
		}
	}
}

func (b *bucket) state(now time.Time) State {
	tokens := min(max(b.tokens.TokensAt(now), 0), float64(b.limit.Count))
	missing := (float64(b.limit.Count) - tokens) / b.limit.perSecond()
	return State{
		Login: b.login, Limit: b.limit.String(), Tokens: tokens, At: now,
		Full: now.Add(time.Duration(missing * float64(time.Second))),
	}
}

// restoreLocked recreates a bucket as it was at s.At, so that it refills for the time since. A state from the future,
// due to a wrong clock, counts as of now. A state that cannot be parsed belongs to a limit that no longer exists.
func (l *Limiter) restoreLocked(now time.Time, s State) {
	limit, err := ParseLimit(s.Limit)
	if err != nil || math.IsNaN(s.Tokens) {
		return
	}
	at := s.At
	if at.After(now) {
		at = now
	}
	k := key{s.Login, limit}
	if l.buckets[k] != nil {
		return
	}
	l.addLocked(k, at).set(at, s.Tokens)
	l.evictLocked(now)
}

// set gives a bucket that was not used yet the tokens that it had at a moment.
func (b *bucket) set(at time.Time, tokens float64) {
	tokens = min(max(tokens, 0), float64(b.limit.Count))
	whole := math.Floor(tokens)
	// rate.Limiter takes whole tokens, so the fraction becomes the time that it took to refill.
	fraction := time.Duration((tokens - whole) / b.limit.perSecond() * float64(time.Second))
	b.tokens.AllowN(at.Add(-fraction), int(b.limit.Count)-int(whole))
}

// recipientKeys returns the distinct keys of addresses.
func recipientKeys(addrs []mail.Address) []string {
	keys := make([]string, 0, len(addrs))
	seen := make(map[string]struct{}, len(addrs))
	for _, a := range addrs {
		k := RecipientKey(a)
		if _, ok := seen[k]; !ok {
			seen[k] = struct{}{}
			keys = append(keys, k)
		}
	}
	return keys
}
