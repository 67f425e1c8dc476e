package graph

import (
	"slices"
	"strings"
	"time"

	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/internal/gate"
)

// maxMailboxes bounds the table of mailboxes; those that have neither requests nor a history make room.
const maxMailboxes = 10_000

// mailbox is one identity: its places and its gate. Guarded by Upstream.mu.
type mailbox struct {
	name  string
	inUse int
	gate  gate.Gate
	large gate.Gate // of large mail: the right to make drafts, and the way to where files go
	pacer upstream.Pacer
	alarm *time.Timer // fires when the gate's waiting is over
	paced *time.Timer // fires when the rates have room again

	largeNote  string    // why large waits, for the trace
	blindUntil time.Time // Sent Items may not be read, see mayLook
	quotaUntil time.Time // what it may send is used up until then; zero or past: it is not
}

func (m *mailbox) stopAlarmLocked() {
	if m.alarm != nil {
		m.alarm.Stop()
		m.alarm = nil
	}
}

func (m *mailbox) stopPacedLocked() {
	if m.paced != nil {
		m.paced.Stop()
		m.paced = nil
	}
}

// Slot is a place reserved for a mailbox. It is used up by one Send or given back by Release.
type Slot struct {
	u         *Upstream
	box       *mailbox
	admission gate.Admission
	whole     []mail.Address // see Envelope
	done      bool
}

// Reserve takes a place for one message now, without waiting. identity is the mailbox to send from; "" is the configured one.
// A nil Slot means that all places are taken (until is zero; OnChange tells when one gets free) or that the mailbox waits
// until then, because of a fault or of rates that have no room for longer than a minute.
func (u *Upstream) Reserve(now time.Time, identity string) (slot *Slot, until time.Time) {
	if identity == "" {
		identity = u.o.Mailbox
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil, time.Time{}
	}
	m := u.mailboxLocked(identity)
	if m == nil {
		return nil, time.Time{}
	}
	until, busy := m.gate.Wait(now)
	if busy || !until.IsZero() || m.inUse >= u.o.MaxConnections {
		return nil, until
	}
	if until, busy = m.pacer.Reserve(now); busy || !until.IsZero() {
		return nil, u.shortLocked(m, now, until)
	}
	u.places++
	m.inUse++
	return &Slot{u: u, box: m, admission: m.gate.Admit()}, time.Time{}
}

// shortWait is up to where a wait for the rates is a busy that OnChange ends.
const shortWait = time.Minute

func (u *Upstream) shortLocked(m *mailbox, now, until time.Time) time.Time {
	if until.IsZero() || until.Sub(now) > shortWait {
		return until
	}
	if m.paced == nil {
		m.paced = time.AfterFunc(until.Sub(now), func() {
			u.mu.Lock()
			m.paced = nil
			u.mu.Unlock()
			u.changed()
		})
	}
	return time.Time{}
}

// mailboxLocked finds a mailbox. Exchange does not tell Office@example.com from office@example.com, nor may its limits here.
func (u *Upstream) mailboxLocked(name string) *mailbox {
	key := strings.ToLower(name)
	if m := u.mailboxes[key]; m != nil {
		return m
	}
	if len(u.mailboxes) >= maxMailboxes && !u.evictLocked() {
		return nil
	}
	m := &mailbox{name: name, pacer: upstream.NewPacer(u.o.Rates)}
	u.mailboxes[key] = m
	return m
}

// evictLocked forgets one mailbox that would be no different if it were new.
func (u *Upstream) evictLocked() bool {
	looked, now := 0, time.Now()
	for key, m := range u.mailboxes {
		if m.inUse == 0 && m.gate.Ready() && m.large.Ready() && m.gate.Pressure == 0 && m.gate.Faults == 0 && m.pacer.Blank(now) {
			m.stopPacedLocked()
			delete(u.mailboxes, key)
			return true
		}
		if looked++; looked == 64 {
			return false
		}
	}
	return false
}

// Envelope tells the recipients of the message as it was submitted, those included that this attempt is not for because they
// have their mail already or go another way. It makes no difference to whom this Slot sends. It tells a header that names
// strangers, which is refused for good, from one whose recipients we have parted ourselves, which is kept for another
// upstream. Without it every header recipient outside the attempt is a stranger.
func (s *Slot) Envelope(all []mail.Address) { s.whole = all }

