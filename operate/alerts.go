package operate

import (
	"context"
	"errors"
	"fmt"

	"postern/relay/monitor"
	"postern/relay/store"
)

// Alerts is what may be done with the hooks that are told of faults.
type Alerts struct{ *desk }

// Test posts a test alert to each [[alert]], or with n > 0 to the one with this number, counted from 1.
func (a Alerts) Test(ctx context.Context, by Actor, n int) (tests []monitor.AlertTest, err error) {
	c := a.Config()
	switch {
	case len(c.Alerts) == 0:
		return nil, fault(NotFound, "there is no [[alert]] in %s: write one with the url of a hook, so that somebody "+
			"is told when no mail leaves", c.Path())
	case n > len(c.Alerts):
		return nil, fault(NotFound, "there is no alert[%d] in %s, which has %d [[alert]]", n, c.Path(), len(c.Alerts))
	}
	err = a.act(ctx, by, TestAlerts, fmt.Sprint(n), func(ctx context.Context, _ *string) error {
		tests, err = monitor.TestAlerts(ctx, c, n)
		return err
	})
	return tests, err
}

// List returns a page of alerts, the newest first.
func (a Alerts) List(ctx context.Context, by Actor, q store.AlertQuery) ([]store.Alert, error) {
	if err := by.May(SeeAlerts); err != nil {
		return nil, err
	}
	alerts, err := a.Store.Alerts(ctx, q)
	if errors.Is(err, store.ErrPlace) {
		return nil, fault(Invalid, "%v: take it from the page before, unchanged", err)
	}
	return alerts, err
}
