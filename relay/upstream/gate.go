package upstream

import (
	"time"

	"postern/relay/upstream/internal/gate"
)

// Status is what an identity is doing.
type Status = gate.Status

// The states of an identity. Backing off and paused end by one attempt, the probe: while it runs nobody else is admitted.
const (
	Ready      = gate.Ready
	BackingOff = gate.BackingOff // the upstream cannot be reached or asked us to slow down
	Paused     = gate.Paused     // the upstream refuses us: password, certificate, account
)

// news is what one use of a place led to, for the gate and for what else follows the upstream's answers.
type news struct {
	gate.News
	slow  bool          // too much at a time, see Rule.Slow
	quota time.Duration // the window of a quota that is used up, see Rule.Quota
}
