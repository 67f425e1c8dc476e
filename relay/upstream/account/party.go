package account

import "time"

// party is a table as other nodes see it: one of those that share. Its methods run in exchanges, which follow each
// other.
type party[H Held] struct {
	*Table[H]
	id   string // among all holders
	born time.Time
}

// collect implements member.
func (p *party[H]) collect(now time.Time, c *clock, drafts []*draft) []*draft {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, a := range p.accounts {
		l := a.lease
		if !p.concerns(key, a, now) {
			l.known, l.version = nil, 0
			continue
		}
		if !l.soon && !p.empty && now.Sub(l.looked) < lookEvery*3/4 {
			continue
		}
		l.looked = now
		d := &draft{m: p, key: key, row: Row{Upstream: p.set.Name, Account: key, Version: l.version}}
		l.soon = !c.known(now) // in the next round
		if !l.soon {
			p.draft(a, now, c, d)
		}
		drafts = append(drafts, d)
	}
	return drafts
}

// concerns reports that what other nodes do with an account matters here.
func (p *party[H]) concerns(key string, a *account[H], now time.Time) bool {
	l := a.lease
	if l.soon || l.lack || l.dirty || !a.breaker.Ready() || a.busyLocked() || p.warm(key) {
		return true
	}
	if l.known == nil {
		return !p.closed && !l.used.IsZero() && now.Sub(l.used) < keepUnused
	}
	_, held := l.known.holder(l.id)
	return held
}

// warm reports that one slot shall be ready though nobody asks.
func (p *party[H]) warm(key string) bool { return !p.closed && key == p.o.key(p.set.Username) }

// draft settles an account. What is given back is used no more from here on; what is taken is not used before it is
// known to be there.
func (p *party[H]) draft(a *account[H], now time.Time, c *clock, d *draft) {
	l := a.lease
	if l.known == nil {
		l.known = new(ledger)
	}
	next := l.known.clone()
	d.may = next.settle(c.low(now), p.ask(d.key, a, now, c))
	d.settled, d.changes, d.published = true, l.changes, next.Hold.Epoch != l.known.Hold.Epoch
	next.changed = next.changed || l.unsure
	l.may = min(l.may, d.may)
	for i := range a.pace {
		m := &a.pace[i]
		m.lower(next.find(m.unit, m.span).Parts[l.id])
	}
	a.shed(now)
	if next.changed {
		d.next, d.row.State = next, next.encode()
		d.row.Forget = next.forget(c.low(now))
	}
}

// ask is what an account wants.
func (p *party[H]) ask(key string, a *account[H], now time.Time, c *clock) *ask {
	l := a.lease
	q := &ask{id: l.id, trust: !now.Before(c.doubtful), limit: a.flow.now, open: a.open(),
		tell: now.Sub(l.told) >= tellEvery}
	if p.closed {
		l.lack = false
	}
	q.need = a.wants(now)
	if now.Sub(l.peaked) >= keepUnused {
		l.peak, l.peaked = a.inUse, now
	}
	active := !p.closed && !l.used.IsZero() && now.Sub(l.used) < keepUnused
	q.like = max(q.need, min(q.open, a.flow.now))
	switch {
	case active && a.breaker.Ready():
		q.like = max(q.like, min(a.flow.now, max(q.need+1, l.peak)))
	case p.warm(key):
		q.like = max(q.like, 1)
	}
	q.probe = !a.breaker.Ready() && (a.breaker.Probing ||
		!p.closed && !l.probeWanted.IsZero() && now.Sub(l.probeWanted) < probeKept)
	if l.dirty {
		q.hold = a.hold(now, c)
	}
	for i := range a.pace {
		q.rates = append(q.rates, a.pace[i].ask(active, p.warm(key), now.Sub(l.lacked) >= wishKept, int64(a.flow.now)))
	}
	return q
}

// wants is how many slots there is use for.
func (a *account[H]) wants(now time.Time) int {
	l := a.lease
	_, closing := a.held.Connections()
	if a.inUse+closing < a.places(now) && now.Sub(l.lacked) >= wishKept {
		l.lack = false
	}
	if !l.lack {
		return min(a.inUse, a.flow.now)
	}
	return min(a.inUse+max(1, a.inUse), a.flow.now)
}

// hold is the breaker's state for others.
func (a *account[H]) hold(now time.Time, c *clock) *hold {
	b := &a.breaker
	h := &hold{Status: b.Status, Pressure: b.Pressure, Faults: b.Faults, Early: b.Early, Spent: a.lease.spent,
		Reply: b.Reply}
	if !b.Ready() {
		h.Wait = int64(b.Until.Sub(now))
		h.Until, h.Since = c.high(now)+h.Wait, c.low(now)-int64(now.Sub(b.Since))
	}
	return h
}

