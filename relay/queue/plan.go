package queue

import (
	"container/list"
	"time"

	"postern/mail"
)

// How often the plan does by itself what events normally make it do.
const (
	askAgain   = time.Second // a dispatcher that forgot to call Wake costs this much
	maxReviews = 16          // at a time
	sweepEvery = time.Minute // looks for messages that wait too long for a slot
	maxWait    = time.Hour   // a message past its end waits this much longer for its last attempt
)

// plan says where each message in the window stands and what is to be done next. It joins the window and the machines
// that decide about the store and the paused routes, and asks the dispatcher. It has no lock, no store and starts
// nothing: facts come in by its methods, and turn returns what to do.
type plan struct {
	window     window
	reader     reader
	routes     pausedRoutes
	health     health
	dispatcher Dispatcher
	times      *timetable

	asked, swept, rotated time.Time // when that was done

	working   bool // a task works on the store
	extending bool // another extends leases
	extendAt  time.Time
	leaseFor  time.Duration
}

func newPlan(o Options, times *timetable) plan {
	return plan{
		window: newWindow(o.Window, o.MaxContent), reader: reader{left: make(map[string]struct{})},
		routes: pausedRoutes{routes: make(map[string]*route)}, dispatcher: o.Dispatcher, times: times,
		leaseFor: o.LeaseFor,
	}
}

// state is where a message in the window stands.
type state uint8

const (
	adding     state = iota // Submit commits it at this moment
	waiting                 // due, in a line
	postponing              // to be put off in the store
	reviewing               // to be decided about without an attempt
	active                  // attempt or outcome in progress
)

// entry is a message in the window. Its message belongs to the one goroutine that works on it while it
// is active or reviewing, else to the window.
type entry struct {
	m       *Message
	content mail.Content // nil: the store has it
	key     string       // the line that it belongs to
	route   string       // what it would sleep for
	state   state
	until   time.Time // while postponing or reviewing: when its route may work again, zero: the retry table decides
	// while postponing or reviewing: the paused route that it is to sleep for, "" if only until counts
	asleep string

	lease *Lease // nil: not leased (yet)
	stale bool   // another process changed the queue while it was in no line: the store may know better
}

// todo is what a turn wants done.
type todo struct {
	attempts []start
	reviews  []*entry
	work     bool // on the store: postpones, names, wakes, reads
	extend   bool // leases
	nap      time.Duration
}

// start is an attempt to begin.
type start struct {
	entry *entry
	slot  Slot
}

// turn does what can be done now and says for how long nothing needs to be done unless something happens. freed: a slot
// may be free.
func (p *plan) turn(now time.Time, freed bool) (do todo) {
	if freed || now.Sub(p.asked) >= askAgain {
		p.asked = now
		for _, l := range p.window.lines {
			l.busy = false
		}
	}
	if !p.health.down(now) {
		p.ask(now, p.routes.poll(now))
		p.sweep(now)
		// Who was asked for before comes first: a newcomer must not take the slot that somebody waits for.
		for _, l := range p.window.lines {
			do.attempts = p.serve(now, l, do.attempts)
		}
		do.attempts = p.serve(now, p.window.fresh, do.attempts)
		do.reviews = p.window.nextReviews()
	}
	p.storeWork(now, &do)
	do.nap = max(p.nap(now), time.Millisecond)
	return do
}

// serve asks for slots for the messages of one line until there is none.
func (p *plan) serve(now time.Time, l *line, begin []start) []start {
	for !l.busy {
		e := l.first()
		if e == nil {
			break
		}
		slot, w := p.dispatcher.Reserve(now, e.m)
		switch {
		case slot != nil:
			p.window.take(l)
			e.belongs(w)
			p.reader.moved++
			p.window.begin(e)
			begin = append(begin, start{e, slot})
		case w.Until.After(now):
			p.window.take(l)
			p.pause(now, e, w)
		default:
			e.belongs(w)
			to := p.window.line(w.Key)
			to.busy = true
			if to != l { // its key is another one
				p.window.take(l)
				p.window.wait(e, to)
			}
		}
	}
	return begin
}

// pause puts off e, and everything of its route that waits in the same line.
func (p *plan) pause(now time.Time, e *entry, w Wait) {
	w.Route = w.route()
	p.routes.pause(w, e.m)
	p.postpone(now, e, w)
	l := p.window.lines[w.Key]
	if l == nil {
		return
	}
	for _, e := range p.window.extract(l, func(e *entry) bool { return e.route == w.Route }) {
		p.postpone(now, e, w)
	}
}

