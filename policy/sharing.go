package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

const (
	// sharedTimeout bounds a question to the shared counter.
	sharedTimeout = 5 * time.Second
	// maxDemands bounds the demands in one question, and so the locks that it takes.
	maxDemands = 64
	// maxOwed bounds what waits to be settled. More is refused.
	maxOwed = 50_000
	// leastNodes is how many nodes there are at least for the local share: a node decides about a tenth at most.
	leastNodes = 10
	// dropFullAt is at how many saves full limits are dropped: once a minute.
	dropFullAt = int(time.Minute / saveEvery)
)

// SharedOptions are the options of a Limiter with a shared counter.
type SharedOptions struct {
	// Local lets messages within a local share of each limit pass while the counter does not answer.
	Local bool
	// Nodes is how many nodes were alive when last seen; nil: not more than ten.
	Nodes func() int
}

// NewSharedLimiter returns a Limiter that takes from a counter that nodes share. Run tells it what was decided while it
// did not answer, Close for the last time.
func NewSharedLimiter(counter SharedLimits, opts SharedOptions, now time.Time, log *slog.Logger) *Limiter {
	l := emptyLimiter(nil, now, log, maxBuckets)
	l.shared = &sharing{counter: counter, own: l, SharedOptions: opts, log: l.log, owed: make(map[key]int64)}
	return l
}

// sharing asks the shared counter. One question at a time is under way; what comes meanwhile waits and is asked
// together, so that a login's messages wait for one commit, not for one after the other.
type sharing struct {
	counter SharedLimits
	own     *Limiter // counts the local share in memory
	SharedOptions
	log *slog.Logger

	mu      sync.Mutex // guards all below
	waiting []*waiter
	asking  bool // somebody asks, and will wake the first who waits
	away    bool // the counter did not answer
	owed    map[key]int64
}

type waiter struct {
	demand Demand
	turn   chan struct{} // it has to ask
	done   chan struct{} // closed when answered
	left   bool          // nobody waits for the answer; guarded by sharing.mu
	answer Answer
	err    error
}

func (s *sharing) take(ctx context.Context, now time.Time, login string, limits []Limit, u Usage) (
	Verdict, error) {
	v := Verdict{OK: true, Refund: func() {}}
	d := Demand{Login: login}
	need := amounts{Messages: int64(u.Messages), Recipients: int64(len(u.Recipients)), Bytes: u.Bytes}
	for i, limit := range limits {
		n := need[limit.Unit]
		switch {
		case n > limit.Count:
			return Verdict{Limit: limit, Need: n, Never: true, Refund: func() {}}, nil
		case slices.Contains(limits[:i], limit):
			continue
		case limit.Unit == NewRecipients && len(u.Recipients) > 0 && d.Recipients == nil:
			d.Recipients = recipientKeys(u.Recipients)
		case limit.Unit != NewRecipients && n == 0, len(u.Recipients) == 0 && limit.Unit == NewRecipients:
			continue
		}
		d.Charges = append(d.Charges, Charge{limit, n})
	}
	if len(d.Charges) == 0 {
		return v, nil
	}
	if s.isAway() {
		return s.takeLocal(now, d, nil)
	}
	a, err := s.ask(ctx, d)
	switch {
	case err == nil:
		return s.judge(now, d, a), nil
	case s.Local && ctx.Err() == nil:
		return s.takeLocal(now, d, err)
	}
	return Verdict{Refund: v.Refund}, fmt.Errorf("count a message of %q against its limits: %w", login, err)
}

// judge makes a verdict of an answer.
func (s *sharing) judge(now time.Time, d Demand, a Answer) Verdict {
	if s.Local {
		s.mirror(now, d, a)
	}
	if !a.OK {
		c := d.Charges[a.Exceeded]
		v := Verdict{Limit: c.Limit, Need: c.N, Never: a.Never, Refund: func() {}}
		if c.Limit.Unit == NewRecipients {
			v.Need = a.New
		}
		if !a.Never {
			v.Retry = now.Add(a.Wait)
		}
		return v
	}
	return Verdict{OK: true, Refund: sync.OnceFunc(func() { s.refund(d) })}
}

