package queue

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"postern/mail"
	"postern/relay/trace"
)

// Dispatcher gives places for attempts. The scheduler calls Reserve with a lock held: it must be quick,
// do no input or output, and call back nothing of the Queue but Wake and Refresh.
type Dispatcher interface {
	// Reserve asks for a place for one attempt of m now. With a Ticket, Wait.Key may name the upstream
	// identity that the place belongs to. Without one, Wait says why.
	Reserve(now time.Time, m *Message) (Ticket, Wait)
}

// Wait says why there is no place. Key groups the messages that wait for the same place: of those, one is
// asked for again.
type Wait struct {
	Key string
	// Route names all the upstreams that could do, those that Key names among them. Messages of one Route share its
	// pauses; "" is Key.
	Route string
	// Until is zero when all places are taken: the scheduler asks again after Wake. Otherwise all upstreams
	// of the route are paused or back off until then, and its messages sleep in the store.
	Until time.Time
}

func (w Wait) route() string {
	if w.Route == "" {
		return w.Key
	}
	return w.Route
}

// Ticket is a place for one attempt. Attempt may be called once; Release must be, last.
type Ticket interface {
	// Attempt makes the attempt. It returns one result for every pending recipient, Result.Recipient being its index in
	// m.Recipients; a missing one counts as a deferral. It must neither change nor keep m, and return soon after ctx ends.
	// Where it has to go on after an upstream took the message for some, it calls taken with their results before it does.
	Attempt(ctx context.Context, m *Message, c mail.Content, taken func([]mail.Result)) []mail.Result
	// Release gives the place back. It is called when what was taken is in the journal, or without that when the outcome is
	// committed: so a kill repeats at most one message for each place.
	Release()
}

// Schedule says when to try again and when to stop.
type Schedule struct {
	Retry     []time.Duration // before the second, third … attempt; the last one repeats
	Expire    time.Duration   // from acceptance to giving up; RFC 5321 §4.5.4.1 wants at least 4-5 days, submission users want to know sooner
	WarnAfter time.Duration   // from acceptance to the delay report; 0: none
}

// defaultSchedule is that of relay.toml.
func defaultSchedule() Schedule {
	return Schedule{
		Retry:     []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour},
		Expire:    48 * time.Hour,
		WarnAfter: 4 * time.Hour,
	}
}

// Options of a Queue. Store and Dispatcher are required.
type Options struct {
	Store      Store
	Journal    Journal // nil: none
	Dispatcher Dispatcher
	// Owner names this process in leases. It must be the same after a restart and differ between nodes.
	Owner string

	Retry             []time.Duration // empty: as in relay.toml
	Expire, WarnAfter time.Duration   // Expire 0: 48 h; WarnAfter 0: 4 h, negative: no delay reports

	Window     int           // messages in memory, at most; 0: 1000
	MaxContent int64         // octets of content kept in memory between Submit and attempt; 0: 64 MiB
	LeaseFor   time.Duration // extended while an attempt runs; 0: 5 min
	Drain      time.Duration // how long attempts may go on after the end of Run's context; 0: 30 s

	// Report makes a DSN. A nil message says that none is due after all. nil: no reports.
	Report func(Notice) (*NewMessage, error)
	Trace  func(trace.Event) // must not block; nil: none
	Logger *slog.Logger      // nil: discards
	Jitter func() float64    // [0, 1); nil: random
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
	if o.Drain <= 0 {
		o.Drain = 30 * time.Second
	}
	if o.Trace == nil {
		o.Trace = func(trace.Event) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	return o
}

// Queue schedules attempts. Make one with New; all methods are safe for concurrent use.
type Queue struct {
	opts     Options
	log      *slog.Logger
	schedule atomic.Pointer[Schedule]

	wake  chan struct{} // one slot: the loop has something to look at
	up    chan struct{} // closed when Run takes messages
	freed atomic.Bool   // a place may be free
	poll  atomic.Bool   // somebody outside says that something changed
	stale atomic.Bool   // what is in the window may not be what is in the store

	tasks sync.WaitGroup // attempts, looks and chores; Run waits for them

	mu sync.Mutex
	window
	phase phase
	// hard ends when outcomes can wait no longer; attempts ends at the drain deadline.
	hard, attempts context.Context

	clerk
	dormant
	health
}

// phase is the life of Run.
type phase uint8

const (
	idle phase = iota
	running
	stopping
)

// New returns a Queue that schedules nothing until Run.
func New(o Options) *Queue {
	q := &Queue{opts: o.withDefaults(), wake: make(chan struct{}, 1), up: make(chan struct{})}
	q.log = q.opts.Logger
	q.window = newWindow()
	q.clerk = newClerk()
	q.dormant = newDormant()
	q.SetSchedule(Schedule{Retry: o.Retry, Expire: o.Expire, WarnAfter: o.WarnAfter})
	return q
}

// Up is closed when Run is there for what is submitted. Listeners wait for it.
func (q *Queue) Up() <-chan struct{} { return q.up }

// SetSchedule changes retry times from the next outcome on. Zero fields mean the defaults. Messages keep
// the time to expire that they were accepted with.
func (q *Queue) SetSchedule(s Schedule) {
	def := defaultSchedule()
	if len(s.Retry) == 0 {
		s.Retry = def.Retry
	}
	if s.Expire <= 0 {
		s.Expire = def.Expire
	}
	if s.WarnAfter == 0 {
		s.WarnAfter = def.WarnAfter
	}
	q.schedule.Store(&s)
}

// Wake tells that a place may be free, or that the queue may have changed. It costs nothing, never
// blocks and may be called from anywhere, also from Reserve. The store is polled for it once a second at
// most.
func (q *Queue) Wake() {
	q.freed.Store(true)
	q.poll.Store(true)
	q.nudge()
}

// Refresh tells that another process changed messages, or that routes changed: what waits in the window
// is forgotten and read again.
func (q *Queue) Refresh() {
	q.stale.Store(true)
	q.Wake()
}

// placeFree is Wake for places that our own attempts gave back.
func (q *Queue) placeFree() {
	q.freed.Store(true)
	q.nudge()
}

func (q *Queue) nudge() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// WindowStats is the state of the scheduler at a glance.
type WindowStats struct {
	Window  int   // messages in memory
	Waiting int   // of those, waiting for a place
	Running int   // attempts and outcomes being recorded
	Content int64 // octets of content in memory
	Paused  int   // routes that are paused and that mail sleeps for
	// StoreFailing: scheduling pauses because the store returns errors.
	StoreFailing bool
}

// Stats returns the state of the window.
func (q *Queue) Stats() WindowStats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := WindowStats{
		Window: len(q.entries), Waiting: q.waiting, Running: q.busy, Content: q.content, StoreFailing: q.health.failing,
	}
	now := time.Now()
	for _, p := range q.pauses {
		if p.closed(now) {
			s.Paused++
		}
	}
	return s
}

// Waiters returns how many messages in the window wait for a place with the key. A hand-off that finds
// any should queue its message instead of taking a place before them.
func (q *Queue) Waiters(key string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if l := q.lines[key]; l != nil {
		return l.n
	}
	return 0
}
