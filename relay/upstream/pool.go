package upstream

import (
	"slices"
	"time"

	"postern/mail"
	"postern/relay/upstream/internal/gate"
)

// maxIdentities bounds the table of identities; those that have neither connections nor a history make room.
const maxIdentities = 10_000

// identity is one account at the upstream: its places, its idle connections and its gate. Guarded by Upstream.mu.
type identity struct {
	name    string
	flow    flow // how many places there are
	pace    pace
	inUse   int     // reserved, with or without a connection
	taken   uint64  // how often a place was reserved
	closing int     // connections that are saying QUIT
	idle    []*conn // the newest last
	gate    gate.Gate
	alarm   *time.Timer // fires when the gate's waiting is over
	paced   *time.Timer // fires when the rates have room again

	quotaUntil time.Time // a quota is used up until then, zero or past: none
	senders    map[string]refusedSender
}

func (id *identity) placesLocked() int { return id.inUse + id.closing + len(id.idle) }

func (id *identity) popIdleLocked() *conn {
	last := len(id.idle) - 1
	c := id.idle[last]
	id.idle[last] = nil
	id.idle = id.idle[:last]
	return c
}

func (id *identity) stopAlarmLocked() {
	if id.alarm != nil {
		id.alarm.Stop()
		id.alarm = nil
	}
}

func (id *identity) stopPacedLocked() {
	if id.paced != nil {
		id.paced.Stop()
		id.paced = nil
	}
}

// Slot is a place reserved at an upstream. It is used by at most one Send and given back by Release.
type Slot struct {
	u         *Upstream
	id        *identity
	conn      *conn // nil: to be dialled
	admission gate.Admission
	share     share // of the rates; guarded by Upstream.mu
	lonely    bool  // there was no other place when this one was taken
	taken     uint64
	settled   bool // the gate has been told what came of it
	done      bool // given back
}

// Reserve takes a place for one message now, without waiting. identity "" is the configured username. A nil Slot means that
// all places are taken (until is zero; OnChange tells when one gets free) or that the identity waits until then, because of a
// fault, a quota, or rates that have no room for longer than a minute.
//
// Nobody queues here, so nobody is overtaken here: who asks first after a place got free has it.
func (u *Upstream) Reserve(now time.Time, identity string) (slot *Slot, until time.Time) {
	if identity == "" {
		identity = u.cfg.Username
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil, time.Time{}
	}
	id := u.identityLocked(identity)
	if id == nil {
		return nil, time.Time{}
	}
	until, busy := id.gate.Wait(now)
	if busy || !until.IsZero() {
		return nil, until
	}
	if id.inUse+id.closing >= id.flow.now {
		return nil, time.Time{}
	}
	if until, busy = id.pace.wait(now, share{}, least); busy || !until.IsZero() {
		return nil, u.shortLocked(id, now, until)
	}
	s := &Slot{u: u, id: id}
	if len(id.idle) > 0 {
		s.conn = id.popIdleLocked()
	} else {
		u.places++
	}
	id.pace.take(&s.share, least)
	id.inUse++
	id.taken++
	s.lonely, s.taken = id.placesLocked() == 1, id.taken
	s.admission = id.gate.Admit()
	return s, time.Time{}
}

// shortLocked turns a short wait for the rates into a busy that OnChange ends.
func (u *Upstream) shortLocked(id *identity, now, until time.Time) time.Time {
	if until.IsZero() || until.Sub(now) > shortWait {
		return until
	}
	if id.paced == nil {
		id.paced = time.AfterFunc(until.Sub(now), func() {
			u.mu.Lock()
			id.paced = nil
			u.mu.Unlock()
			u.changed()
		})
	}
	return time.Time{}
}

func (u *Upstream) identityLocked(name string) *identity {
	if id := u.identities[name]; id != nil {
		return id
	}
	if len(u.identities) >= maxIdentities && !u.evictLocked() {
		return nil
	}
	id := &identity{name: name, flow: newFlow(u.cfg.MaxConnections), pace: newPace(u.cfg.Rates, u.quotas)}
	u.identities[name] = id
	return id
}

// evictLocked forgets one identity that would be no different if it were new.
func (u *Upstream) evictLocked() bool {
	looked, now := 0, time.Now()
	for name, id := range u.identities {
		if id.placesLocked() == 0 && id.gate.Ready() && id.gate.Pressure == 0 && id.gate.Faults == 0 && len(id.senders) == 0 && id.pace.blank(now) {
			id.stopPacedLocked()
			delete(u.identities, name)
			return true
		}
		if looked++; looked == 64 {
			return false
		}
	}
	return false
}

// Release gives the place back, used or not. Whoever has used it may keep it until what the upstream said is on record. A
// second call does nothing.
func (s *Slot) Release() {
	if s.done {
		return
	}
	s.settle(news{})
	s.done = true
	u, id, now := s.u, s.id, time.Now()
	u.mu.Lock()
	id.inUse--
	c := s.conn
	s.conn = nil
	switch {
	case c == nil:
		u.freeLocked()
	case c.broken:
		c.close()
		delete(u.conns, c)
		u.freeLocked()
	case u.closed || c.spent(now) || id.placesLocked() >= id.flow.now:
		u.retireLocked(id, c)
	default:
		c.idleSince = now
		id.idle = append(id.idle, c)
		u.armReaperLocked(u.cfg.IdleClose)
	}
	u.mu.Unlock()
	u.changed()
}

