package graph

import (
	"time"

	"postern/mail"
	"postern/relay/upstream"
)

// Waiting times of a mailbox, as those of the smart host client. Retry-After lengthens them, never shortens them.
const (
	backoffFirst = 5 * time.Second
	backoffMost  = 15 * time.Minute
	pauseFirst   = 5 * time.Minute
	pauseMost    = time.Hour
)

// verdict is what one use of a place says about its mailbox.
type verdict uint8

const (
	vNothing  verdict = iota // not tried
	vReached                 // Graph was reached, then nobody's fault: lost, or its own trouble
	vWorks                   // a message was judged on its merits
	vPressure                // mail.BackPressure
	vFault                   // mail.AccountFault
)

// gate decides when a mailbox may be tried. It is pure: the caller passes the time and holds the lock. It is the gate of
// relay/upstream: requests that fail together are one failure, so each admission carries the gate's epoch and news from an
// older epoch changes nothing; after the waiting one request is let through, the probe.
type gate struct {
	status   upstream.Status // "" is Ready
	until    time.Time
	pressure int // failures in a row, until something works
	faults   int
	probing  bool
	epoch    uint32
	reply    mail.Reply // why it waits
	early    bool       // the trouble was before the request: an answer of any kind is proof that it is over
	since    time.Time
}

// news is what one use of a place led to.
type news struct {
	verdict verdict
	reply   mail.Reply
	early   bool
	atLeast time.Duration // to wait
	quota   bool          // what the mailbox may send is used up
}

// admission is handed out by admit and given back to settle.
type admission struct {
	epoch uint32
	probe bool
}

// wait tells whether somebody may be admitted: until is set while the mailbox waits, busy while a probe is out.
func (g *gate) wait(now time.Time) (until time.Time, busy bool) {
	if g.ready() {
		return time.Time{}, false
	}
	if now.Before(g.until) {
		return g.until, false
	}
	return time.Time{}, g.probing
}

func (g *gate) ready() bool { return g.status == "" || g.status == upstream.Ready }

// admit lets one in. wait must have said yes.
func (g *gate) admit() admission {
	a := admission{epoch: g.epoch, probe: !g.ready()}
	if a.probe {
		g.probing = true
	}
	return a
}

// settle records what an admission led to and reports whether the state changed. jitter is in [0, 1).
func (g *gate) settle(now time.Time, a admission, n news, jitter float64) bool {
	if a.epoch != g.epoch {
		return false
	}
	if a.probe {
		g.probing = false
	}
	switch n.verdict {
	case vWorks:
		return g.open()
	case vReached:
		if g.ready() || g.early {
			return g.open()
		}
		// No proof either way: the same wait again.
		g.hold(now, g.status, news{reply: g.reply, early: g.early}, g.again(jitter))
		return true
	case vPressure:
		g.pressure++
		g.hold(now, upstream.BackingOff, n, doubled(backoffFirst, backoffMost, g.pressure, jitter))
		return true
	case vFault:
		g.faults++
		g.hold(now, upstream.Paused, n, doubled(pauseFirst, pauseMost, g.faults, jitter))
		return true
	}
	return false
}

// again is the waiting time of the present state once more.
func (g *gate) again(jitter float64) time.Duration {
	if g.status == upstream.Paused {
		return doubled(pauseFirst, pauseMost, g.faults, jitter)
	}
	return doubled(backoffFirst, backoffMost, g.pressure, jitter)
}

func (g *gate) open() bool {
	g.pressure, g.faults = 0, 0
	if g.ready() {
		return false
	}
	*g = gate{epoch: g.epoch + 1}
	return true
}

func (g *gate) hold(now time.Time, s upstream.Status, n news, d time.Duration) {
	if g.ready() {
		g.since = now
	}
	g.status, g.reply, g.early = s, n.reply, n.early
	g.until = now.Add(max(d, n.atLeast))
	g.probing = false
	g.epoch++
}

// doubled returns first for n = 1, twice as much for each further n, at most most, spread by ±10 %.
func doubled(first, most time.Duration, n int, jitter float64) time.Duration {
	d := first
	for i := 1; i < n && d < most; i++ {
		d *= 2
	}
	return time.Duration(float64(min(d, most)) * (0.9 + 0.2*jitter))
}
