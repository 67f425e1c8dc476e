package queue

import (
	"time"

	"postern/mail"
)

// While all upstreams of a route are paused, its messages sleep: the store keeps them under the route's name, and nothing
// looks at them again until they are woken, however often the upstreams are tried and found wanting. When a pause is over, a
// few are woken to find out; when one gets through, or the dispatcher says that there are places, the rest follow as the
// window has room. So a backlog costs nothing while it waits. Each message is due by itself when its delay report or its end
// is due, and after a day at the latest.
const (
	maxPauses  = 4096           // routes remembered as paused; the messages of others come back by their time
	probes     = 4              // messages woken to find out whether a pause is over
	probeAgain = time.Minute    // when nothing was heard of them
	maxSleep   = 24 * time.Hour // until what was forgotten is found
	namesEvery = time.Hour      // reads of the names that messages sleep under, for what another process put there
	namesPage  = 256
	rouseMost  = 16 // names to wake at a time
)

// pause is a route that is not to be used for now.
type pause struct {
	until  time.Time // the last answer
	open   bool      // it works again: what sleeps is woken
	probed bool      // some were woken to find out, and nothing was heard since
	wakeAt time.Time // when the next are woken
	woken  int       // since it is open
	joined bool      // a message went to sleep since the last wake was sent off
	sample *Message  // asked for again after Wake, to learn of a pause that ended early; nil: none seen
}

// closed reports that the messages of a route have to sleep. A nil pause is none.
func (p *pause) closed(now time.Time) bool { return p != nil && !p.open && p.until.After(now) }

// dormant is what the scheduler knows of routes that are paused. It is guarded by Queue.mu.
type dormant struct {
	pauses  map[string]*pause
	rouseAt time.Time // the first wakeAt of all, zero: none
	namesAt time.Time // when to read the names from the store
	reask   bool      // Wake was called since reasked
	reasked time.Time
}

func newDormant() dormant { return dormant{pauses: make(map[string]*pause)} }

func (q *Queue) wakeNextLocked(p *pause, at time.Time) {
	p.wakeAt = at
	if q.rouseAt.IsZero() || at.Before(q.rouseAt) {
		q.rouseAt = at
		q.nudge()
	}
}

// pausesAtLocked is when the pauses want the loop, if that is before a time.
func (q *Queue) pausesAtLocked(at time.Time) time.Time {
	if !q.working {
		at = earlier(at, q.namesAt)
		if !q.rouseAt.IsZero() {
			at = earlier(at, q.rouseAt)
		}
	}
	if q.reask && len(q.pauses) > 0 {
		at = earlier(at, q.reasked.Add(pollEvery))
	}
	return at
}

func (q *Queue) wakeWantedLocked(now time.Time) bool {
	return !q.namesAt.After(now) || !q.rouseAt.IsZero() && !q.rouseAt.After(now)
}

// pausedLocked remembers that a route is paused. It returns the name to sleep under, "" if there is no room for one more.
func (q *Queue) pausedLocked(w Wait, m *Message) (name string) {
	name = w.route()
	p := q.pauses[name]
	if p == nil {
		if name == "" || len(q.pauses) >= maxPauses {
			return ""
		}
		p = &pause{}
		q.pauses[name] = p
	}
	if p.sample == nil && m != nil {
		sample := *m
		p.sample = &sample
	}
	p.until, p.open, p.probed, p.woken = w.Until, false, false, 0
	q.wakeNextLocked(p, w.Until)
	return name
}

// asleepLocked makes sure that messages which sleep under a name will be woken, also if their pause has ended since they were
// told to.
func (q *Queue) asleepLocked(name string) {
	if name == "" {
		return
	}
	if p := q.pauses[name]; p != nil {
		p.joined = true
		return
	}
	p := &pause{}
	q.pauses[name] = p
	q.wakeNextLocked(p, time.Now())
}

// pauseLocked sets e aside, and everything of its route that waits in the same line.
func (q *Queue) pauseLocked(now time.Time, e *entry, w Wait) {
	w.Route = w.route()
	q.pausedLocked(w, e.m)
	q.setAsideLocked(now, e, w)
	l := q.lines[w.Key]
	if l == nil {
		return
	}
	same := l.extract(func(e *entry) bool { return e.route == w.Route })
	q.waiting -= len(same)
	q.tidyLocked(l)
	for _, e := range same {
		q.setAsideLocked(now, e, w)
	}
}

