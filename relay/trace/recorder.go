package trace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"postern/internal/logline"
	"postern/internal/periodic"
)

// Sink stores events. AppendEvents commits all of them or none, and keeps the slice no longer than it runs. An error
// that is ErrSinkAway is about the sink alone.
type Sink interface {
	AppendEvents(ctx context.Context, events []Event) error
}

// ErrSinkAway says that the sink could not be reached: the events wait until it can, as many as there is room for.
var ErrSinkAway = errors.New("the trace cannot be reached")

// promptSink is a Sink whose AppendEvents may wait, and that can also write at once.
type promptSink interface {
	AppendEventsNow(ctx context.Context, events []Event) error
}

// Bounds and times of a Recorder.
const (
	batchSize     = 1000                   // events in one write, at most
	batchEvery    = 200 * time.Millisecond // longest wait of an event for its write
	bufferSize    = 20000                  // events of mail that wait, at most; about 10 MiB
	refusalsSize  = 5000                   // refusals that wait, at most
	maxRetryEvery = 5 * time.Second        // between writes while the sink fails
	lastWrite     = 5 * time.Second        // longest a write goes on when Run is to end
	maxTries      = 10                     // of one batch, then it is dropped: one bad event must not stop all
)

// Recorder takes events without making its caller wait, and writes them in batches. Refusals, which clients can cause
// at will, wait apart from the events of mail, and a meter bounds them: see Refusal.
type Recorder struct {
	sink  Sink
	log   *slog.Logger
	meter *meter
	full  chan struct{} // one slot: a batch is complete
	count func(*Event)  // nil: nobody counts

	writing sync.Mutex // held by flush, for the order of batches
	events  []Event    // of the batch; guarded by writing

	mu       sync.Mutex // guards all below
	mail     line
	refusals line
	last     time.Time // the last time given to an event
	closed   bool
	dropped  uint64
	failing  bool // logged already: events are being dropped, or the sink fails
	tries    int
}

// NewRecorder returns a Recorder that writes to sink while Run runs. A nil logger discards.
func NewRecorder(sink Sink, log *slog.Logger) *Recorder {
	log = cmp.Or(log, slog.New(slog.DiscardHandler))
	return &Recorder{sink: sink, log: log, meter: newMeter(), full: make(chan struct{}, 1)}
}

// CountWith has every event told to count as it happens, also what is left out or dropped. It must not block. It is
// called before anything is recorded.
func (r *Recorder) CountWith(count func(*Event)) { r.count = count }

// counting is memory for events that somebody is told of, for a moment.
var counting = sync.Pool{New: func() any { return new(Event) }}

func (r *Recorder) counted(e *Event) {
	if r.count != nil {
		told := counting.Get().(*Event)
		*told = *e
		r.count(told)
		*told = Event{}
		counting.Put(told)
	}
	e.Rcpts = nil // what waits is bounded by the number of events
}

// Record takes an event. It never blocks: if too many wait, or after Close, the event is dropped and counted. An event
// without a time gets the present one.
func (r *Recorder) Record(e Event) {
	r.counted(&e)
	r.record(&e)
}

func (r *Recorder) record(e *Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Time.IsZero() {
		e.Time = time.Now()
		if !e.Time.After(r.last) { // so that times are in the order of recording
			e.Time = r.last.Add(1)
		}
		r.last = e.Time
	}
	waiting, most := &r.mail, bufferSize
	if e.Kind.IsRefusal() {
		waiting, most = &r.refusals, refusalsSize
	}
	if r.closed || waiting.len() >= most {
		r.dropLocked(1, "too many events wait")
		return
	}
	waiting.add(e)
	if r.mail.len()+r.refusals.len() >= batchSize {
		select {
		case r.full <- struct{}{}:
		default:
		}
	}
}

// Refusal records a refusal and reports true, so that the caller logs it too. If its login or network has had too many
// in this minute, it only counts it; a summary is recorded and logged once a minute.
func (r *Recorder) Refusal(e Event) bool {
	r.counted(&e)
	now := e.Time
	if now.IsZero() {
		now = time.Now()
	}
	if !r.meter.allow(now, &e) {
		return false
	}
	r.record(&e)
	return true
}

// LeftOut returns how many refusals were only counted so far.
func (r *Recorder) LeftOut() uint64 { return r.meter.leftOut() }

// summarize records and logs what the meter left out.
func (r *Recorder) summarize() {
	for _, s := range r.meter.sweep(time.Now()) {
		r.record(&s.Event)
		r.log.Info("refusals left out",
			logline.Pairs("more", s.left, "kind", s.Kind, "login", s.Login, "client", s.Client,
				"listener", s.Listener, "reply", s.Reply.String())...)
	}
}

// Dropped returns how many events were lost so far.
func (r *Recorder) Dropped() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dropped
}

