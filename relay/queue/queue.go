package queue

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"postern/mail"
	"postern/relay/trace"
)

// Dispatcher gives slots, for one attempt each. The scheduler calls Reserve with a lock held: it must be quick,
// do no input or output, and call back nothing of the Queue but Wake and Refresh.
type Dispatcher interface {
	// Reserve asks for a slot for one attempt of m now. With one, Wait.Key may name the upstream
	// identity that the slot belongs to. Without one, Wait says why.
	Reserve(now time.Time, m *Message) (Slot, Wait)
}

// Wait says why there is no slot. Key groups the messages that wait for the same slot: of those, one is
// asked for again.
type Wait struct {
	Key string
	// Route names all the upstreams that could do, those that Key names among them. Messages of one Route share its
	// pauses; "" is Key.
	Route string
	// Until is zero when all slots are taken: the scheduler asks again after Wake. Otherwise all upstreams
	// of the route are paused or back off until then, and its messages sleep in the store.
	Until time.Time
}

// Slot is the right to make one attempt at an upstream. Attempt may be called once; Release must be, last.
type Slot interface {
	// Attempt makes the attempt. It returns one result for every pending recipient, Result.Recipient being its index in
	// m.Recipients; a missing one counts as a deferral. It must neither change nor keep m, and return soon after ctx
	// ends. It looks at l before it sends what completes the message, and breaks off where too little is left. Where it
	// has to go on after an upstream took the message for some, it calls taken with their results before it does.
	Attempt(ctx context.Context, m *Message, c mail.Content, l *Lease, taken func([]mail.Result)) []mail.Result
	// Release gives the slot back. It is called when what was taken is in the journal, or without that when the
	// outcome is committed: so a kill repeats at most one message for each slot.
	Release()
}

// Options of a Queue. What says no default is required.
type Options struct {
	Store      Store
	Journal    Journal
	Dispatcher Dispatcher
	// Owner names this process in leases. It must be the same after a restart and differ between nodes.
	Owner    string
	Schedule Schedule
	Drain    time.Duration // how long attempts may go on after the end of Run's context

	// Report makes a DSN. A nil message says that none is due after all.
	Report func(Notice) (*NewMessage, error)
	Trace  func(trace.Event) // must not block
	Logger *slog.Logger

	Window     int            // messages in memory, at most; 0: 1000
	MaxContent int64          // octets of content kept in memory between Submit and attempt; 0: 64 MiB
	LeaseFor   time.Duration  // extended while an attempt runs; 0: 5 min. Attempts need some minutes of it at the end
	Jitter     func() float64 // [0, 1); nil: random
}

func (o Options) withDefaults() Options {
	if o.Window <= 0 {
		o.Window = 1000
	}
	if o.MaxContent <= 0 {
		o.MaxContent = 64 << 20
	}
	if o.LeaseFor <= 0 {
		o.LeaseFor = 5 * time.Minute
	}
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	return o
}

// Queue schedules attempts. Make one with New; all methods are safe for concurrent use.
type Queue struct {
	opts Options
	log  *slog.Logger
	up   chan struct{} // closed when Run takes messages

	bell     *bell
	sched    *scheduler
	attempts *attempts
	times    *timetable
	trace    *tracer
}

// New returns a Queue that schedules nothing until Run.
func New(o Options) *Queue {
	o = o.withDefaults()
	times := &timetable{jitter: o.Jitter}
	tell := &tracer{o.Trace, o.Logger}
	ring := &bell{rung: make(chan struct{}, 1)}
	sched := &scheduler{bell: ring, owner: o.Owner, trace: tell, log: o.Logger, plan: newPlan(o, times)}
	q := &Queue{
		opts: o, log: o.Logger, up: make(chan struct{}), bell: ring, sched: sched, times: times, trace: tell,
		attempts: &attempts{
			sched: sched, store: o.Store, journal: journal{o.Journal, o.Logger}, trace: tell, log: o.Logger,
			decider: &decider{times, o.Report, o.Logger},
		},
	}
	q.SetSchedule(o.Schedule)
	return q
}

// Up is closed when Run is there for what is submitted. Listeners wait for it.
func (q *Queue) Up() <-chan struct{} { return q.up }

// SetSchedule changes retry times from the next outcome on. Messages keep the time to expire that they were accepted
// with.
func (q *Queue) SetSchedule(s Schedule) { q.times.schedule.Store(&s) }

// Wake tells that a slot may be free, or that the queue may have changed. It costs nothing, never
// blocks and may be called from anywhere, also from Reserve. The store is polled for it once a second at
// most.
func (q *Queue) Wake() {
	q.bell.poll.Store(true)
	q.bell.freed.Store(true)
	q.bell.ring()
}

// Refresh tells that another process changed messages, or that routes changed: what waits in the window
// is forgotten and read again.
func (q *Queue) Refresh() {
	q.bell.stale.Store(true)
	q.Wake()
}
