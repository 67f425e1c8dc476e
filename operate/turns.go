package operate

import (
	"context"
	"sync"
)

// maxTurns is how many searches of one actor wait for their turn.
const maxTurns = 32

// turns lets each actor do one thing at a time: who asks for much waits behind themselves, not in front of others.
type turns struct {
	mu sync.Mutex
	of map[string]*turn
}

// turn is that of an actor for whom something is under way.
type turn struct {
	free chan struct{} // one slot, taken while something is under way
	n    int           // that and what waits
}

// take waits for the turn of an actor until ctx ends. What it returns ends the turn.
func (t *turns) take(ctx context.Context, by Actor) (done func(), err error) {
	key := string(by.Channel) + "\x00" + by.Name
	t.mu.Lock()
	one := t.of[key]
	if one == nil {
		one = &turn{free: make(chan struct{}, 1)}
		t.of[key] = one
	}
	if one.n > maxTurns {
		t.mu.Unlock()
		return nil, fault(Conflict, "%d searches of yours wait already, ask again when they have ended", maxTurns)
	}
	one.n++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if one.n--; one.n == 0 {
			delete(t.of, key)
		}
	}
	select {
	case one.free <- struct{}{}:
		return func() { <-one.free; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, fault(Conflict, "another search of yours is under way, ask again when it has ended")
	}
}
