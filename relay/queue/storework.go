package queue

import (
	"errors"
	"time"
)

// storeWork does what the plan wants of the store: one task at a time does all, another extends leases. Between two
// calls of the store it holds the scheduler's lock, never during one.
type storeWork struct {
	s     *scheduler
	store Store
}

// do does what is wanted.
func (w storeWork) do() {
	w.postpone()
	w.readNames()
	w.resume()
	w.readDue()
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.plan.working = false
	w.s.bell.ring()
}

// postpone commits the postponement of messages, and forgets them.
func (w storeWork) postpone() {
	type batch struct {
		at    time.Time
		route string
	}
	w.s.mu.Lock()
	now, batches := time.Now(), make(map[batch][]*entry)
	for _, e := range w.s.plan.window.postpones {
		b := batch{w.s.plan.times.sleepAt(now, e.m, e.until, e.asleep), e.asleep}
		batches[b] = append(batches[b], e)
	}
	w.s.plan.window.postpones = nil
	w.s.mu.Unlock()
	for b, entries := range batches {
		vs := make([]Version, len(entries))
		for i, e := range entries {
			vs[i] = e.m.Version()
		}
		err := w.store.Postpone(w.s.hard, vs, b.at, b.route)
		w.s.storeSaid(err, "postpone", writes)
		w.postponed(entries, b.at, b.route, err)
	}
}

func (w storeWork) postponed(entries []*entry, at time.Time, route string, err error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	p, now := &w.s.plan, time.Now()
	for _, e := range entries {
		if err != nil { // it is still due
			p.join(now, e)
			continue
		}
		if e.m.WaitingFor != e.route {
			w.s.trace.waiting(e.m, e.route, e.until)
		}
		p.leave(now, e, at, route)
	}
}

// readNames reads what messages sleep for, at start and from time to time.
func (w storeWork) readNames() {
	w.s.mu.Lock()
	now := time.Now()
	wanted := w.s.plan.routes.beginNames(now)
	w.s.mu.Unlock()
	for after := ""; wanted; {
		names, err := w.store.WaitedFor(w.s.hard, after, namesPage)
		w.s.storeSaid(err, "waited for", reads)
		w.s.mu.Lock()
		w.s.plan.routes.names(time.Now(), names, err)
		w.s.mu.Unlock()
		if wanted = len(names) == namesPage; wanted {
			after = names[len(names)-1]
		}
	}
}

// resume wakes messages of paused routes that may work again.
func (w storeWork) resume() {
	for _, wake := range w.wakes() {
		now := time.Now()
		n, err := w.store.Wake(w.s.hard, wake.name, now, wake.limit)
		w.s.storeSaid(err, "wake", writes)
		if w.woken(wake, n, err); err != nil {
			return
		}
	}
}

func (w storeWork) wakes() []wake {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	p, now := &w.s.plan, time.Now()
	p.ask(now, p.routes.unheard(now))
	return p.routes.resume(now, len(p.window.entries), p.window.size)
}

func (w storeWork) woken(wake wake, n int, err error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.plan.reader.changed = w.s.plan.reader.changed || n > 0
	if w.s.plan.routes.woken(time.Now(), wake, n, err) {
		w.s.log.Info("upstream is back", "upstream", wake.name, "messages", wake.route.woken)
	}
}

// readDue reads due messages into the window.
func (w storeWork) readDue() {
	w.s.mu.Lock()
	p, now := &w.s.plan, time.Now()
	if !p.wantsRead(now) {
		w.s.mu.Unlock()
		return
	}
	after := p.beginRead(now)
	w.s.mu.Unlock()

	limit := p.window.size
	perLogin := max(1, limit/4)
	due, next, err := w.store.Due(w.s.hard, now, after, perLogin, limit)
	w.s.storeSaid(err, "due", reads)

	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if err != nil {
		p.reader.failed()
		return
	}
	p.load(time.Now(), due, next, perLogin, limit)
}

// extend extends the leases of all running attempts that need it before the next time.
func (w storeWork) extend() {
	w.s.mu.Lock()
	p, now := &w.s.plan, time.Now()
	until := now.Add(p.leaseFor)
	type leased struct {
		v     Version
		lease *Lease
	}
	var running []leased
	for _, e := range p.window.entries {
		if e.state == active && e.lease.ends(p.leaseFor*5/6) {
			running = append(running, leased{e.m.Version(), e.lease})
		}
	}
	w.s.mu.Unlock()
	var failed error
	for _, e := range running {
		err := w.store.Extend(w.s.hard, e.v, w.s.owner, until)
		w.s.storeSaid(err, "extend", writes)
		if errors.Is(err, ErrNotFound) { // it has ended, or another node has had the message
			e.lease.Lose()
			continue
		}
		if failed = err; failed != nil {
			break
		}
		e.lease.extend(until)
	}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	p.extending = false
	if failed != nil { // soon again: attempts break off before their leases run out
		p.extendAt = earlier(p.extendAt, time.Now().Add(maxStoreBackoff))
	}
	w.s.bell.ring()
}