// setAsideLocked takes a message that is in no line off the schedule until its route works, or has it settled if it cannot
// wait that long.
func (q *Queue) setAsideLocked(now time.Time, e *entry, w Wait) {
	q.moved++
	e.route, e.until, e.asleep = w.Route, w.Until, ""
	if q.pauses[w.Route] != nil {
		e.asleep = w.Route
	}
	if q.overdue(now, e.m) {
		q.lookLocked(e)
		return
	}
	e.state = aside
	q.asides = append(q.asides, e)
}

// sleepAt is when a message must be looked at that sleeps under a name, or, without one, comes back at until.
func (q *Queue) sleepAt(now time.Time, m *Message, until time.Time, name string) time.Time {
	if name != "" {
		until = now.Add(maxSleep)
	}
	return q.lookAt(now, m, until)
}

// postpone commits the postponement of all messages that were set aside, and forgets them.
func (q *Queue) postpone() {
	type batch struct {
		at   time.Time
		name string
	}
	q.mu.Lock()
	now := time.Now()
	batches := make(map[batch][]*entry)
	for _, e := range q.asides {
		b := batch{q.sleepAt(now, e.m, e.until, e.asleep), e.asleep}
		batches[b] = append(batches[b], e)
	}
	q.asides = nil
	q.mu.Unlock()
	for b, entries := range batches {
		ids := make([]string, len(entries))
		for i, e := range entries {
			ids[i] = e.m.ID
		}
		err := q.opts.Store.Postpone(q.hard, ids, b.at, b.name)
		q.storeSaid(err, "postpone", writes)
		q.postponed(entries, b.at, b.name, err)
	}
}

func (q *Queue) postponed(entries []*entry, at time.Time, name string, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range entries {
		if err != nil { // it is still due
			q.joinLocked(e)
			continue
		}
		if e.m.WaitingFor != e.route {
			q.traceWaiting(e.m, e.route, e.until)
		}
		q.dirty = q.dirty || e.doubted // given up by a person, it was not put off
		q.forgetLocked(e)
	}
	if err == nil {
		q.noteLocked(at)
		q.asleepLocked(name)
	}
}

// reaskLocked learns of pauses that ended before their time.
func (q *Queue) reaskLocked(now time.Time) {
	if !q.reask || now.Sub(q.reasked) < pollEvery {
		return
	}
	q.reask, q.reasked = false, now
	for name, p := range q.pauses {
		if p.sample == nil || !p.closed(now) {
			continue
		}
		if q.askLocked(now, name, p) != isPaused { // or its messages have another route now
			q.openLocked(now, p)
		}
	}
}

// What the dispatcher says of a route.
type answer uint8

const (
	hasPlace answer = iota
	isBusy
	isPaused
)

// askLocked asks for a place for the sample of a pause and gives it back.
func (q *Queue) askLocked(now time.Time, name string, p *pause) answer {
	t, w := q.opts.Dispatcher.Reserve(now, p.sample)
	switch {
	case t != nil:
		t.Release()
		return hasPlace
	case w.route() != name:
		return hasPlace
	case w.Until.After(now):
		p.until, p.probed = w.Until, false
		q.wakeNextLocked(p, w.Until)
		return isPaused
	}
	return isBusy
}

func (q *Queue) openLocked(now time.Time, p *pause) {
	if !p.open {
		p.open = true
		q.wakeNextLocked(p, now)
	}
}

// learn ends a pause when an upstream of the route took, or judged, a message; not where the pause began while that was under
// way, and goes on.
func (q *Queue) learn(route string, results []mail.Result) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p, now := q.pauses[route], time.Now()
	if p == nil || p.open {
		return
	}
	for _, r := range results {
		if r.Class != mail.Delivered && !r.Class.Permanent() {
			continue
		}
		if !p.closed(now) || p.sample == nil || q.askLocked(now, route, p) != isPaused {
			q.openLocked(now, p)
		}
		return
	}
}

