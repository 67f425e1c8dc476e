package replies

import (
	"slices"
	"time"

	"postern/mail"
)

// WithoutKnowledge classifies a reply by own rules and the generic ones. It switches off each rule that keeps the mail,
// until one lets it bounce, as a reply would that no rule knows.
func WithoutKnowledge(own []Rule, stage mail.Stage, r mail.Reply) (Rule, int, error) {
	rules, err := Compile(own)
	if err != nil {
		return Rule{}, 0, err
	}
	all := Rules{own: slices.Concat(rules.own, rules.generic)}
	for off := 0; ; off++ {
		m, i := all.find(stage, NewSample(r))
		if m.Class.Permanent() || i < 0 {
			return m.decide(NewSample(r), time.Now()), off, nil
		}
		all.own = slices.Delete(all.own, i, i+1)
	}
}
