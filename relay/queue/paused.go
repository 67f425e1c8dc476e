package queue

import (
	"time"

	"postern/mail"
)

// While all upstreams of a route are paused, its messages sleep: the store keeps them under the route's name, and
// nothing looks at them again until they are woken, however often the upstreams are tried and found wanting. When a
// pause is over, a few are woken to find out; when one gets through, or the dispatcher says that there are slots, the
// rest follow as the window has room. So a backlog costs nothing while it waits. Each message is due by itself when its
// delay report or its end is due, and after a day at the latest.
const (
	maxPaused  = 4096           // routes remembered as paused; the messages of others come back by their time
	probes     = 4              // messages woken to find out whether a pause is over
	probeAgain = time.Minute    // when nothing was heard of them
	maxSleep   = 24 * time.Hour // until what was forgotten is found
	namesEvery = time.Hour      // reads of the names that messages sleep under, for what another process put there
	namesPage  = 256
	resumeMost = 16 // routes to resume at a time
)

// route is one that is not to be used for now, or that wakes what sleeps for it.
type route struct {
	until  time.Time // the last answer of the dispatcher
	open   bool      // it works again: what sleeps is woken
	probed bool      // some were woken to find out, and nothing was heard since
	wakeAt time.Time // when the next are woken
	woken  int       // since it is open
	joined bool      // a message went to sleep since the last wake was sent off
	sample *Message  // asked for again after Wake, to learn of a pause that ended early; nil: none seen
}

// closed reports that the messages of a route have to sleep. A nil route is not paused.
func (r *route) closed(now time.Time) bool { return r != nil && !r.open && r.until.After(now) }

// pausedRoutes decides when messages that sleep for a route are woken, and how many. It is pure: no lock, no store, no
// clock. It asks for what it needs by its results: questions for the dispatcher (answer tells it what was said) and
// wakes for the store (woken tells it what came of them).
type pausedRoutes struct {
	routes  map[string]*route
	wakeAt  time.Time // the first wakeAt of all, zero: none
	namesAt time.Time // when to read the names from the store
	polled  bool      // Wake was called since askedAt
	askedAt time.Time
}

// question asks the dispatcher whether a route can be used, for a message that it was paused for.
type question struct {
	name   string
	sample *Message
}

// availability is what the dispatcher says of a route.
type availability uint8

const (
	hasSlot availability = iota
	isBusy
	isPaused
)

// wake is what the store is to do for a route.
type wake struct {
	name  string
	route *route
	limit int
}

func (p *pausedRoutes) wakeNext(r *route, at time.Time) {
	r.wakeAt = at
	if p.wakeAt.IsZero() || at.Before(p.wakeAt) {
		p.wakeAt = at
	}
}

// at is when there is something to do, if that is before a time. While the store is busy with us, nothing of it.
func (p *pausedRoutes) at(at time.Time, storeBusy bool) time.Time {
	if !storeBusy {
		at = earlier(at, p.namesAt)
		if !p.wakeAt.IsZero() {
			at = earlier(at, p.wakeAt)
		}
	}
	if p.polled && len(p.routes) > 0 {
		at = earlier(at, p.askedAt.Add(pollEvery))
	}
	return at
}

// wantsStore reports that names are to be read, or messages woken.
func (p *pausedRoutes) wantsStore(now time.Time) bool {
	return !p.namesAt.After(now) || p.wantsWake(now)
}

// beginNames reports whether the names are to be read now.
func (p *pausedRoutes) beginNames(now time.Time) (wanted bool) {
	if wanted = !p.namesAt.After(now); wanted {
		p.namesAt = now.Add(namesEvery)
	}
	return wanted
}

// names learns what messages sleep under, by a read of the store.
func (p *pausedRoutes) names(now time.Time, names []string, err error) {
	if err != nil {
		p.namesAt = now.Add(storeBackoff)
	}
	for _, name := range names {
		p.asleep(now, name)
	}
}

func (p *pausedRoutes) wantsWake(now time.Time) bool {
	return !p.wakeAt.IsZero() && !p.wakeAt.After(now)
}

// pause remembers that a route is paused, as the dispatcher said when it was asked for m. It returns the name to sleep
// under, "" if there is no room for one more.
func (p *pausedRoutes) pause(w Wait, m *Message) (name string) {
	name = w.route()
	r := p.routes[name]
	if r == nil {
		if name == "" || len(p.routes) >= maxPaused {
			return ""
		}
		r = &route{}
		p.routes[name] = r
	}
	if r.sample == nil {
		sample := *m
		r.sample = &sample
	}
	r.open, r.woken = false, 0
	p.closeUntil(r, w.Until)
	return name
}

func (p *pausedRoutes) closeUntil(r *route, until time.Time) {
	r.until, r.probed = until, false
	p.wakeNext(r, until)
}

