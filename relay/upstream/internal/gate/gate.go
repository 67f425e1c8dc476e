// Package gate decides when an account at a provider may be tried, whatever is spoken there: it waits after failures, longer
// each time, and lets one attempt through when the wait is over, the probe.
//
// Failures come in cohorts: ten connections that break together are one failure. Each admission therefore carries the epoch
// of the gate, and news from an older epoch changes nothing. The package is pure: the caller passes the time and holds the
// lock.
package gate

import (
	"time"

	"postern/mail"
)

// Status is what an account is doing.
type Status string

// The states of an account. Backing off and paused end by one attempt, the probe: while it runs nobody else is admitted.
const (
	Ready      Status = "ready"
	BackingOff Status = "backing-off" // the provider cannot be reached or asked us to slow down
	Paused     Status = "paused"      // the provider refuses us: password, certificate, permission, account
)

// Waiting times. Back-off starts short, because most troubles of a network are; a fault of the account needs a person.
const (
	BackoffFirst = 5 * time.Second
	BackoffMost  = 15 * time.Minute
	PauseFirst   = 5 * time.Minute
	PauseMost    = time.Hour
)

// Verdict is what one use of a place says about its account. A higher one outweighs a lower one.
type Verdict uint8

// The verdicts.
const (
	Nothing  Verdict = iota // not tried
	Reached                 // the provider was reached, then nobody's fault: lost, or its own trouble
	Works                   // a message was judged on its merits
	Pressure                // mail.BackPressure
	Fault                   // mail.AccountFault
)

// News is what one use of a place led to.
type News struct {
	Verdict Verdict
	Reply   mail.Reply
	Early   bool          // it happened before the message: whatever gets as far again is proof that it is over
	AtLeast time.Duration // to wait
}

// Admission is handed out by Admit and given back to Settle.
type Admission struct {
	epoch uint32
	Probe bool
}

// Gate is the state of one account. The zero value is ready.
type Gate struct {
	Status   Status // "" is Ready
	Until    time.Time
	Pressure int // failures in a row, until something works
	Faults   int
	Probing  bool
	Reply    mail.Reply // why it waits
	Early    bool       // see News
	Since    time.Time

	epoch uint32
}

// Wait tells whether somebody may be admitted: until is set while the account waits, busy while a probe is out.
func (g *Gate) Wait(now time.Time) (until time.Time, busy bool) {
	if g.Ready() {
		return time.Time{}, false
	}
	if now.Before(g.Until) {
		return g.Until, false
	}
	return time.Time{}, g.Probing
}

// Ready reports that nobody has to wait.
func (g *Gate) Ready() bool { return g.Status == "" || g.Status == Ready }

// Admit lets one in. Wait must have said yes.
func (g *Gate) Admit() Admission {
	a := Admission{epoch: g.epoch, Probe: !g.Ready()}
	if a.Probe {
		g.Probing = true
	}
	return a
}

// Settle records what an admission led to and reports whether the state changed. jitter is in [0, 1).
func (g *Gate) Settle(now time.Time, a Admission, n News, jitter float64) bool {
	if a.epoch != g.epoch {
		return false
	}
	if a.Probe {
		g.Probing = false
	}
	switch n.Verdict {
	case Works:
		return g.open()
	case Reached:
		if g.Ready() || g.Early {
			return g.open()
		}
		// No proof either way: the same wait again.
		g.Hold(now, g.Status, News{Reply: g.Reply, Early: g.Early}, g.again(jitter))
		return true
	case Pressure:
		g.Pressure++
		g.Hold(now, BackingOff, n, backoff(g.Pressure, jitter))
		return true
	case Fault:
		g.Faults++
		g.Hold(now, Paused, n, pause(g.Faults, jitter))
		return true
	}
	return false
}

// again is the waiting time of the present state once more.
func (g *Gate) again(jitter float64) time.Duration {
	if g.Status == Paused {
		return pause(g.Faults, jitter)
	}
	return backoff(g.Pressure, jitter)
}

func (g *Gate) open() bool {
	g.Pressure, g.Faults = 0, 0
	if g.Ready() {
		return false
	}
	*g = Gate{epoch: g.epoch + 1}
	return true
}

// Hold closes the gate for d, or for as long as the news asks for.
func (g *Gate) Hold(now time.Time, s Status, n News, d time.Duration) {
	if g.Ready() {
		g.Since = now
	}
	g.Status, g.Reply, g.Early = s, n.Reply, n.Early
	g.Until = now.Add(max(d, n.AtLeast))
	g.Probing = false
	g.epoch++
}

func backoff(n int, jitter float64) time.Duration {
	return Doubled(BackoffFirst, BackoffMost, n, jitter)
}

func pause(n int, jitter float64) time.Duration { return Doubled(PauseFirst, PauseMost, n, jitter) }

// Doubled returns first for n = 1, twice as much for each further n, at most most, spread by ±10 %.
func Doubled(first, most time.Duration, n int, jitter float64) time.Duration {
	d := first
	for i := 1; i < n && d < most; i++ {
		d *= 2
	}
	return time.Duration(float64(min(d, most)) * (0.9 + 0.2*jitter))
}
