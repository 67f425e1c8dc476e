package account

import (
	"time"

	"postern/mail"
	"postern/relay/upstream"
)

// Waiting times. Back-off starts short, because most troubles of a network are; a fault of the account needs a person.
const (
	BackoffFirst = 5 * time.Second
	BackoffMost  = 15 * time.Minute
	PauseFirst   = 5 * time.Minute
	PauseMost    = time.Hour
)

// Verdict is what one use of a slot says about its account. A higher one outweighs a lower one.
type Verdict uint8

// The verdicts.
const (
	Nothing  Verdict = iota // not tried
	Reached                 // the provider was reached, then nobody's fault: lost, or its own trouble
	Works                   // the provider decided about a message on its merits
	Pressure                // mail.BackPressure
	Fault                   // mail.AccountFault
)

// News is what one use of a slot led to.
type News struct {
	Verdict Verdict
	Reply   mail.Reply
	Early   bool          // it happened before the message: whatever gets as far again is proof that it is over
	AtLeast time.Duration // to wait
	Slow    bool          // too much at a time: there shall be fewer slots
	Spent   bool          // a quota is used up
	Window  time.Duration // of that quota, where it is known
}

// Admission is handed out by Admit and given back to Record.
type Admission struct {
	epoch uint32
	Probe bool
}

// Breaker is a circuit breaker: it decides when an account may be tried. It waits after failures, longer each time, and
// lets one attempt through when the wait is over, the probe. The zero value is ready.
//
// Failures come in cohorts: ten connections that break together are one failure. Each admission therefore carries the
// epoch of the breaker, and news from an older epoch changes nothing. It is pure: the caller passes the time and holds
// the lock.
type Breaker struct {
	Status   upstream.Status // "" is Ready
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
func (b *Breaker) Wait(now time.Time) (until time.Time, busy bool) {
	if b.Ready() {
		return time.Time{}, false
	}
	if now.Before(b.Until) {
		return b.Until, false
	}
	return time.Time{}, b.Probing
}

// Ready reports that nobody has to wait.
func (b *Breaker) Ready() bool { return b.Status == "" || b.Status == upstream.Ready }

// Admit lets one in. Wait must have said yes.
func (b *Breaker) Admit() Admission {
	a := Admission{epoch: b.epoch, Probe: !b.Ready()}
	if a.Probe {
		b.Probing = true
	}
	return a
}

// Record notes what an admission led to and reports whether the state changed. jitter is in [0, 1).
func (b *Breaker) Record(now time.Time, a Admission, n News, jitter float64) bool {
	if a.epoch != b.epoch {
		return false
	}
	if a.Probe {
		b.Probing = false
	}
	switch n.Verdict {
	case Works:
		return b.reset()
	case Reached:
		if b.Ready() || b.Early {
			return b.reset()
		}
		// No proof either way: the same wait again.
		b.Hold(now, b.Status, News{Reply: b.Reply, Early: b.Early}, b.again(jitter))
		return true
	case Pressure:
		b.Pressure++
		b.Hold(now, upstream.BackingOff, n, backoff(b.Pressure, jitter))
		return true
	case Fault:
		b.Faults++
		b.Hold(now, upstream.Paused, n, pause(b.Faults, jitter))
		return true
	}
	return false
}

// again is the waiting time of the present state once more.
func (b *Breaker) again(jitter float64) time.Duration {
	if b.Status == upstream.Paused {
		return pause(b.Faults, jitter)
	}
	return backoff(b.Pressure, jitter)
}

func (b *Breaker) reset() bool {
	b.Pressure, b.Faults = 0, 0
	if b.Ready() {
		return false
	}
	*b = Breaker{epoch: b.epoch + 1}
	return true
}

// Hold makes the account wait for d, or for as long as the news asks for.
func (b *Breaker) Hold(now time.Time, s upstream.Status, n News, d time.Duration) {
	if b.Ready() {
		b.Since = now
	}
	b.Status, b.Reply, b.Early = s, n.Reply, n.Early
	b.Until = now.Add(max(d, n.AtLeast))
	b.Probing = false
	b.epoch++
}

func backoff(n int, jitter float64) time.Duration {
	return doubled(BackoffFirst, BackoffMost, n, jitter)
}

func pause(n int, jitter float64) time.Duration { return doubled(PauseFirst, PauseMost, n, jitter) }

// doubled returns first for n = 1, twice as much for each further n, at most most, spread by ±10 %.
func doubled(first, most time.Duration, n int, jitter float64) time.Duration {
	d := first
	for i := 1; i < n && d < most; i++ {
		d *= 2
	}
	return time.Duration(float64(min(d, most)) * (0.9 + 0.2*jitter))
}

// blank reports that there is no failure to remember.
func (b *Breaker) blank() bool { return b.Ready() && b.Pressure == 0 && b.Faults == 0 }
