package console

import (
	"context"
	"sync"
	"time"
)

// memo keeps what is costly to count for some seconds, so that many open pages cost as much as one. It keeps nothing
// that depends on who asks.
type memo[T any] struct {
	mu    sync.Mutex
	value T
	until time.Time
}

// memoTime is how old a number on a page may be.
const memoTime = 5 * time.Second

// forget makes the next get make it anew: somebody has just changed what it counts.
func (m *memo[T]) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.until = time.Time{}
}

// get returns what is kept, or makes it anew. Of several who ask at once one makes it; an error is not kept.
func (m *memo[T]) get(ctx context.Context, now time.Time, fresh func(context.Context) (T, error)) (T, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now.Before(m.until) && m.until.Sub(now) <= memoTime { // else the clock was set back
		return m.value, nil
	}
	value, err := fresh(ctx)
	if err == nil {
		m.value, m.until = value, now.Add(memoTime)
	}
	return value, err
}
