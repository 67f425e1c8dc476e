package submission

import (
	"maps"
	"slices"
	"sync"
	"time"

	"postern/relay/queue"
)

// A message that is to be handed off waits a moment where no slot is free, or where queued mail waits for one. Without
// that, clients that the queue answers fill it faster than an upstream empties it which keeps up with clients that wait
// for its verdict, and a message costs half as much again by way of the queue (decision 0060). Where it is in vain, the
// upstream is slower than its clients, and for a while the queue takes at once what finds no slot.
const (
	patienceLasts = time.Second
	patienceRests = 10 * time.Second
	askAgain      = time.Millisecond
	patientMost   = 100 // messages at a time, for one key
)

// patience is lines of messages that wait for a slot, by the key of queue.Wait.
type patience struct {
	mu    sync.Mutex // guards what follows
	lines map[string]*line
}

type line struct {
	patients []*patient // in turn
	rests    time.Time  // until then nothing waits
	vain     chan struct{}
}

// patient is a message that waits.
type patient struct {
	turn chan struct{} // closed when it is the first
	vain chan struct{} // closed when one has waited in vain
}

// wait calls try when its turn comes, until that reports true. It gives up when the time is over, when stop is closed,
// or when another of the key has waited in vain.
func (p *patience) wait(key string, most time.Duration, stop <-chan struct{}, try func(now time.Time) bool) {
	me := p.enter(key, time.Now())
	if me == nil {
		return
	}
	defer p.leave(key, me)
	end := time.NewTimer(min(most, patienceLasts))
	defer end.Stop()
	var tick <-chan time.Time // of who is the first
	for turn := me.turn; ; {
		select {
		case <-turn:
			ticker := time.NewTicker(askAgain)
			defer ticker.Stop()
			turn, tick = nil, ticker.C
		case <-tick:
		case <-me.vain:
			return
		case <-stop:
			return
		case <-end.C:
			if most >= patienceLasts {
				p.rest(key, time.Now())
			}
			return
		}
		if try(time.Now()) {
			return
		}
	}
}

func (p *patience) enter(key string, now time.Time) *patient {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lines[key]
	if l == nil {
		maps.DeleteFunc(p.lines, func(_ string, l *line) bool { return len(l.patients) == 0 && !now.Before(l.rests) })
		if p.lines == nil {
			p.lines = make(map[string]*line)
		}
		l = &line{vain: make(chan struct{})}
		p.lines[key] = l
	}
	if now.Before(l.rests) || len(l.patients) >= patientMost {
		return nil
	}
	me := &patient{make(chan struct{}), l.vain}
	if l.patients = append(l.patients, me); len(l.patients) == 1 {
		close(me.turn)
	}
	return me
}

func (p *patience) leave(key string, me *patient) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lines[key]
	at := slices.Index(l.patients, me)
	if l.patients = slices.Delete(l.patients, at, at+1); at == 0 && len(l.patients) > 0 {
		close(l.patients[0].turn)
	}
}

// rest ends all waiting for a key.
func (p *patience) rest(key string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.lines[key]; !now.Before(l.rests) {
		l.rests = now.Add(patienceRests)
		close(l.vain)
		l.vain = make(chan struct{})
	}
}

// waits reports whether anything waits for the key.
func (p *patience) waits(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lines[key]
	return l != nil && len(l.patients) > 0
}

// slot takes one for a hand-off; nil: there is none soon. Nobody overtakes what waits, here or in the queue.
func (s *Service) slot(now time.Time, m *queue.Message, most time.Duration) queue.Slot {
	slot, wait := s.slotNow(now, m, "")
	if slot == nil && wait.Until.IsZero() {
		key := wait.Key
		s.patience.wait(key, most, s.Stopping, func(now time.Time) bool {
			if s.waiters(key) > 0 {
				return false
			}
			slot, wait = s.slotNow(now, m, key)
			return slot != nil || !wait.Until.IsZero() || wait.Key != key
		})
	}
	return slot
}

// slotNow takes a slot that is free now and that nothing waits for, but for the caller, whose turn it is at the key.
func (s *Service) slotNow(now time.Time, m *queue.Message, turn string) (queue.Slot, queue.Wait) {
	slot, wait := s.Outbound.ReserveNow(now, m)
	if slot != nil && (s.waiters(wait.Key) > 0 || wait.Key != turn && s.patience.waits(wait.Key)) {
		slot.Release()
		slot = nil
	}
	return slot, wait
}