// sweep has messages reviewed whose delay report is due, or whose time is long over, while all slots of their upstream
// are taken.
func (p *plan) sweep(now time.Time) {
	if p.window.waiting == 0 || now.Sub(p.swept) < sweepEvery {
		return
	}
	p.swept = now
	for _, l := range p.window.lines {
		late := p.window.extract(l, func(e *entry) bool {
			return p.times.overdue(now, e.m) && (!expired(now, e.m) || expired(now.Add(-maxWait), e.m))
		})
		for _, e := range late {
			e.until = now // what stays pending is due again
			p.window.review(e)
		}
	}
}

// reset forgets what waits, because the store may know better, and marks what runs.
func (p *plan) reset() {
	p.reader.changed, p.routes.namesAt = true, time.Time{}
	for _, e := range p.window.entries {
		if e.stale = e.state != waiting; !e.stale {
			p.forget(e)
		}
	}
	p.window.waiting = 0
	p.window.fresh = newLine("")
	clear(p.window.lines)
}

// beginRead starts a read of the store. In a window full of messages that all wait for busy upstreams it makes room for
// others.
func (p *plan) beginRead(now time.Time) (after string) {
	after = p.reader.begin(now)
	if len(p.window.entries) >= p.window.size && now.Sub(p.rotated) >= turnEvery {
		p.rotated = now
		for _, e := range p.window.rotate(max(1, p.window.size/4)) {
			p.forget(e)
		}
	}
	return after
}

// rotate takes out up to n messages that wait in busy lines, so that others in the store get their turn: those of the
// logins that have most, and among equals those whose turn is farthest. Who waits first keeps waiting.
func (w *window) rotate(n int) []*entry {
	var out []*entry
	for len(out) < n {
		var from *line
		var of *list.Element
		most := 0
		for _, l := range w.lines {
			for el := l.turns.Back(); l.busy && l.n > 1 && el != nil; el = el.Prev() {
				if have := len(el.Value.(*lane).entries); have > most {
					from, of, most = l, el, have
				}
			}
		}
		if from == nil {
			break
		}
		out = append(out, from.dropLast(of))
		w.waiting--
	}
	return out
}

// load takes what a read returned into the window, except what the window knows better. What does not fit stays in the
// store.
func (p *plan) load(now time.Time, due []*Message, next time.Time, perLogin, limit int) {
	for _, m := range due {
		switch {
		case p.reader.old(m.ID) || p.window.entries[m.ID] != nil:
		case !p.room(m.Login):
			p.reader.more = true
		default:
			p.reader.after = m.Login
			e := &entry{m: m}
			p.window.add(e, nil)
			p.join(now, e)
		}
	}
	p.reader.end(due, next, perLogin, limit)
}

// readAt is when the store is to be read next; false: nothing calls for it.
func (p *plan) readAt() (at time.Time, wanted bool) {
	at, wanted = p.reader.at()
	if p.health.failing {
		at = later(at, p.health.until)
	}
	return at, wanted
}

func (p *plan) wantsRead(now time.Time) bool {
	at, wanted := p.readAt()
	return wanted && !at.After(now)
}

// nap is how long nothing needs to be done.
func (p *plan) nap(now time.Time) time.Duration {
	next := now.Add(time.Hour)
	if at, wanted := p.readAt(); wanted && !p.working {
		next = earlier(next, at)
	}
	if p.health.down(now) {
		next = earlier(next, p.health.until)
	} else {
		if p.window.waiting > 0 {
			next = earlier(next, p.asked.Add(askAgain))
		}
		next = p.routes.at(next, p.working)
	}
	if p.window.active > 0 && !p.extending {
		next = earlier(next, p.extendAt)
	}
	return next.Sub(now)
}

// storeWork says what is to be done with the store.
func (p *plan) storeWork(now time.Time, do *todo) {
	do.extend = p.window.active > 0 && !p.extending && !p.extendAt.After(now)
	if do.extend {
		p.extending, p.extendAt = true, now.Add(p.leaseFor/3)
	}
	do.work = !p.working && !p.health.down(now) &&
		(len(p.window.postpones) > 0 || p.routes.wantsStore(now) || p.wantsRead(now))
	p.working = p.working || do.work
}
