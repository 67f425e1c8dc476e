package operate

import (
	"context"
	"net/netip"
	"time"

	"postern/policy"
)

// Limits are the limits that bind a login now.
type Limits struct {
	Login  string       `json:"login"`
	Limits []LoginLimit `json:"limits"` // empty: it has none
	// Late: the daemon did not answer, and what is said is of a few seconds ago.
	Late bool `json:"late,omitempty"`
}

// LoginLimit is a limit of [[policy]], and how much of it is left. It refills evenly over its window.
type LoginLimit struct {
	Limit     string         `json:"limit"` // as relay.toml has it, "60 messages/minute"
	Unit      string         `json:"unit"`  // messages, recipients, new recipients or octets
	Count     int64          `json:"count"` // at once
	Window    int64          `json:"window_seconds"`
	Used      int64          `json:"used"`
	Left      int64          `json:"left"`
	Next      time.Time      `json:"next,omitzero"`       // when one more is left; absent: one is
	Full      time.Time      `json:"full,omitzero"`       // when all of it is left; absent: it is
	Policy    string         `json:"policy"`              // "policy 2", the second [[policy]]
	Listeners []string       `json:"listeners,omitempty"` // where it counts; absent: at all
	Networks  []netip.Prefix `json:"networks,omitempty"`  // from where it counts; absent: from everywhere
	Except    []string       `json:"except,omitempty"`    // not where one of these applies, such as "policy 1"
}

// Limits says which limits bind a login, and what is left of each as of now: by what this process has counted, or by
// what the daemon has.
func (a Accounts) Limits(ctx context.Context, by Actor, of Among, login string, now time.Time) (l Limits, err error) {
	u, _, err := a.Known(ctx, by, of, login)
	if err != nil {
		return l, err
	}
	rules, err := policy.New(a.Config().Rules())
	if err != nil {
		return l, err
	}
	bindings := rules.Bindings(u.Login, u.Groups)
	l = Limits{Login: u.Login, Limits: make([]LoginLimit, len(bindings))}
	if len(bindings) == 0 {
		return l, nil
	}
	states, late, err := a.counted(ctx, now, u.Login, bindings)
	if err != nil {
		return l, err
	}
	l.Late = late
	for i := range bindings {
		l.Limits[i] = shownLimit(&bindings[i], states[bindings[i].Limit], now)
	}
	return l, nil
}

// counted are the states of a login's limits. late: the daemon did not answer.
func (a Accounts) counted(ctx context.Context, now time.Time, login string, bindings []policy.Binding) (
	states map[policy.Limit]policy.State, late bool, err error) {
	var all []policy.State
	if a.Counted != nil {
		limits := make([]policy.Limit, len(bindings))
		for i, b := range bindings {
			limits[i] = b.Limit
		}
		all = a.Counted(now, login, limits)
	} else {
		var complete bool
		all, complete, err = a.Store.LimitsOf(ctx, now, login)
		late = !complete
	}
	states = make(map[policy.Limit]policy.State, len(all))
	for _, s := range all {
		if limit, err := policy.ParseLimit(s.Limit); err == nil {
			states[limit] = s
		}
	}
	return states, late, err
}

// units are what limits count, in words.
var units = map[policy.Unit]string{policy.Messages: "messages", policy.Recipients: "recipients",
	policy.NewRecipients: "new recipients", policy.Bytes: "octets"}

func shownLimit(b *policy.Binding, s policy.State, now time.Time) LoginLimit {
	left := b.Limit.LeftOf(s, now)
	return LoginLimit{Limit: b.Limit.String(), Unit: units[b.Limit.Unit], Count: b.Limit.Count,
		Window: int64(b.Limit.Window.Seconds()), Used: left.Used, Left: left.Left, Next: left.Next, Full: left.Full,
		Policy: b.Rule, Listeners: b.Listeners, Networks: b.Networks,
		Except: b.Except}
}
