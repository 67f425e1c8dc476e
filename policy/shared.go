package policy

import (
	"context"
	"errors"
	"time"
)

// SharedLimits counts limits for all nodes of an installation together, exactly: what they let pass in the sum is what
// one bucket lets pass. The counter has the only clock. Its errors are our own trouble: temporary.
type SharedLimits interface {
	// CountLimits answers each of the demands, as if one came after the other, in one round trip, also for none. After
	// an error nothing was counted, unless it is ErrUnsure.
	CountLimits(ctx context.Context, demands []Demand) ([]Answer, error)
	// DropFullLimits forgets limits of which nothing is used.
	DropFullLimits(ctx context.Context) error
}

// ErrUnsure is an error of CountLimits after which all of the demands may have been counted, or none.
var ErrUnsure = errors.New("the answer of the store did not come")

// Demand is what a message of a login counts against its limits: all of it, or nothing if one of them is exceeded.
type Demand struct {
	Login   string   // normalised
	Charges []Charge // each of another limit
	// Recipients are distinct RecipientKeys. Limits of new recipients count those that the login has not written to. If
	// the demand is met they are remembered as used now.
	Recipients []string
	// Settle demands what was decided without the counter: nothing is refused, N counts as it is for limits of new
	// recipients too, and where it is negative it gives back.
	Settle bool
}

// Charge is what is counted against a limit.
type Charge struct {
	Limit Limit
	N     int64 // at most Limit.Count; for a limit of new recipients the counter finds it
}

// Answer is the answer to a Demand.
type Answer struct {
	OK       bool
	New      int64           // how many recipients were new
	Exceeded int             // index of the charge in the way longest, the first of several; the first that is Never
	Wait     time.Duration   // until that passes, if nothing else is sent until then; never too short
	Never    bool            // the charge alone exceeds its limit
	Full     []time.Duration // for each charge, after this demand: until nothing of its limit is used
}