// sleepsFor returns what a message that has to wait for its upstreams is to sleep for: "" if they are not paused but refused
// this one message, or its sender, whose return nobody tells.
func (q *Queue) sleepsFor(m *Message) (name string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.phase != running {
		return ""
	}
	now := time.Now()
	t, w := q.opts.Dispatcher.Reserve(now, m)
	switch {
	case t != nil:
		t.Release()
	case w.Until.After(now):
		return q.pausedLocked(w, m)
	}
	return ""
}

// learnNames reads what messages sleep under, at start and from time to time.
func (q *Queue) learnNames() {
	q.mu.Lock()
	now := time.Now()
	if q.namesAt.After(now) {
		q.mu.Unlock()
		return
	}
	q.namesAt = now.Add(namesEvery)
	q.mu.Unlock()
	for after := ""; ; {
		names, err := q.opts.Store.WaitedFor(q.hard, after, namesPage)
		q.storeSaid(err, "waited for", reads)
		q.mu.Lock()
		if err != nil {
			q.namesAt = time.Now().Add(storeBackoff)
		}
		for _, name := range names {
			q.asleepLocked(name)
		}
		q.mu.Unlock()
		if len(names) < namesPage {
			return
		}
		after = names[len(names)-1]
	}
}

// rouse wakes messages whose pause may be over: a few where that is to be found out, many where it is known, yet not all at
// once, since the upstream may fail again. Each name is a commit, so that of many only some have their turn between two reads.
func (q *Queue) rouse() {
	for _, w := range q.toRouse() {
		n, err := q.opts.Store.Wake(q.hard, w.name, time.Now(), w.limit)
		q.storeSaid(err, "wake", writes)
		if q.roused(w, n, err); err != nil {
			return
		}
	}
}

type wake struct {
	name  string
	pause *pause
	limit int
}

func (q *Queue) toRouse() (wakes []wake) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if q.rouseAt.IsZero() || q.rouseAt.After(now) {
		return nil
	}
	q.rouseAt = time.Time{}
	for name, p := range q.pauses {
		if p.wakeAt.After(now) || len(wakes) == rouseMost {
			q.wakeNextLocked(p, p.wakeAt)
			continue
		}
		if !p.open && p.probed { // a minute ago
			q.judgeLocked(now, name, p)
		}
		if limit := q.rouseLocked(now, p); limit > 0 {
			p.joined = false
			wakes = append(wakes, wake{name, p, limit})
		}
	}
	return wakes
}

// judgeLocked decides about a pause of whose probes nothing was heard: they may be under way, sleep for something else, or have
// been deferred for reasons of their own. Where nobody ever said that the route is paused, it is not. Where others take all places
// it is not known, and a few more are woken, to wait for one in turn.
func (q *Queue) judgeLocked(now time.Time, name string, p *pause) {
	if p.sample == nil {
		p.open = true
		return
	}
	switch q.askLocked(now, name, p) {
	case hasPlace:
		p.open = true
	case isBusy:
		p.probed = false
	}
}

// rouseLocked says how many messages of a route to wake now, and when to ask again.
func (q *Queue) rouseLocked(now time.Time, p *pause) (limit int) {
	many := max(1, q.opts.Window/2)
	switch {
	case p.closed(now): // it was said since
		q.wakeNextLocked(p, p.until)
		return 0
	case !p.open:
		p.probed = true
		q.wakeNextLocked(p, now.Add(probeAgain))
		return probes
	case 2*len(q.entries) <= q.opts.Window:
		q.wakeNextLocked(p, now.Add(dueEvery))
		return many
	}
	q.wakeNextLocked(p, now.Add(moreEvery)) // others fill the window: they must not keep these asleep
	return many
}

func (q *Queue) roused(w wake, n int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := w.pause
	q.dirty = q.dirty || n > 0
	if p.open {
		p.woken += n
	}
	switch now := time.Now(); {
	case err != nil:
		q.wakeNextLocked(p, now.Add(storeBackoff))
	case n == w.limit || p.closed(now):
	case p.joined: // the wake may not have seen it
		q.wakeNextLocked(p, now)
	case q.pauses[w.name] == p: // nothing sleeps there any more
		delete(q.pauses, w.name)
		if p.open && p.woken > 0 {
			q.log.Info("upstream is back", "upstream", w.name, "messages", p.woken)
		}
	}
}
