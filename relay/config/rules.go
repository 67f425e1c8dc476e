package config

import (
	"errors"
	"strconv"

	"postern/mail"
	"postern/policy"
)

// Rules returns the policy blocks of the file, and DefaultPolicy behind them, for package policy.
// Replies call them "policy 1" and so on, as Problem.Key counts them.
func (c *Config) Rules() []policy.Rule {
	rules := make([]policy.Rule, 0, len(c.Policies)+1)
	for i := range c.Policies {
		rules = append(rules, c.Policies[i].rule("policy "+strconv.Itoa(i+1)))
	}
	standard := DefaultPolicy()
	return append(rules, standard.rule("the default policy"))
}

func (p *Policy) rule(name string) policy.Rule {
	return policy.Rule{
		Name:           name,
		Logins:         p.Logins,
		Groups:         p.Groups,
		Listeners:      p.Listeners,
		Networks:       p.Networks.Prefixes(),
		Senders:        p.Senders,
		UnlistedSender: p.UnlistedSender,
		Recipients:     p.Recipients,
		Limits:         parseLimits(p.Limits),
		OverLimit:      p.OverLimit,
		MaxHeld:        max(p.MaxHeld, 0), // validation refuses what is below
	}
}

// parseLimits passes over what Validate refuses. A list that was not written stays nil, an empty one empty.
func parseLimits(written []string) []policy.Limit {
	if written == nil {
		return nil
	}
	limits := make([]policy.Limit, 0, len(written))
	for _, s := range written {
		if l, err := policy.ParseLimit(s); err == nil {
			limits = append(limits, l)
		}
	}
	return limits
}

// Match returns the conditions of the route.
func (r *Route) Match() policy.Match {
	return policy.Match{Logins: r.Logins, Groups: r.Groups, Listeners: r.Listeners, Senders: r.Senders,
		Recipients: r.Recipients}
}

// entries checks each entry of a list.
func (v *validator) entries(key string, list []string, check func(string) error) {
	for i, s := range list {
		if err := check(s); err != nil {
			v.fail(element(key, i), "%s", err)
		}
	}
}

// compiled reports what only the whole block shows, such as a recipient that is both named and
// denied, once its single entries are right.
func (v *validator) compiled(key string, err error) {
	bad, ok := errors.AsType[*mail.KeyError](err)
	switch {
	case err == nil || v.problems.within(key):
	case !ok:
		v.fail(key, "%s", err)
	case v.doc.has(join(key, bad.Key)):
		v.fail(join(key, bad.Key), "%s", bad.Msg)
	default:
		v.fail(key, "%s", bad)
	}
}
