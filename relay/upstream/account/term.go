package account

import (
	"context"
	"slices"
	"sync"
	"time"
)

// term is the time for which a lease holds without a gap. What is sent with its slots has to be cut off at its end.
// Each message is sent within one, so that this must cost little: a lock, and no context.
type term struct {
	mu    *sync.Mutex // Table.mu, which guards what follows
	lease *lease
	ended bool
	calls map[*call]struct{} // to be made at the end
}

type call struct{ f func() }

// end makes the calls. It is called with the lock, and does not wait.
func (t *term) end() {
	t.ended = true
	for c := range t.calls {
		go c.f()
	}
	clear(t.calls)
}

// afterwards calls f, in a goroutine of its own, when the term is over, unless stop reports that it was in time.
func (t *term) afterwards(f func()) (stop func() bool) {
	c := &call{f}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		go f()
	} else {
		t.calls[c] = struct{}{}
	}
	return func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		_, waits := t.calls[c]
		delete(t.calls, c)
		return waits
	}
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
	return s.term.afterwards(f)
}

// Bound returns a context for what is sent with the slot: it ends with ctx, and early enough before the slot may be
// another node's. Its Err looks at the clock. cancel is to be called when the sending has ended.
func (s *Slot[H]) Bound(ctx context.Context) (bound context.Context, cancel context.CancelFunc) {
	if s.term == nil {
		return ctx, func() {}
	}
	w := &within{Context: ctx, term: s.term}
	return w, func() { w.end(context.Canceled) }
}

// within is a context that also ends with a term. It has AfterFunc, as context.AfterFunc and those that are derived
// from it want it, and makes a channel only for who asks for one: most messages need none.
type within struct {
	context.Context
	term *term

	mu    sync.Mutex // guards what follows; taken before term.mu
	err   error      // it has ended
	done  chan struct{}
	calls []*call
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
	c := &call{f}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		go f()
	} else {
		w.calls = append(w.calls, c)
		w.watchLocked()
	}
	return func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		i := slices.Index(w.calls, c)
		if i < 0 {
			return false
		}
		w.calls = slices.Delete(w.calls, i, i+1)
		return true
	}
}

func (w *within) watchLocked() {
	if w.err != nil || w.free != nil {
		return
	}
	ofTerm := w.term.afterwards(func() { w.end(context.Canceled) })
	ofContext := context.AfterFunc(w.Context, func() { w.end(w.Context.Err()) })
	w.free = func() { ofTerm(); ofContext() }
}

func (w *within) end(err error) {
	w.mu.Lock()
	if w.err != nil {
		w.mu.Unlock()
		return
	}
	calls, free := w.calls, w.free
	w.err, w.calls, w.free = err, nil, nil
	if w.done != nil {
		close(w.done)
	}
	w.mu.Unlock()
	if free != nil {
		free()
	}
	for _, c := range calls {
		go c.f()
	}
}
