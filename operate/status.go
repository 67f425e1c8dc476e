package operate

import (
	"context"

	"postern/relay/status"
)

// Status is how the relay is.
type Status struct{ *desk }

// Report is the state of the relay now.
func (s Status) Report(ctx context.Context, by Actor) (*status.Report, error) {
	if err := by.May(SeeStatus); err != nil {
		return nil, err
	}
	return s.Options.Status(ctx)
}
