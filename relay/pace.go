package relay

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"postern/policy"
)

// pace keeps the attempts at one upstream within its rates, all at once: an attempt counts against each
// or against none.
type pace struct {
	wake func() // called when there is room again

	mu      sync.Mutex // guards what follows: a look at all buckets and a take from all are one step
	buckets []*rate.Limiter
	alarm   *time.Timer // of a wake-up to come, nil if there is none
}

func newPace(texts []string, wake func()) (*pace, error) {
	p := &pace{wake: wake}
	for _, text := range texts {
		limit, err := policy.ParseLimit(text)
		if err != nil {
			return nil, err
		}
		if limit.Unit != policy.Messages {
			return nil, fmt.Errorf("%q: an upstream's rate counts messages", text)
		}
		p.buckets = append(p.buckets, rate.NewLimiter(rate.Limit(float64(limit.Count)/limit.Window.Seconds()), int(limit.Count)))
	}
	return p, nil
}

// take counts one message, or returns when there will be room for one.
func (p *pace) take(now time.Time) (until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.buckets {
		if missing := 1 - b.TokensAt(now); missing > 0 {
			at := now.Add(time.Duration(missing / float64(b.Limit()) * float64(time.Second)))
			if at.After(until) {
				until = at
			}
		}
	}
	if until.IsZero() {
		for _, b := range p.buckets {
			b.AllowN(now, 1)
		}
	}
	return until
}

// give takes back what take counted for a message that was not sent.
func (p *pace) give(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.buckets {
		b.AllowN(now, -1) // above the burst it is cut at the next look
	}
}

// soon is the wait up to which messages stay in memory until the rate has room, instead of being
// postponed in the store.
const soon = time.Minute

// wait returns what to tell somebody who found no room until then: for a short wait that all places
// are taken, with a wake-up when that is over.
func (p *pace) wait(now, until time.Time) time.Time {
	if until.Sub(now) > soon {
		return until
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.alarm == nil {
		p.alarm = time.AfterFunc(until.Sub(now), func() {
			p.mu.Lock()
			p.alarm = nil
			p.mu.Unlock()
			p.wake()
		})
	}
	return time.Time{}
}

// stop ends a wake-up that is still to come.
func (p *pace) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.alarm != nil {
		p.alarm.Stop()
	}
}
