package config

import (
	"strconv"
	"strings"

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
	return policy.Match{Logins: r.Logins, Groups: r.Groups, Listeners: r.Listeners, Senders: r.Senders, Recipients: r.Recipients}
}

func (v *validator) limit(key, s string) {
	if _, err := policy.ParseLimit(s); err != nil {
		v.fail(key, "%s", err)
	}
}

// rate is a limit of messages: what else a provider counts is its own to answer for.
func (v *validator) senders(key string, patterns []string) {
	for i, s := range patterns {
		if err := policy.CheckSenderPattern(s); err != nil {
			v.fail(element(key, i), "%s", err)
		}
	}
}

func (v *validator) recipients(key string, patterns []string) {
	for i, s := range patterns {
		if err := policy.CheckRecipientPattern(s); err != nil {
			v.fail(element(key, i), "%s", err)
		}
	}
}

// routeSenders differ from those of a policy: they grant nothing, so everybody may stand there.
func (v *validator) routeSenders(key string, patterns []string) {
	for i, s := range patterns {
		if _, err := policy.NewMatcher(policy.Match{Senders: []string{s}}); err != nil {
			v.fail(element(key, i), "%s", strings.TrimPrefix(err.Error(), "senders: "))
		}
	}
}

// compiled reports what only the whole block shows, such as a recipient that is both named and
// denied, once its single entries are right. The error of package policy begins with the setting.
func (v *validator) compiled(key string, err error) {
	if err == nil || v.problems.within(key) {
		return
	}
	setting, message, found := strings.Cut(err.Error(), ": ")
	if found && v.doc.has(join(key, setting)) {
		v.fail(join(key, setting), "%s", message)
		return
	}
	v.fail(key, "%s", err)
}
