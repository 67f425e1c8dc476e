package queue

import "time"

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
		do.attempts = p.serveAll(now)
		do.reviews = p.window.nextReviews()
	}
	p.storeWork(now, &do)
	do.nap = max(p.nap(now), time.Millisecond)
	return do
}

// serveAll gives away all slots there are. Who was asked for before comes first: a newcomer must not take the slot that
// somebody waits for.
func (p *plan) serveAll(now time.Time) (begin []start) {
	for _, l := range p.window.lines {
		begin = p.serve(now, l, begin)
	}
	return p.serve(now, p.window.fresh, begin)
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
			p.busy(l, e, w)
		}
	}
	return begin
}

// busy lets the first entry of l wait where its key belongs.
func (p *plan) busy(l *line, e *entry, w Wait) {
	e.belongs(w)
	to := p.window.line(w.Key)
	to.busy = true
	if to != l {
		p.window.take(l)
		p.window.wait(e, to)
	}
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

// postpone takes a message that is in no line off the schedule until its route works, or has it reviewed if it cannot
// wait that long.
func (p *plan) postpone(now time.Time, e *entry, w Wait) {
	p.reader.moved++
	e.route, e.until, e.asleep = w.Route, w.Until, ""
	if p.routes.routes[w.Route] != nil {
		e.asleep = w.Route
	}
	if p.times.overdue(now, e.m) {
		p.window.review(e)
		return
	}
	e.state = postponing
	p.window.postpones = append(p.window.postpones, e)
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

// join lets a due message that is in no line wait where it belongs, as far as that is known.
func (p *plan) join(now time.Time, e *entry) {
	e.until, e.asleep = time.Time{}, ""
	if r := p.routes.routes[e.m.WaitingFor]; r.closed(now) {
		p.postpone(now, e, Wait{Route: e.m.WaitingFor, Until: r.until})
		return
	}
	l := p.window.lines[e.key]
	if l == nil {
		l = p.window.lines[e.m.WaitingFor]
	}
	switch {
	case e.m.Bounce:
		p.window.review(e)
	case l != nil:
		p.window.wait(e, l)
	default:
		p.window.wait(e, p.window.fresh)
	}
}

// forget removes an entry, which is in no line, from the window.
func (p *plan) forget(e *entry) {
	p.window.remove(e)
	p.reader.forgot(e.m.ID)
}

// leave leaves an entry to the store, where it becomes due at a time, or sleeps for a route. A person may have given it
// up meanwhile: then a read says so.
func (p *plan) leave(now time.Time, e *entry, at time.Time, route string) {
	p.forget(e)
	p.reader.due(at)
	p.routes.asleep(now, route)
	p.reader.changed = p.reader.changed || e.stale
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

// room reports whether the window has room for a message of login, making it at the cost of a login that has more.
func (p *plan) room(login string) bool {
	out, ok := p.window.room(login)
	if out != nil {
		p.forget(out)
		p.reader.more = true
	}
	return ok
}

// enter takes in a message that is in the store, if there is room and it is due; else it is found there again.
func (p *plan) enter(now time.Time, n NewMessage, open bool) {
	m := n.Message
	switch {
	case m.Held:
	case m.NextAttempt.After(now):
		p.reader.due(m.NextAttempt)
	case !open || p.window.entries[m.ID] != nil || !p.room(m.Login):
		p.reader.more = true
	default:
		e := &entry{m: m}
		p.window.add(e, n.Content)
		p.join(now, e)
	}
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

// ask asks the dispatcher about routes and gives the slots back.
func (p *plan) ask(now time.Time, questions []question) {
	for _, q := range questions {
		slot, w := p.dispatcher.Reserve(now, q.sample)
		said := isBusy
		switch {
		case slot != nil:
			slot.Release()
			said = hasSlot
		case w.route() != q.name: // its messages have another route now
			said = hasSlot
		case w.Until.After(now):
			said = isPaused
		}
		p.routes.answer(now, q.name, said, w.Until)
	}
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