// Release gives back a place that was not used. After Send it does nothing.
func (s *Slot) Release() {
	if !s.done {
		s.finish(news{}, sent{})
	}
}

// finish gives the place back and tells the gate.
func (s *Slot) finish(n news, counted sent) {
	s.done = true
	u, m, now := s.u, s.box, time.Now()
	u.mu.Lock()
	m.inUse--
	u.places--
	if u.closed && u.places == 0 {
		close(u.drained)
	}
	m.pacer.Settle(now, counted.messages, counted.recipients)
	moved := m.gate.Settle(now, s.admission, n.News, u.o.Jitter())
	if moved {
		u.armAlarmLocked(m, now)
	}
	switch {
	case moved && n.quota && !m.gate.Ready():
		m.quotaUntil = m.gate.Until
		u.saveSoonLocked(0)
	case moved && m.gate.Ready() && !m.quotaUntil.IsZero():
		m.quotaUntil = time.Time{}
		u.saveSoonLocked(0)
	case counted.messages > 0:
		u.saveSoonLocked(saveEvery)
	}
	state := m.gate
	u.mu.Unlock()

	if moved {
		u.logGate(m.name, state)
	}
	u.changed()
}

func (u *Upstream) logGate(identity string, g gate.Gate) {
	if g.Ready() {
		u.log.Info("upstream works again", "identity", identity)
		return
	}
	u.log.Warn("upstream "+string(g.Status), "identity", identity, "until", g.Until, "reply", g.Reply.String())
}

// armAlarmLocked calls OnChange when the mailbox has waited long enough.
func (u *Upstream) armAlarmLocked(m *mailbox, now time.Time) {
	m.stopAlarmLocked()
	if u.closed || m.gate.Ready() {
		return
	}
	m.alarm = time.AfterFunc(m.gate.Until.Sub(now), u.changed)
}

// TryAgain ends the pause of mailboxes that were not let in: somebody may have mended the login. Each is probed once.
func (u *Upstream) TryAgain() {
	now, moved := time.Now(), false
	u.mu.Lock()
	for _, m := range u.mailboxes {
		if g := &m.gate; g.Status == upstream.Paused && g.Early && now.Before(g.Until) {
			g.Until, moved = now, true
			m.stopAlarmLocked()
		}
		if g := &m.large; !g.Ready() && now.Before(g.Until) {
			g.Until = now
		}
	}
	u.mu.Unlock()
	if moved {
		u.changed()
	}
}

// Inherit takes over what another Upstream knows of rates and of a quota that is used up, after the configuration has changed:
// Exchange goes on counting.
func (u *Upstream) Inherit(old *Upstream) {
	now := time.Now()
	old.mu.Lock()
	defer old.mu.Unlock()
	old.inherited = true // and saves no more
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, from := range old.mailboxes {
		m := u.mailboxLocked(from.name)
		if m == nil {
			continue
		}
		m.pacer.Inherit(now, &from.pacer)
		if from.quotaUntil.After(now) && !from.gate.Ready() && m.gate.Ready() {
			m.gate.Hold(now, upstream.Paused, gate.News{Reply: from.gate.Reply}, from.quotaUntil.Sub(now))
			m.quotaUntil = m.gate.Until
			u.armAlarmLocked(m, now)
		}
	}
	u.saveSoonLocked(saveEvery)
}

// States lists the mailboxes that have been used, in order of name; before the first use, the configured one.
func (u *Upstream) States() []State {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.mailboxes) == 0 && !u.closed {
		u.mailboxLocked(u.o.Mailbox)
	}
	states, now := make([]State, 0, len(u.mailboxes)), time.Now()
	for _, m := range u.mailboxes {
		s := State{Upstream: u.o.Name, Identity: m.name, Status: upstream.Ready, Limit: u.o.MaxConnections, InUse: m.inUse, Rates: m.pacer.States(now)}
		if g := &m.gate; !g.Ready() {
			s.Status, s.Probing, s.Until, s.Since, s.Reply = g.Status, g.Probing, g.Until, g.Since, g.Reply
			s.Failures = g.Pressure + g.Faults
		}
		states = append(states, s)
	}
	slices.SortFunc(states, func(a, b State) int { return strings.Compare(a.Identity, b.Identity) })
	return states
}
