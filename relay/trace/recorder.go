package trace

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Sink is where events are written. AppendEvents commits all of them or none.
type Sink interface {
	AppendEvents(ctx context.Context, events []Event) error
}

// The measures of a Recorder.
const (
	batchSize     = 500                    // events in one write, at most
	batchEvery    = 200 * time.Millisecond // longest wait of an event for its write
	bufferSize    = 20000                  // events that wait, at most; about 10 MiB
	maxRetryEvery = 5 * time.Second        // between writes while the sink fails
	maxTries      = 10                     // of one batch, then it is dropped: one bad event must not stop all
)

// Recorder takes events without ever making its caller wait and writes them in batches.
type Recorder struct {
	sink Sink
	log  *slog.Logger
	full chan struct{} // one slot: a batch is complete

	writing sync.Mutex // held by flush, for the order of batches

	mu      sync.Mutex
	events  []Event // oldest first
	closed  bool
	dropped uint64
	failing bool // said in the log already: events are being dropped or the sink fails
	tries   int
}

// NewRecorder returns a Recorder that writes to sink while Run runs. A nil logger discards.
func NewRecorder(sink Sink, log *slog.Logger) *Recorder {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Recorder{sink: sink, log: log, full: make(chan struct{}, 1)}
}

// Record takes an event. It never blocks: when too many wait, or after Close, the event is dropped and
// counted. An event without a time gets the present one.
func (r *Recorder) Record(e Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || len(r.events) >= bufferSize {
		r.dropLocked(1, "too many events wait")
		return
	}
	r.events = append(r.events, e)
	if len(r.events) >= batchSize {
		select {
		case r.full <- struct{}{}:
		default:
		}
	}
}

// Dropped returns how many events were lost so far.
func (r *Recorder) Dropped() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dropped
}

// Run writes events until ctx ends. What is recorded after that waits for Close.
func (r *Recorder) Run(ctx context.Context) {
	ticker := time.NewTicker(batchEvery)
	defer ticker.Stop()
	for {
		full := r.full
		if r.trouble() > 0 {
			full = nil // the sink is not pressed
		}
		select {
		case <-ctx.Done():
			return
		case <-full:
		case <-ticker.C:
		}
		r.flush(ctx)
		ticker.Reset(min(batchEvery<<r.trouble(), maxRetryEvery))
	}
}

// Close writes what waits and drops, from then on, whatever is recorded. The error tells how many events
// could not be written; ctx bounds the time.
func (r *Recorder) Close(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	err := r.flush(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.events); n > 0 {
		r.events = nil
		r.dropped += uint64(n)
		return fmt.Errorf("%d events of the trace not written: %w", n, err)
	}
	return nil
}

func (r *Recorder) trouble() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tries
}

// flush writes batches until nothing waits or the sink fails.
func (r *Recorder) flush(ctx context.Context) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	for {
		batch := r.batch()
		if len(batch) == 0 {
			return nil
		}
		if err := r.written(len(batch), r.sink.AppendEvents(ctx, batch)); err != nil {
			return err
		}
	}
}

// batch returns the events to write next. They stay in the buffer until they are written.
func (r *Recorder) batch() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.events), batchSize)
	return r.events[:n:n]
}

func (r *Recorder) written(n int, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.removeLocked(n)
		if r.failing {
			r.log.Info("the trace is written again", "dropped", r.dropped)
		}
		r.tries, r.failing = 0, false
		return nil
	}
	if r.tries++; !r.failing {
		r.failing = true
		r.log.Error("the trace cannot be written", "error", err)
	}
	if r.tries >= maxTries {
		r.tries = 1
		r.removeLocked(n)
		r.dropLocked(n, "the sink refused them too often")
	}
	return err
}

// removeLocked takes the oldest n events out. The backing array goes when nothing waits, so that a burst
// does not keep its memory.
func (r *Recorder) removeLocked(n int) {
	clear(r.events[:n])
	if r.events = r.events[n:]; len(r.events) == 0 {
		r.events = nil
	}
}

func (r *Recorder) dropLocked(n int, why string) {
	r.dropped += uint64(n)
	if !r.failing {
		r.failing = true
		r.log.Error("events of the trace are dropped", "reason", why, "dropped", r.dropped)
	}
}