// asleep makes sure that messages which sleep under a name will be woken, also if their pause has ended since they were
// told to.
func (p *pausedRoutes) asleep(now time.Time, name string) {
	if name == "" {
		return
	}
	if r := p.routes[name]; r != nil {
		r.joined = true
		return
	}
	r := &route{}
	p.routes[name] = r
	p.wakeNext(r, now)
}

// poll returns what to ask after Wake, to learn of pauses that ended before their time.
func (p *pausedRoutes) poll(now time.Time) (ask []question) {
	if !p.polled || now.Sub(p.askedAt) < pollEvery {
		return nil
	}
	p.polled, p.askedAt = false, now
	for name, r := range p.routes {
		if r.sample != nil && r.closed(now) {
			ask = append(ask, question{name, r.sample})
		}
	}
	return ask
}

// works learns that an upstream of a route took, or refused, a message on its merits. It returns what to ask first: the
// pause may have begun while that was under way, and go on.
func (p *pausedRoutes) works(now time.Time, name string) (ask []question) {
	r := p.routes[name]
	switch {
	case r == nil || r.open:
	case r.sample != nil && r.closed(now):
		return []question{{name, r.sample}}
	default:
		p.open(now, r)
	}
	return nil
}

// learn ends the pause of a route when an upstream of it took a message, or refused it on its merits.
func (s *scheduler) learn(route string, results []mail.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range results {
		if r.Class == mail.Delivered || r.Class.Permanent() {
			now := time.Now()
			s.plan.ask(now, s.plan.routes.works(now, route))
			return
		}
	}
}

// unheard returns what to ask about routes of whose probes nothing was heard for a minute: they may be under way, sleep
// for something else, or have been deferred for reasons of their own. Where nobody ever said that the route is paused,
// it is not.
func (p *pausedRoutes) unheard(now time.Time) (ask []question) {
	if !p.wantsWake(now) {
		return nil
	}
	for name, r := range p.routes {
		switch {
		case r.open || !r.probed || r.wakeAt.After(now):
		case r.sample == nil:
			r.open = true
		case len(ask) < resumeMost:
			ask = append(ask, question{name, r.sample})
		}
	}
	return ask
}

// answer learns what the dispatcher said to a question. Where others take all slots of a route whose probes were not
// heard of, it is not known whether that is usable, and a few more are woken, to wait for one in turn.
func (p *pausedRoutes) answer(now time.Time, name string, a availability, until time.Time) {
	r := p.routes[name]
	switch {
	case a == isPaused:
		p.closeUntil(r, until)
	case a == isBusy && r.probed:
		r.probed = false
	default:
		p.open(now, r)
	}
}

func (p *pausedRoutes) open(now time.Time, r *route) {
	r.open = true
	p.wakeNext(r, now)
}

// resume wakes messages whose pause may be over: a few where that is to be found out, many where it is known, yet not
// all at once, since the upstream may fail again. Each name is a commit, so that of many only some have their turn
// between two reads.
func (p *pausedRoutes) resume(now time.Time, messages, window int) (wakes []wake) {
	if !p.wantsWake(now) {
		return nil
	}
	p.wakeAt = time.Time{}
	for name, r := range p.routes {
		if r.wakeAt.After(now) || r.probed && !r.open || len(wakes) == resumeMost {
			p.wakeNext(r, r.wakeAt)
			continue
		}
		if limit := p.wakeMost(now, r, messages, window); limit > 0 {
			r.joined = false
			wakes = append(wakes, wake{name, r, limit})
		}
	}
	return wakes
}

// wakeMost says how many messages of a route to wake now, and when to ask again.
func (p *pausedRoutes) wakeMost(now time.Time, r *route, messages, window int) int {
	switch {
	case r.closed(now): // it was said since
		p.wakeNext(r, r.until)
		return 0
	case !r.open:
		r.probed = true
		p.wakeNext(r, now.Add(probeAgain))
		return probes
	case 2*messages <= window:
		p.wakeNext(r, now.Add(dueEvery))
	default:
		p.wakeNext(r, now.Add(moreEvery)) // others fill the window: they must not keep these asleep
	}
	return max(1, window/2)
}

// woken learns how many messages a wake woke. It reports that a route is back, for the log: nothing sleeps for it any
// more.
func (p *pausedRoutes) woken(now time.Time, w wake, n int, err error) (back bool) {
	r := w.route
	if r.open {
		r.woken += n
	}
	switch {
	case err != nil:
		p.wakeNext(r, now.Add(storeBackoff))
	case n == w.limit || r.closed(now):
	case r.joined: // the wake may not have seen it
		p.wakeNext(r, now)
	case p.routes[w.name] == r:
		delete(p.routes, w.name)
		return r.open && r.woken > 0
	}
	return false
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
