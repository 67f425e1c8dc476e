package store

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// How writes are gathered. Under load a commit waits for as many writes as the last ones had, so that
// syncs grow slower than messages also on a disk that syncs at once; a lone writer never waits.
const (
	gatherFor = 12 * time.Millisecond  // longest wait of a write for others
	lazyFor   = 250 * time.Millisecond // longest wait of a lazy write for a commit
	batchOps  = 512                    // most writes of one transaction
	batchCost = 16 << 20               // octets of contents after which a transaction is closed
	lazyRows  = 1000                   // rows of lazy writes that make a transaction, and wait for nothing more
	growAfter = 32                     // commits that got their batch at once before a larger one is tried
)

// op is one write. run may be called more than once, each time in a transaction that knows nothing of
// the time before. An error marked by refuse leaves the others in the transaction alone; if run has changed something
// by then, it costs them a second try, since that is undone.
type op struct {
	run  func(*tx) error
	bulk bulk // how a server runs it with others; nil: it cannot
	lazy bool
	cost int64 // octets of contents, or rows where lazy

	state atomic.Int32 // opWaiting, then opTaken or opGone
	done  chan error
}

const (
	opWaiting int32 = iota
	opTaken
	opGone // its caller went away before it was taken
)

// refusal is an error of an op that changed nothing.
type refusal struct{ error }

func refuse(err error) error { return refusal{err} }

// writer gathers writes and hands them to the engine. One goroutine runs the transactions.
type writer struct {
	*fuse
	transactor // of the writer's goroutine

	mu        sync.Mutex
	urgent    []*op         // guarded by mu
	lazy      []*op         // guarded by mu
	lazySince time.Time     // guarded by mu; when the oldest lazy one came
	lazyWait  time.Duration // guarded by mu; lazyFor, or none in a hurry
	wanted    int           // guarded by mu; so many urgent ones wake the writer
	closed    bool          // guarded by mu

	kick    chan struct{} // look again
	commits atomic.Uint64

	// Of the writer's goroutine.
	maxWait time.Duration // gatherFor
	batch   int           // how many urgent writes to expect at once
	streak  int           // commits in a row that got their batch without waiting to the end
}

func newWriter(t transactor, f *fuse) *writer {
	return &writer{
		fuse: f, transactor: t, wanted: 1, lazyWait: lazyFor, batch: 1, maxWait: gatherFor,
		kick: make(chan struct{}, 1),
	}
}

// stop makes the writer end after all writes that wait.
func (w *writer) stop() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.wake()
}

// hurry makes lazy writes wait for no commit of others any more.
func (w *writer) hurry() {
	w.mu.Lock()
	w.lazyWait = 0
	w.mu.Unlock()
	w.wake()
}

func (w *writer) wake() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// do runs one write and returns when it is committed, or not. A context that ends before the write is
// taken up takes it back.
func (w *writer) do(ctx context.Context, o *op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o.done = make(chan error, 1)
	if err := w.enqueue(o); err != nil {
		return err
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
	}
	if o.state.CompareAndSwap(opWaiting, opGone) {
		return ctx.Err()
	}
	return <-o.done
}

func (w *writer) enqueue(o *op) error {
	if err := w.failure(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return ErrClosed
	}
	if o.lazy {
		if len(w.lazy) == 0 {
			w.lazySince = time.Now()
		}
		w.lazy = append(w.lazy, o)
		w.wake()
		return nil
	}
	w.urgent = append(w.urgent, o)
	if len(w.urgent) == w.wanted {
		w.wake()
	}
	return nil
}

// run is the writer's goroutine.
func (w *writer) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for w.await(timer) {
		w.gather(timer)
		ops := w.take()
		w.between()
		w.commit(ops)
	}
}

// await waits until there is something to write and reports false when there never will be.
func (w *writer) await(timer *time.Timer) bool {
	for {
		w.mu.Lock()
		urgent, lazy, closed := len(w.urgent), len(w.lazy), w.closed
		left := w.lazyLeft()
		w.mu.Unlock()
		switch {
		case urgent > 0, lazy > 0 && (closed || left <= 0):
			return true
		case closed:
			return false
		case lazy > 0:
			timer.Reset(left)
			select {
			case <-w.kick:
			case <-timer.C:
			}
		default:
			w.idle(timer)
		}
	}
}

// lazyLeft is how long lazy writes wait yet for a commit of others. Who has a transaction's worth of them to write, and
// waits for each, would fall behind otherwise.
func (w *writer) lazyLeft() time.Duration {
	rows := int64(0)
	for _, o := range w.lazy {
		rows += o.cost
	}
	if rows >= lazyRows {
		return 0
	}
	return w.lazyWait - time.Since(w.lazySince)
}

// idle waits for a write, and lets the engine tidy up meanwhile.
func (w *writer) idle(timer *time.Timer) {
	after, wanted := w.rest()
	if !wanted {
		<-w.kick
		return
	}
	timer.Reset(after)
	select {
	case <-w.kick:
	case <-timer.C:
		w.tidy()
	}
}

// gather waits for as many writes as the last commits had, but not for long.
func (w *writer) gather(timer *time.Timer) {
	if w.batch <= 1 || !w.expect(w.batch) {
		return
	}
	timer.Reset(w.maxWait)
	for {
		select {
		case <-timer.C:
			return
		case <-w.kick:
			if !w.expect(w.batch) {
				return
			}
		}
	}
}

// expect makes the n-th urgent write wake the writer, until take, and reports whether it is to come.
func (w *writer) expect(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted = n
	return len(w.urgent) > 0 && len(w.urgent) < n && !w.closed
}

// take takes the writes of the next transaction off the queues and learns how many to expect next time.
func (w *writer) take() []*op {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted = 1
	w.learn(len(w.urgent))
	ops := make([]*op, 0, min(len(w.urgent), batchOps)+len(w.lazy))
	ops, w.urgent = takeOps(ops, w.urgent, batchOps, batchCost)
	ops, w.lazy = takeOps(ops, w.lazy, batchOps, lazyRows)
	return ops
}

func takeOps(ops, from []*op, count int, cost int64) (taken, rest []*op) {
	for i, o := range from {
		if i >= count || cost <= 0 {
			return ops, append([]*op(nil), from[i:]...)
		}
		cost -= o.cost
		if o.state.CompareAndSwap(opWaiting, opTaken) {
			ops = append(ops, o)
		}
	}
	return ops, nil
}

// learn adapts the batch size to n writes having come. A batch that did not fill in time shrinks; one that
// keeps filling is tried a little larger from time to time, since on a fast disk a commit would
// otherwise be over before more can gather.
func (w *writer) learn(n int) {
	switch {
	case n > w.batch:
		w.batch, w.streak = n, 0
	case n < w.batch:
		w.batch, w.streak = max(n, w.batch*3/4, 1), 0
	case w.streak < growAfter || n <= 1:
		w.streak++
	default:
		w.batch, w.streak = n+max(1, n/4), 0
	}
	w.batch = min(w.batch, batchOps)
}