// mirror notes what the shared counter said, for the time when it does not answer.
func (s *sharing) mirror(now time.Time, d Demand, a Answer) {
	if a.OK {
		s.own.known.met(now, d.Login, d.Recipients)
	}
	l := s.own
	l.mu.Lock()
	defer l.mu.Unlock()
	now = l.advanceLocked(now)
	for i, c := range d.Charges {
		k := key{d.Login, c.Limit}
		if b := l.buckets[k]; b != nil {
			l.removeLocked(b)
		}
		l.addLocked(k, now).set(now, float64(c.Limit.Count)-a.Full[i].Seconds()*c.Limit.perSecond())
	}
	l.evictLocked(now)
}

// takeLocal counts within the local share, and within what is left as far as this node knows. What exceeds that may
// still be within the limit, so that it is no refusal but an error: our own trouble.
func (s *sharing) takeLocal(now time.Time, d Demand, cause error) (Verdict, error) {
	v := Verdict{Refund: func() {}}
	if cause == nil {
		cause = errAway
	}
	fresh := s.own.known.notRecent(now, d.Login, d.Recipients)
	need := amounts{NewRecipients: int64(len(fresh))}
	limits := make([]Limit, 0, 2*len(d.Charges))
	for i, c := range d.Charges {
		if c.Limit.Unit == NewRecipients {
			d.Charges[i].N = need[NewRecipients]
		}
		need[c.Limit.Unit] = d.Charges[i].N
		share := c.Limit
		share.Count /= int64(s.nodes())
		limits = append(limits, c.Limit, share)
	}
	d.Recipients, d.Settle = fresh, true
	if !s.owe(d, 1) {
		return v, fmt.Errorf("count a message of %q: too much waits to be counted: %w", d.Login, cause)
	}
	if got := s.own.take(now, d.Login, limits, need); !got.OK {
		s.owe(d, -1)
		return v, fmt.Errorf("count a message of %q against its limits: its local share is used up: %w", d.Login, cause)
	}
	s.own.known.remember(now, d.Login, fresh)
	need[NewRecipients] = 0
	v.OK, v.Local = true, true
	v.Refund = sync.OnceFunc(func() {
		s.own.refund(d.Login, limits, need)
		s.refund(d)
	})
	return v, nil
}

var errAway = errors.New("the store did not answer")

// settle tells the shared counter what was decided without it. A refund that may have been counted is not told again, a
// charge is: an error must never let more pass.
func (s *sharing) settle(ctx context.Context, now time.Time) error {
	for range 2 { // the second time for what was decided during the first
		demands := settlement(s.takeOwed(), s.own.known.takePending())
		if len(demands) == 0 && !s.isAway() {
			return nil
		}
		var err error
		if len(demands) == 0 {
			_, err = s.call(ctx, nil)
		}
		for part := range slices.Chunk(demands, maxDemands) {
			if err != nil {
				s.owePart(now, part, false)
			} else if _, err = s.call(ctx, part); err != nil {
				s.owePart(now, part, errors.Is(err, ErrUnsure))
			}
		}
		if err != nil {
			return fmt.Errorf("tell the store what was counted without it: %w", err)
		}
		s.setAway(nil)
	}
	return nil
}

// owePart keeps what could not be settled for later.
func (s *sharing) owePart(now time.Time, part []Demand, unsure bool) {
	for _, d := range part {
		if unsure {
			d.Charges = slices.DeleteFunc(d.Charges, func(c Charge) bool { return c.N < 0 })
		}
		s.owe(d, 1)
		s.own.known.remember(now, d.Login, d.Recipients)
	}
}

// settlement makes demands of what is owed.
func settlement(owed map[key]int64, met map[string][]string) (demands []Demand) {
	byLogin := make(map[string]*Demand)
	of := func(login string) *Demand {
		d := byLogin[login]
		if d == nil {
			d = &Demand{Login: login, Settle: true}
			byLogin[login] = d
		}
		return d
	}
	for k, n := range owed {
		d := of(k.login)
		d.Charges = append(d.Charges, Charge{k.limit, n})
	}
	for login, addrs := range met {
		of(login).Recipients = addrs
	}
	for _, d := range byLogin {
		demands = append(demands, *d)
	}
	return demands
}

// nodes is how many nodes share a limit.
func (s *sharing) nodes() int {
	if s.Nodes == nil {
		return leastNodes
	}
	return max(s.Nodes(), leastNodes)
}

func (s *sharing) isAway() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.away
}