// Run writes events until ctx ends. A write in progress may then take lastWrite longer. Close writes later events.
func (r *Recorder) Run(ctx context.Context) {
	var summaries sync.WaitGroup
	summaries.Go(func() { r.runSummaries(ctx) })
	defer summaries.Wait()
	writing, cut := outlive(ctx, lastWrite)
	defer cut()
	ticker := time.NewTicker(batchEvery)
	defer ticker.Stop()
	for {
		full := r.full
		if r.trouble() > 0 {
			full = nil // do not press a failing sink
		}
		select {
		case <-ctx.Done():
			return
		case <-full:
		case <-ticker.C:
		}
		r.flush(writing, r.sink.AppendEvents)
		ticker.Reset(min(batchEvery<<r.trouble(), maxRetryEvery))
	}
}

func (r *Recorder) runSummaries(ctx context.Context) { periodic.Run(ctx, meterWindow, r.summarize) }

// outlive returns a context that ends a while after ctx.
func outlive(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	longer, cut := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() {
		timer := time.NewTimer(by)
		defer timer.Stop()
		select {
		case <-timer.C:
			cut()
		case <-longer.Done():
		}
	})
	return longer, cut
}

// Close writes the waiting events and drops all later ones. The error says how many could not be written; ctx bounds
// the time.
func (r *Recorder) Close(ctx context.Context) error {
	r.summarize()
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	err := r.flush(ctx, r.sink.AppendEvents)
	r.writing.Lock() // a flush counts on what it has seen waiting
	defer r.writing.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.mail.len() + r.refusals.len(); n > 0 {
		r.mail, r.refusals = line{}, line{}
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

// Flush writes the waiting events at once, for somebody who wants to see them. Without an error, everything recorded
// before the call is written.
func (r *Recorder) Flush(ctx context.Context) error {
	if prompt, ok := r.sink.(promptSink); ok {
		return r.flush(ctx, prompt.AppendEventsNow)
	}
	return r.flush(ctx, r.sink.AppendEvents)
}

// flush writes what waits now, in batches, until the sink fails. What comes meanwhile is left for the next flush: under
// load this one would not end, and all others wait for it.
func (r *Recorder) flush(ctx context.Context, appendEvents func(context.Context, []Event) error) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	mail, refusals := r.waiting()
	for mail+refusals > 0 {
		b := r.batch(mail, refusals)
		err := r.written(ctx, b, appendEvents(ctx, r.events))
		clear(r.events)
		if err != nil {
			return err
		}
		mail, refusals = mail-b.mail, refusals-b.refusals
	}
	return nil
}

func (r *Recorder) waiting() (mail, refusals int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mail.len(), r.refusals.len()
}

// batch is one write: so many of the oldest events of mail, and so many of the oldest refusals.
type batch struct{ mail, refusals int }

// batch copies the oldest of so many events to write next, those of mail first. They stay buffered until they are
// written.
func (r *Recorder) batch(mail, refusals int) batch {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := batch{mail: min(mail, batchSize)}
	b.refusals = min(refusals, batchSize-b.mail)
	r.events = append(append(r.events[:0], r.mail.oldest(b.mail)...), r.refusals.oldest(b.refusals)...)
	return b
}

func (r *Recorder) written(ctx context.Context, b batch, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.removeLocked(b)
		if r.failing {
			r.log.Info("the trace is being written again", "dropped", r.dropped)
		}
		r.tries, r.failing = 0, false
		return nil
	}
	if ctx.Err() != nil { // out of time, not the sink's fault: nothing was written, and Close will try again
		return err
	}
	if r.tries++; !r.failing {
		r.failing = true
		r.log.Error("the trace cannot be written", "error", err)
	}
	switch {
	case r.tries < maxTries:
	case errors.Is(err, ErrSinkAway):
		r.tries = maxTries - 1 // whichever events these are, they would be refused
	default:
		r.tries = 1
		r.removeLocked(b)
		r.dropLocked(b.mail+b.refusals, "the sink refused them too often")
	}
	return err
}

func (r *Recorder) removeLocked(b batch) {
	r.mail.remove(b.mail)
	r.refusals.remove(b.refusals)
}

func (r *Recorder) dropLocked(n int, why string) {
	r.dropped += uint64(n)
	if !r.failing {
		r.failing = true
		r.log.Error("events of the trace are dropped", "reason", why, "dropped", r.dropped)
	}
}

// line is events in order. Its memory is used again while events come, and freed behind a burst.
type line struct {
	events []Event
	gone   int // of the first ones
}

// keepLine is the memory that a line keeps in any case, in events.
const keepLine = 200

func (l *line) len() int { return len(l.events) - l.gone }

func (l *line) add(e *Event) {
	if len(l.events) == cap(l.events) && l.gone > len(l.events)/2 {
		l.compact()
	}
	l.events = append(l.events, *e)
}

func (l *line) compact() {
	old, waiting := l.events, l.events[l.gone:]
	to := old[:0]
	if n := 4 * max(len(waiting), keepLine); n < cap(old) {
		to = make([]Event, 0, n/2)
	}
	l.events, l.gone = append(to, waiting...), 0
	clear(old[len(waiting):])
}

func (l *line) oldest(n int) []Event { return l.events[l.gone : l.gone+n] }

func (l *line) remove(n int) {
	clear(l.oldest(n))
	l.gone += n
	switch {
	case l.len() > 0:
	case cap(l.events) > keepLine:
		*l = line{}
	default:
		l.events, l.gone = l.events[:0], 0
	}
}
