package monitor

import (
	"context"
	"fmt"

	"postern/internal/textfile"
	"postern/relay/alert"
	"postern/relay/config"
	"postern/relay/upstream"
)

// HooksOf converts [[alert]] blocks to hooks.
func HooksOf(c *config.Config) ([]alert.Hook, error) {
	var hooks []alert.Hook
	for i, block := range c.Alerts {
		h := alert.Hook{Name: fmt.Sprintf("alert[%d]", i+1), URL: block.URL.Value(), QueueAge: block.QueueAge.Std()}
		for _, e := range block.Events {
			h.Events = append(h.Events, alert.Event(e))
		}
		if block.CAFile != "" {
			pem, err := textfile.Read(block.CAFile)
			if err == nil {
				h.RootCAs, err = upstream.Roots(pem)
			}
			if err != nil {
				return nil, fmt.Errorf("alert[%d].ca_file: %w", i+1, err)
			}
		}
		hooks = append(hooks, h)
	}
	return hooks, nil
}

// AlertTest is the result of testing one hook.
type AlertTest struct {
	Hook string // alert[1]
	Host string
	Err  error // nil: taken. It does not contain the URL
}

// TestAlerts posts a test to the hooks of a configuration, one after the other; n counts from 1, 0 means all.
func TestAlerts(ctx context.Context, c *config.Config, n int) ([]AlertTest, error) {
	hooks, err := HooksOf(c)
	if err != nil {
		return nil, err
	}
	var tests []AlertTest
	for i, h := range hooks {
		if n == 0 || n == i+1 {
			tests = append(tests, AlertTest{h.Name, h.Host(), alert.Post(ctx, h, c.Hostname)})
		}
	}
	return tests, nil
}
