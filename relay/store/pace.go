package store

import (
	"context"
	"runtime"
	"sync"
	"time"
)

// What people who search may take from mail while it is busy: one two-hundredth of the processors over any time, beside
// a first paceCredit. Mail then loses a hundredth at most, with what the console or the API adds. While mail is not
// busy nobody waits.
const (
	paceShare  = 200
	paceCredit = 100 * time.Millisecond // a dozen searches
)

// pace lets people search one after the other, in the daemon, and not more than mail can spare. Who pays is the next
// search: one that has begun is not held up.
type pace struct {
	turn chan struct{} // one slot: somebody searches, or waits to

	mu      sync.Mutex // guards all below
	credit  time.Duration
	counted time.Time // up to when credit was earned
	told    uint64    // events that the store had got at sampled
	sampled time.Time
	busy    bool
}

func newPace() *pace {
	now := time.Now()
	return &pace{turn: make(chan struct{}, 1), credit: paceCredit, counted: now, sampled: now}
}

// take waits for the turn to search, until ctx ends. told returns how many events the store has got so far. What it
// returns ends the turn.
func (p *pace) take(ctx context.Context, told func() uint64) (done func(), err error) {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for {
		wait := p.due(time.Now(), told())
		if wait <= 0 {
			break
		}
		if err := pause(ctx, wait); err != nil {
			<-p.turn
			return nil, err
		}
	}
	began := time.Now()
	return func() {
		p.spend(time.Since(began))
		<-p.turn
	}, nil
}

// due returns how long a search has to wait yet.
func (p *pace) due(now time.Time, told uint64) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if since := now.Sub(p.sampled); since >= time.Second || since < 0 {
		p.busy = float64(told-p.told) > busyEvents*since.Seconds()
		p.told, p.sampled = told, now
	}
	if earned := now.Sub(p.counted); earned > 0 {
		p.credit = min(paceCredit, p.credit+earned*time.Duration(runtime.GOMAXPROCS(0))/paceShare)
	}
	p.counted = now
	switch {
	case !p.busy:
		p.credit = paceCredit
	case p.credit <= 0:
		return max(time.Millisecond, min(time.Second, -p.credit*paceShare/time.Duration(runtime.GOMAXPROCS(0))))
	}
	return 0
}

// spend takes what a search took. Where processors are short it took longer than it worked, to the good of mail.
func (p *pace) spend(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.credit -= took
}
