package submission

import (
	"maps"
	"sync"
	"time"

	"postern/relay/queue"
)

// A message that is to be handed off waits a moment where no slot is free, or where queued mail waits for one. Without
// that, clients that the queue answers fill it faster than an upstream empties it which keeps up with clients that wait
// for its verdict, and a message costs half as much again by way of the queue (decision 0060). Where it is in vain, the
// upstream is slower than its clients, and for a while the queue takes at once what finds no slot.
const (
	patienceLasts = 500 * time.Millisecond
	patienceRests = 10 * time.Second
	askAgain      = 2 * time.Millisecond
	patientMost   = 100  // messages at a time, for one key
	keysMost      = 1000 // beyond which those are forgotten where nothing waits
)

// patience knows what waits for a slot, by the key of queue.Wait.
type patience struct {
	mu   sync.Mutex // guards what follows
	keys map[string]*patient
}

type patient struct {
	waiting int
	rests   time.Time // until then nothing waits
}

// wait calls try until it reports true, and gives up when the time is over, when stop is closed, or when another has
// waited for the key in vain.
func (p *patience) wait(key string, most time.Duration, stop <-chan struct{}, try func(now time.Time) bool) {
	began := time.Now()
	if !p.enter(key, began) {
		return
	}
	defer p.leave(key)
	tick := time.NewTicker(askAgain)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-stop:
			return
		}
		now := time.Now()
		if try(now) || !p.lasts(key, now, now.Sub(began) >= min(most, patienceLasts)) {
			return
		}
	}
}

func (p *patience) enter(key string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.keys[key]
	if k == nil {
		k = new(patient)
		p.keep(key, k, now)
	}
	if now.Before(k.rests) || k.waiting >= patientMost {
		return false
	}
	k.waiting++
	return true
}

func (p *patience) keep(key string, k *patient, now time.Time) {
	if p.keys == nil {
		p.keys = make(map[string]*patient)
	}
	if len(p.keys) >= keysMost {
		maps.DeleteFunc(p.keys, func(_ string, k *patient) bool { return k.waiting == 0 && !now.Before(k.rests) })
	}
	p.keys[key] = k
}

func (p *patience) leave(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys[key].waiting--
}

// lasts reports whether to go on. vain says that one has waited long enough.
func (p *patience) lasts(key string, now time.Time, vain bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.keys[key]
	if vain && !now.Before(k.rests) {
		k.rests = now.Add(patienceRests)
	}
	return !now.Before(k.rests)
}

// slot takes one for a hand-off; nil: there is none soon.
func (u *submission) slot(most time.Duration) queue.Slot {
	s, m := u.service, u.message
	slot, wait := s.slotNow(u.now, m)
	if slot == nil && wait.Until.IsZero() {
		key := wait.Key
		s.patience.wait(key, most, s.Stopping, func(now time.Time) bool {
			if s.Queue.Waiters(key) > 0 {
				return false
			}
			slot, wait = s.slotNow(now, m)
			return slot != nil || !wait.Until.IsZero()
		})
	}
	return slot
}

// slotNow takes a slot that is free now, and that no queued message waits for: nobody overtakes the queue.
func (s *Service) slotNow(now time.Time, m *queue.Message) (queue.Slot, queue.Wait) {
	slot, wait := s.Outbound.ReserveNow(now, m)
	if slot != nil && s.Queue.Waiters(wait.Key) > 0 {
		slot.Release()
		slot = nil
	}
	return slot, wait
}
