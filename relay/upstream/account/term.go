package account

import (
	"context"
	"slices"
	"sync"
	"time"
)

// calls are made when something has ended. They are guarded by mu.
type calls struct {
	mu      *sync.Mutex
	ended   bool
	waiting []*func()
}

// add has f called behind the end, in a goroutine of its own, unless stop reports that it was in time.
func (c *calls) add(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.addLocked(f)
}

func (c *calls) addLocked(f func()) (stop func() bool) {
	if c.ended {
		go f()
		return func() bool { return false }
	}
	c.waiting = append(c.waiting, &f)
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		i := slices.Index(c.waiting, &f)
		if i < 0 {
			return false
		}
		c.waiting = slices.Delete(c.waiting, i, i+1)
		return true
	}
}

func (c *calls) endLocked() {
	c.ended = true
	for _, f := range c.waiting {
		go (*f)()
	}
	c.waiting = nil
}

// term is the time for which a lease holds without a gap. What is sent with its slots has to be cut off at its end.
// Each message is sent within one, so that this must cost little: a lock, and no context.
type term struct {
	calls // guarded by Table.mu
	lease *lease
}

// over looks at the clock: a process that stood still knows by it what no timer has told it yet.
func (t *term) over() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended || !time.Now().Before(t.lease.ends)
}

// Over calls f early enough before the slot may be another node's, unless stop is called first. stop is nil where no
// other node can have it.
func (s *Slot[H]) Over(f func()) (stop func() bool) {
	if s.term == nil {
		return nil
	}
	return s.term.add(f)
}

// Bound returns a context for what is sent with the slot: it ends with ctx, and early enough before the slot may be
// another node's. Its Err looks at the clock. cancel is to be called when the sending has ended.
func (s *Slot[H]) Bound(ctx context.Context) (bound context.Context, cancel context.CancelFunc) {
	if s.term == nil {
		return ctx, func() {}
	}
	w := &within{Context: ctx, term: s.term}
	w.calls.mu = &w.mu
	return w, func() { w.end(context.Canceled) }
}

// within is a context that also ends with a term. It has AfterFunc, as context.AfterFunc and those that are derived
// from it want it, and makes a channel only for who asks for one: most messages need none.
type within struct {
	context.Context
	term *term

	mu    sync.Mutex // guards what follows; taken before term.mu
	calls calls
	err   error // why it has ended
	done  chan struct{}
	free  func() // ends the watch for what ends it; nil: nobody wants to be told yet
}

// Err implements context.Context.
func (w *within) Err() error {
	if w.term.over() {
		w.end(context.Canceled)
	} else if err := w.Context.Err(); err != nil {
		w.end(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Done implements context.Context.
func (w *within) Done() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done == nil {
		w.done = make(chan struct{})
		w.watchLocked()
		if w.err != nil {
			close(w.done)
		}
	}
	return w.done
}

// AfterFunc does what context.AfterFunc does, which asks for the channel first.
func (w *within) AfterFunc(f func()) (stop func() bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watchLocked()
	return w.calls.addLocked(f)
}

func (w *within) watchLocked() {
	if w.err != nil || w.free != nil {
		return
	}
	ofTerm := w.term.add(func() { w.end(context.Canceled) })
	ofContext := context.AfterFunc(w.Context, func() { w.end(w.Context.Err()) })
	w.free = func() { ofTerm(); ofContext() }
}

// end ends it once.
func (w *within) end(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return
	}
	w.err = err
	if w.done != nil {
		close(w.done)
	}
	w.calls.endLocked()
	if w.free != nil {
		w.free()
	}
}