// settle tells the gate what came of the place. Only the first call counts.
func (s *Slot) settle(n news) {
	if s.settled {
		return
	}
	s.settled = true
	u, id, now := s.u, s.id, time.Now()
	u.mu.Lock()
	n = s.adaptLocked(now, n)
	id.pace.settle(now, &s.share, share{})
	moved := id.gate.Settle(now, s.admission, n.News, u.cfg.Jitter())
	if moved {
		u.armAlarmLocked(id, now)
	}
	if moved && n.quota > 0 {
		id.quotaUntil = id.gate.Until
		u.saveSoonLocked(0)
	}
	state := id.gate
	u.mu.Unlock()

	if moved {
		u.logGate(id.name, state)
		u.changed()
	}
}

// aloneLocked reports that there was no other place since this one was taken: what the upstream says of too many connections
// is not about ours.
func (s *Slot) aloneLocked() bool { return s.lonely && s.taken == s.id.taken }

// adaptLocked lets the number of places follow what the upstream answers. Only a complaint that no place is left to take away
// for, or that was met alone, makes the identity wait.
func (s *Slot) adaptLocked(now time.Time, n news) news {
	u, id := s.u, s.id
	switch {
	case n.Verdict == gate.Works:
		id.flow.worked(id.inUse)
	case n.Verdict == gate.Pressure && n.slow && id.gate.Ready():
		for len(id.idle) > 0 { // they count over there, and nobody uses them
			u.retireLocked(id, id.popIdleLocked())
		}
		if floor := id.flow.slowed(); !floor && !s.aloneLocked() {
			u.log.Info("upstream wants fewer connections at once", "identity", id.name, "places", id.flow.now, "reply", n.Reply.String())
			return news{News: gate.News{Verdict: gate.Reached, Reply: n.Reply, Early: n.Early}}
		}
	}
	if n.quota > 0 {
		n.AtLeast = max(n.AtLeast, id.pace.quotaOpens(now, n.quota))
	}
	return n
}

func (u *Upstream) logGate(identity string, g gate.Gate) {
	if g.Ready() {
		u.log.Info("upstream works again", "identity", identity)
		return
	}
	u.log.Warn("upstream "+string(g.Status), "identity", identity, "until", g.Until, "reply", g.Reply.String())
}

func (u *Upstream) freeLocked() {
	u.places--
	if u.closed && u.places == 0 {
		close(u.drained)
	}
}

// retireLocked closes a connection with QUIT. Its place stays taken until the upstream has let go of it, because providers
// count connections on their side.
func (u *Upstream) retireLocked(id *identity, c *conn) {
	id.closing++
	go func() { // waited for through drained: the place is freed at its end
		c.quit()
		u.mu.Lock()
		id.closing--
		delete(u.conns, c)
		u.freeLocked()
		u.mu.Unlock()
		u.changed()
	}()
}

func (u *Upstream) armReaperLocked(d time.Duration) {
	if u.reaper == nil {
		u.reaper = time.AfterFunc(d, u.reap)
	}
}

// reap closes what has been idle for too long or is too old, and sets the alarm for the next.
func (u *Upstream) reap() {
	now := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.reaper = nil
	if u.closed {
		return
	}
	next := time.Duration(-1)
	for _, id := range u.identities {
		var due []*conn
		id.idle = slices.DeleteFunc(id.idle, func(c *conn) bool {
			left := min(c.idleSince.Add(u.cfg.IdleClose).Sub(now), c.born.Add(u.cfg.MaxAge).Sub(now))
			if left <= 0 {
				due = append(due, c)
				return true
			}
			if next < 0 || left < next {
				next = left
			}
			return false
		})
		for _, c := range due {
			u.retireLocked(id, c)
		}
	}
	if next > 0 {
		u.armReaperLocked(next)
	}
}

// armAlarmLocked calls OnChange when the identity has waited long enough.
func (u *Upstream) armAlarmLocked(id *identity, now time.Time) {
	id.stopAlarmLocked()
	if u.closed || id.gate.Ready() {
		return
	}
	id.alarm = time.AfterFunc(id.gate.Until.Sub(now), u.changed)
}

// State is one identity at a glance.
type State struct {
	Upstream string     `json:"upstream"`
	Identity string     `json:"identity"`
	Status   Status     `json:"status"`
	Probing  bool       `json:"probing,omitempty"`
	Until    time.Time  `json:"until,omitzero"` // end of the waiting
	Since    time.Time  `json:"since,omitzero"` // when the trouble began
	Failures int        `json:"failures,omitempty"`
	Reply    mail.Reply `json:"reply,omitzero"` // why it waits

	Limit   int `json:"limit"` // connections at most, now
	Most    int `json:"most"`  // as configured
	InUse   int `json:"in_use"`
	Idle    int `json:"idle"`
	Closing int `json:"closing"`

	Rates []RateState `json:"rates,omitempty"`
}

// RateState is how much of a rate is used.
type RateState struct {
	Rate
	Used int64 `json:"used"` // within the last Per, what is under way included
}

// States lists the identities that have been used, in order of name; before the first use, the configured one.
func (u *Upstream) States() []State {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.identities) == 0 && !u.closed {
		u.identityLocked(u.cfg.Username)
	}
	now, states := time.Now(), make([]State, 0, len(u.identities))
	for _, id := range u.identities {
		s := State{
			Upstream: u.cfg.Name, Identity: id.name, Status: Ready,
			Limit: id.flow.now, Most: id.flow.most, InUse: id.inUse, Idle: len(id.idle), Closing: id.closing,
			Rates: id.pace.states(now),
		}
		if g := &id.gate; !g.Ready() {
			s.Status, s.Probing, s.Until, s.Since, s.Reply = g.Status, g.Probing, g.Until, g.Since, g.Reply
			s.Failures = g.Pressure + g.Faults
		}
		states = append(states, s)
	}
	slices.SortFunc(states, func(a, b State) int {
		if a.Identity < b.Identity {
			return -1
		}
		return 1
	})
	return states
}
