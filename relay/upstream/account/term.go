package account

import (
	"context"
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
	b := &within{Context: ctx, term: s.term}
	return b, b.cancel
}

// within is a context that also ends with a term. A channel is made only for who asks for one, since most messages need
// none: who is to be called has AfterFunc.
type within struct {
	context.Context
	term *term

	mu   sync.Mutex
	done context.Context // ends with it; nil: nobody has asked yet
	free func()
}

// ended is a context that has.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// Done implements context.Context.
func (w *within) Done() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done == nil {
		ctx, cancel := context.WithCancel(w.Context)
		stop := w.term.afterwards(cancel)
		w.done, w.free = ctx, func() { stop(); cancel() }
	}
	return w.done.Done()
}

// Err implements context.Context.
func (w *within) Err() error {
	if w.term.over() {
		w.cancel()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done != nil {
		return w.done.Err()
	}
	return w.Context.Err()
}

func (w *within) cancel() {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.free != nil:
		w.free()
	case w.done == nil:
		w.done = ended
	}
}

// AfterFunc is what context.AfterFunc does, which however asks for the channel first.
func (w *within) AfterFunc(f func()) (stop func() bool) {
	var once sync.Once
	first := func() { once.Do(f) }
	ofTerm, ofContext := w.term.afterwards(first), context.AfterFunc(w.Context, first)
	return func() bool {
		inTerm, inContext := ofTerm(), ofContext()
		return inTerm && inContext
	}
}
