package policy

import (
	"context"
	"time"
)

// State is one stored token bucket: how many tokens it had at a moment.
type State struct {
	Login  string    // normalised
	Limit  string    // Limit.String, "60 messages/minute"; (Login, Limit) is the key
	Tokens float64   // at At; between 0 and the limit's count
	At     time.Time // at least to the millisecond
	Full   time.Time // when the bucket is full again, so that the state may be dropped
}

// LimitStore persists what limits must not forget over a restart. Its errors are our own trouble: temporary.
type LimitStore interface {
	// LoadLimits returns the states whose Full is after now, in no particular order.
	LoadLimits(ctx context.Context, now time.Time) ([]State, error)
	// SaveLimits writes states in one transaction, replacing those with the same (Login, Limit), and drops stored ones
	// whose Full is not after now.
	SaveLimits(ctx context.Context, now time.Time, states []State) error

	// NewRecipients counts the addrs that are not remembered for login. addrs are distinct RecipientKeys.
	NewRecipients(ctx context.Context, login string, addrs []string) (int, error)
	// RememberRecipients remembers addrs for login as used at now.
	RememberRecipients(ctx context.Context, login string, addrs []string, now time.Time) error
	// ForgetRecipients drops recipients last used before a moment and returns their number.
	ForgetRecipients(ctx context.Context, before time.Time) (int64, error)
}
