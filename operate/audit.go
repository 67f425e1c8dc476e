package operate

import (
	"context"
)

// act does what somebody asks for, if they may.
func (d *desk) act(ctx context.Context, by Actor, op Operation, subject string,
	do func() (detail string, err error)) error {
	if err := by.May(op); err != nil {
		return err
	}
	_, err := do()
	return err
}
