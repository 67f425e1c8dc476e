package operate

import (
	"context"
	"fmt"

	"postern/relay/queue"
)

// Order is how an action on messages is to be done.
type Order struct {
	Reason string // why they are held
	// Expected is how many messages are meant, at most: where more are selected, nothing is done, and never is it done
	// to more. nil: as many as there are.
	Expected *int64
}

// GrownError is the refusal to act on a selection that has more messages than were expected.
type GrownError struct{ Selected, Expected int64 }

func (e *GrownError) Error() string {
	return fmt.Sprintf("nothing was done: %d messages or more are selected, and %d were expected; look at them, and "+
		"say how many you mean", e.Selected, e.Expected)
}

// CheckCount refuses a selection that has more messages than were counted before: a *GrownError.
func CheckCount(selected, expected int64) error {
	if selected > expected {
		return &GrownError{selected, expected}
	}
	return nil
}

// countPage is how many messages are counted at once.
const countPage = 1000

// Count returns how many messages an action would be for.
func (q Queue) Count(ctx context.Context, by Actor, a Action, f queue.Filter) (int64, error) {
	if err := by.May(a.Operation); err != nil {
		return 0, err
	}
	return q.count(ctx, a.selects(f), nil)
}

// selects is what of a filter an action is for: nothing but what is held can be released.
func (a *Action) selects(f queue.Filter) queue.Filter {
	f.Held = f.Held || a.Verb == Release.Verb
	return f
}

// count counts what a filter selects, unless it is more than expected.
func (q Queue) count(ctx context.Context, f queue.Filter, expected *int64) (n int64, err error) {
	f.Limit = countPage
	for {
		some, err := q.Store.List(ctx, f)
		if err != nil {
			return 0, err
		}
		n += int64(len(some))
		if expected != nil {
			if err := CheckCount(n, *expected); err != nil {
				return 0, err
			}
		}
		if len(some) < countPage {
			return n, nil
		}
		f.After = some[len(some)-1].ID
	}
}
