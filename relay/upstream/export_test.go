package upstream

import (
	"slices"

	"postern/mail"
)

// WithoutKnowledge judges a reply by own rules and the generic ones, switching off each rule that keeps the mail until one
// lets it bounce, as an answer would that no rule knows.
func WithoutKnowledge(own []Rule, stage mail.Stage, r mail.Reply) (Rule, int, error) {
	rules, err := compileRules(own)
	for off := 0; err == nil; off++ {
		u := Upstream{rules: rules}
		m := u.classify(stage, r)
		i := slices.IndexFunc(rules, func(other matcher) bool { return other.Name == m.Name && other.Example == m.Example })
		if m.Class.Permanent() || i < 0 {
			return m.Rule, off, nil
		}
		rules = slices.Delete(rules, i, i+1)
	}
	return Rule{}, 0, err
}
