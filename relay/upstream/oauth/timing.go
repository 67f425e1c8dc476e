package oauth

import (
	"time"
)

// maxMargin is how long before its end a token of this life is replaced at the earliest. A short life gives a short
// margin.
func maxMargin(life time.Duration) time.Duration { return min(2*early, life/4) }

// refreshAt is when a token is to be replaced: between half and all of maxMargin before its end. chance is in [0, 1).
func refreshAt(t Token, now time.Time, chance float64) time.Time {
	margin := maxMargin(t.Expiry.Sub(now))
	return t.Expiry.Add(-margin/2 - time.Duration(chance*float64(margin/2)))
}

// How long nobody is asked after a trouble: doubled each time.
const (
	pressureFirst, pressureLast = 5 * time.Second, 5 * time.Minute
	faultFirst, faultLast       = time.Minute, 15 * time.Minute
)

// backoff is first, doubled times, at most last, and up to a fifth more by chance, which is in [0, 1).
func backoff(first, last time.Duration, times int, chance float64) time.Duration {
	d := last
	if times < 16 {
		d = min(first<<times, last)
	}
	return d + time.Duration(chance*float64(d)/5)
}

// pressure is trouble with the token endpoint or the store, shared by all identities: what one has found out the others
// need not. When its time is over, one request goes ahead and the others wait for what it finds.
type pressure struct {
	err   *Error // nil: none
	times int
	since time.Time // of the last failure
	probe bool      // one is under way
}

// probeWait is what callers are told while a probe is under way.
const probeWait = 2 * time.Second

// enter lets a request through or says why not.
func (p *pressure) enter(now time.Time) *Error {
	switch {
	case p.err == nil:
		return nil
	case now.Before(p.err.Retry):
		return p.err
	case p.probe:
		e := *p.err
		e.Retry = now.Add(probeWait)
		return &e
	}
	p.probe = true
	return nil
}

func (p *pressure) leave() { p.probe = false }

// add notes a failure. Requests that were under way together fail together and count once.
func (p *pressure) add(err *Error, started, now time.Time, chance float64) {
	p.probe = false
	if p.err != nil && started.Before(p.since) {
		err.Retry = p.err.Retry
		return
	}
	err.Retry = now.Add(max(backoff(pressureFirst, pressureLast, p.times, chance), err.retryAfter))
	p.err, p.since = err, now
	p.times++
}
