package store

import (
	"context"
	"runtime"
	"sync"
	"time"

	"postern/internal/periodic"
	"postern/relay/trace"
)

// What people who search, or look at statistics or the story of a message, may take
// from mail while it is busy: one two-hundredth of the processors over any time, which
// those divide who have taken of it, beside a first paceCredit of each. Mail then loses a hundredth at most, with what
// the console or the API adds. While mail is not busy nobody waits.
const (
	paceShare    = 200
	paceCredit   = 100 * time.Millisecond // a dozen searches
	maxSearchers = 256                    // with a credit of their own; further ones share one
	maxSearches  = 32                     // of one searcher at once
)

// paced waits until somebody may look something up. What it returns ends that.
func (s *Store) paced(ctx context.Context, by string) (done func(), err error) {
	if s.pace == nil {
		return func() {}, nil
	}
	return s.pace.take(ctx, by, s.told.Load)
}

// pace lets people search one after the other, in the daemon, and not more than mail can spare. Each pays for their own
// searches, with the next one: who searches without a pause waits, and nobody waits for them.
type pace struct {
	turn chan struct{} // one slot: somebody searches

	mu        sync.Mutex // guards all below
	searchers map[string]*searcher
	counted   time.Time // up to when credit was earned
	told      uint64    // events that the store had got at sampled
	sampled   time.Time
	busy      bool
}

// searcher is somebody who searches, or has not earned back what that took.
type searcher struct {
	credit   time.Duration
	searches int // under way or waiting
}

func newPace() *pace {
	now := time.Now()
	return &pace{turn: make(chan struct{}, 1), searchers: make(map[string]*searcher), counted: now, sampled: now}
}

// take waits until somebody may search, or ctx ends. told returns how many events the store has got so far. What it
// returns ends the search. trace.ErrTooMany: too many searches of theirs wait already.
func (p *pace) take(ctx context.Context, by string, told func() uint64) (done func(), err error) {
	s, err := p.enter(by)
	if err != nil {
		return nil, err
	}
	if err := p.wait(ctx, s, told); err != nil {
		p.leave(s, 0)
		return nil, err
	}
	began := time.Now()
	return func() {
		// Where processors are short it took longer than it worked, to the good of mail.
		p.leave(s, time.Since(began))
		<-p.turn
	}, nil
}

// wait takes the turn for somebody who has credit.
func (p *pace) wait(ctx context.Context, s *searcher, told func() uint64) error {
	for {
		for wait := p.due(time.Now(), told(), s); wait > 0; wait = p.due(time.Now(), told(), s) {
			if err := periodic.Sleep(ctx, wait); err != nil {
				return err
			}
		}
		select {
		case p.turn <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		if p.due(time.Now(), told(), s) <= 0 {
			return nil
		}
		<-p.turn // another search of theirs took what there was
	}
}

func (p *pace) enter(by string) (*searcher, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.searchers[by] == nil && len(p.searchers) >= maxSearchers {
		by = ""
	}
	s := p.searchers[by]
	if s == nil {
		s = &searcher{credit: paceCredit}
		p.searchers[by] = s
	}
	if s.searches >= maxSearches {
		return nil, trace.ErrTooMany
	}
	s.searches++
	return s, nil
}

// leave ends a search that took so long, or the wait for one.
func (p *pace) leave(s *searcher, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.searches--
	s.credit -= took
}

// due returns how long somebody has to wait yet.
func (p *pace) due(now time.Time, told uint64, s *searcher) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if since := now.Sub(p.sampled); since >= time.Second || since < 0 {
		p.busy = float64(told-p.told) > busyEvents*since.Seconds()
		p.told, p.sampled = told, now
	}
	share := p.earnLocked(now)
	if s.credit > 0 || !p.busy {
		return 0
	}
	return max(time.Millisecond, min(time.Second, -s.credit*share))
}

// earnLocked divides what was earned since it was last called among those who have taken of their credit, and forgets
// who has all of it. It returns how much time one of them earns one unit in.
func (p *pace) earnLocked(now time.Time) (share time.Duration) {
	takers := 0
	for _, s := range p.searchers {
		if s.credit < paceCredit {
			takers++
		}
	}
	share = max(1, time.Duration(max(1, takers)*paceShare/runtime.GOMAXPROCS(0)))
	earned := max(0, now.Sub(p.counted)) / share
	if !p.busy {
		earned = time.Hour // there is enough for all
	}
	for by, s := range p.searchers {
		if s.credit = min(paceCredit, s.credit+earned); s.credit == paceCredit && s.searches == 0 {
			delete(p.searchers, by)
		}
	}
	p.counted = now
	return share
}
