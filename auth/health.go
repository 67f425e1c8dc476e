package auth

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Waits before a source that failed is asked again: the first, doubled with each failure, up to the last.
const (
	downFirst = time.Second
	downMost  = 30 * time.Second
)

// health is what is known of a remote source. Its methods are safe for concurrent use.
type health struct {
	mu       sync.Mutex // guards all below
	err      error      // why it is down; nil: it is up
	since    time.Time  // when it went down or up; zero: it never did
	failures int        // in a row
	until    time.Time  // nobody asks it before
	round    int        // of asking; those that were let in together are one
}

// admit returns why the source is not to be asked now, or the round for answered. When a wait is over, one asks and the
// others go on waiting.
func (h *health) admit(now time.Time) (round int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.err == nil:
	case now.Before(h.until):
		return 0, fmt.Errorf("it was down a moment ago: %w", h.err)
	default:
		h.until = now.Add(h.waitLocked())
	}
	return h.round, nil
}

// answered takes what asking brought, err being trouble of the source, and reports whether it went down or up by it.
func (h *health) answered(now time.Time, round int, err error) (changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	changed = (h.err == nil) != (err == nil)
	switch {
	case err == nil:
		h.err, h.failures = nil, 0
	case round == h.round:
		h.err, h.until = err, now.Add(h.waitLocked())
		h.failures++
		h.round++
	default: // it failed with others, of which one has counted
		changed = false
	}
	if changed {
		h.since = now
	}
	return changed
}

func (h *health) waitLocked() time.Duration { return min(downFirst<<min(h.failures, 10), downMost) }

func (h *health) isDown() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err != nil
}

// SourceState is a remote source and why it cannot answer.
type SourceState struct {
	Name  string
	Err   error     // nil: it is up
	Since time.Time // since when it is so; zero: since it is used
}

// SourceStates returns the remote sources in the order in which they are asked.
func (a *Authenticator) SourceStates() (states []SourceState) {
	for _, m := range a.roster.Load().members {
		if m.health != nil {
			m.health.mu.Lock()
			states = append(states, SourceState{m.Name(), m.health.err, m.health.since})
			m.health.mu.Unlock()
		}
	}
	return states
}

// probeTimeout bounds the probe of one source.
const probeTimeout = 10 * time.Second

// ProbeSources asks all remote sources whether they can answer.
func (a *Authenticator) ProbeSources(ctx context.Context) { a.probe(ctx, false) }

// ProbeDown asks the sources that are down, and whose wait is over, whether they are up again: without it that would
// show only when somebody logs in.
func (a *Authenticator) ProbeDown(ctx context.Context) { a.probe(ctx, true) }

func (a *Authenticator) probe(ctx context.Context, onlyDown bool) {
	for _, m := range a.roster.Load().members {
		if m.health == nil || onlyDown && !m.health.isDown() {
			continue
		}
		a.ask(ctx, m, func() (Identity, error) {
			ctx, cancel := context.WithTimeout(ctx, probeTimeout)
			defer cancel()
			return Identity{}, m.remote.Probe(ctx)
		})
	}
}