// learn implements member.
func (p *party[H]) learn(now time.Time, c *clock, d *draft, answer Answer) (news bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.accounts[d.key]
	if a == nil {
		return false, nil
	}
	l := a.lease
	first := !l.met
	if err := l.read(now, d, answer); err != nil {
		return false, err
	}
	if answer.Swapped {
		for i := range a.pace {
			a.pace[i].lent.recent = 0
		}
	}
	close(l.news)
	l.news = make(chan struct{})
	if l.known.Hold.Epoch != l.epoch {
		p.adopt(a, now, c, first)
		news = true
	}
	return p.apply(a, now, c, d, answer) || news, nil
}

// read notes what there is of the row.
func (l *lease) read(now time.Time, d *draft, answer Answer) error {
	switch {
	case answer.Swapped:
		l.known, l.version, l.unsure, l.told = d.next, answer.Version, false, now
		if d.changes == l.changes {
			l.dirty = false
		}
		if d.published {
			l.epoch = d.next.Hold.Epoch
		}
	case answer.Version != d.row.Version:
		known, err := decodeLedger(answer.State)
		if err != nil {
			return err
		}
		l.known, l.version, l.unsure, l.soon = known, answer.Version, false, true
	case l.known == nil:
		l.known = new(ledger)
	case d.next != nil: // the row was made a moment ago
		l.soon = true
	}
	l.met = true
	return nil
}

// apply uses what the row has for this table, and reports whether there is more than before.
func (p *party[H]) apply(a *account[H], now time.Time, c *clock, d *draft, answer Answer) (more bool) {
	l := a.lease
	me, held := l.known.holder(l.id)
	places, probed := a.places(now), l.probes
	l.others = 0
	for _, h := range l.known.Holders {
		if h.ID != l.id {
			l.others += h.Held
		}
	}
	current := answer.Swapped || answer.Version == d.row.Version && d.settled && d.next == nil
	if current {
		l.may = d.may
	} else { // it is settled anew at once
		l.may = min(l.may, me.Held)
	}
	switch {
	case !held:
		p.term(a, now, time.Time{})
	case me.Until != l.until: // else the end stands, whatever the clock says since
		p.term(a, now, now.Add(time.Duration(me.Until-c.high(now))-cutBefore))
	}
	l.until = me.Until
	l.probes = l.known.Probe == l.id
	for i := range a.pace {
		more = a.pace[i].learn(l, now, c, current) || more
	}
	a.shed(now)
	if l.barred && l.known.Probe == "" { // who had the right has not used it
		l.barred, more = false, true
	}
	if more = more || a.places(now) > places || l.probes && !probed; more {
		l.vain = time.Time{}
	}
	return more
}

// term notes until when what is leased may be used.
func (p *party[H]) term(a *account[H], now, ends time.Time) {
	l := a.lease
	l.ends = ends
	if !now.Before(ends) {
		l.end()
		return
	}
	if l.term == nil {
		l.term = &term{calls{mu: &p.mu}, l}
	}
	if l.alarm == nil {
		l.alarm = time.AfterFunc(ends.Sub(now), func() { p.Update(func() { p.over(a) }) })
	} else {
		l.alarm.Reset(ends.Sub(now))
	}
}

// over ends what is sent when the lease is over by our clock.
func (p *party[H]) over(a *account[H]) {
	now := time.Now()
	if now.Before(a.lease.ends) {
		return
	}
	if a.busyLocked() {
		p.o.Log.Warn("the lease of an upstream account has run out, its connections are closed", "identity", a.name)
	}
	a.lease.end()
	a.shed(now)
}

// adopt makes the breaker what another node has found. A wait that is older than this table is over for all nodes, up
// to one probe, as after every start: what was wrong may have been mended. That a quota is used up cannot be.
func (p *party[H]) adopt(a *account[H], now time.Time, c *clock, first bool) {
	l, h := a.lease, &a.lease.known.Hold
	l.epoch, l.dirty, l.spent = h.Epoch, false, h.Spent
	was := a.breaker
	a.breaker = Breaker{epoch: was.epoch + 1}
	if !h.ready() {
		until := now.Add(min(time.Duration(h.Wait), c.local(h.Until, now).Sub(now)))
		a.breaker = Breaker{Status: h.Status, Until: until, Pressure: h.Pressure, Faults: h.Faults, Reply: h.Reply,
			Early: h.Early, Since: c.local(h.Since, now), epoch: was.epoch + 1}
	}
	b := &a.breaker
	if first && !b.Ready() && !h.Spent && b.Since.Before(p.born) && now.Before(b.Until) {
		b.Until = now
		a.moved(false) // mail that there is to try it with may be another node's
	}
	a.spentLocked(h.Spent)
	p.armLocked(a, now)
	if !was.Ready() || !b.Ready() {
		b.log(p.o.Log.With("found_by", "another node"), a.name)
	}
}

// lost implements member.
func (p *party[H]) lost(d *draft) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.accounts[d.key]; a != nil {
		a.lease.unsure = a.lease.unsure || d.next != nil
	}
}

// gone implements member.
func (p *party[H]) gone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed || !p.empty {
		return false
	}
	for _, a := range p.accounts {
		if a.lease.known == nil {
			continue
		}
		if _, held := a.lease.known.holder(a.lease.id); held {
			return false
		}
	}
	return true
}