// setAway notes whether the counter answered. Only with a local share it makes a difference.
func (s *sharing) setAway(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if was := s.away; was != (err != nil) && s.Local {
		s.away = err != nil
		if s.away {
			s.log.Warn("the store does not answer: limits let only a local share pass", "err", err)
		} else {
			s.log.Info("the store answers again: limits are counted there")
		}
	}
}

// refund gives back what a demand took, except for new recipients.
func (s *sharing) refund(d Demand) {
	back := Demand{Login: d.Login, Settle: true}
	for _, c := range d.Charges {
		if c.Limit.Unit != NewRecipients {
			back.Charges = append(back.Charges, Charge{c.Limit, -c.N})
		}
	}
	if len(back.Charges) == 0 {
		return
	}
	if s.isAway() {
		s.owe(back, 1)
		return
	}
	if _, err := s.ask(context.Background(), back); err != nil && !errors.Is(err, ErrUnsure) {
		s.owe(back, 1)
	}
}

// owe notes what to tell the counter, times 1 or -1. ok: there was room for it.
func (s *sharing) owe(d Demand, times int64) (ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.owed)+len(d.Charges) > maxOwed && times > 0 {
		return false
	}
	for _, c := range d.Charges {
		k := key{d.Login, c.Limit}
		if s.owed[k] += times * c.N; s.owed[k] == 0 {
			delete(s.owed, k)
		}
	}
	return true
}

func (s *sharing) takeOwed() map[key]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	owed := s.owed
	s.owed = make(map[key]int64)
	return owed
}

// ask has one demand answered, together with those of others.
func (s *sharing) ask(ctx context.Context, d Demand) (Answer, error) {
	w := &waiter{demand: d, turn: make(chan struct{}, 1), done: make(chan struct{})}
	s.mu.Lock()
	s.waiting = append(s.waiting, w)
	if !s.asking {
		s.asking = true
		w.turn <- struct{}{}
	}
	s.mu.Unlock()
	select {
	case <-w.turn:
		s.round(ctx)
	case <-w.done:
	case <-ctx.Done():
		if s.leave(w) {
			return Answer{}, ctx.Err()
		}
	}
	return w.answer, w.err
}

// round asks for those who wait, the caller in front of them.
func (s *sharing) round(ctx context.Context) {
	s.mu.Lock()
	n := min(len(s.waiting), maxDemands)
	batch := slices.Clone(s.waiting[:n])
	s.waiting = slices.Delete(s.waiting, 0, n)
	s.mu.Unlock()
	demands := make([]Demand, n)
	for i, w := range batch {
		demands[i] = w.demand
	}
	answers, err := []Answer(nil), errFault
	defer func() { s.finish(batch, answers, err) }() // also when it panics
	answers, err = s.call(context.WithoutCancel(ctx), demands)
}

var errFault = errors.New("a fault of our own while the limits were counted")

// finish gives the answers out, and the turn to the next.
func (s *sharing) finish(batch []*waiter, answers []Answer, err error) {
	s.mu.Lock()
	for i, w := range batch {
		if w.err = err; err == nil {
			w.answer = answers[i]
		}
		close(w.done)
		if w.left && w.answer.OK && !w.demand.Settle {
			s.oweBackLocked(w.demand)
		}
	}
	s.nextLocked()
	s.mu.Unlock()
}

// oweBackLocked gives back what nobody waited for. The next save does it.
func (s *sharing) oweBackLocked(d Demand) {
	for _, c := range d.Charges {
		if c.Limit.Unit != NewRecipients {
			s.owed[key{d.Login, c.Limit}] -= c.N
		}
	}
}

func (s *sharing) nextLocked() {
	if s.asking = len(s.waiting) > 0; s.asking {
		s.waiting[0].turn <- struct{}{}
	}
}

// leave takes back a demand that nobody waits for any longer; false: it was answered meanwhile.
func (s *sharing) leave(w *waiter) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiting, w); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
		if len(w.turn) > 0 {
			s.nextLocked()
		}
		return true
	}
	select {
	case <-w.done:
		return false
	default:
		w.left = true
		return true
	}
}

// call asks the counter.
func (s *sharing) call(ctx context.Context, demands []Demand) ([]Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, sharedTimeout)
	defer cancel()
	answers, err := s.counter.CountLimits(ctx, demands)
	if err == nil && len(answers) != len(demands) {
		err = fmt.Errorf("%w: %d answers to %d demands", ErrUnsure, len(answers), len(demands))
	}
	if err != nil {
		s.setAway(err)
	}
	return answers, err
}
