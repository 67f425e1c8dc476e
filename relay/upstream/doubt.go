package upstream

import "postern/mail"

// Doubt says whose matter a refusal is that Review does not believe.
type Doubt uint8

// The doubts.
const (
	Believed      Doubt = iota // the results say what they say
	DoubtMessage               // nothing is learned about the identity
	DoubtSender                // as of a rule with ScopeSender
	DoubtIdentity              // as of a rule with ScopeIdentity: it pauses
)

// RuleStorm is Result.Rule of refusals that are not believed.
const RuleStorm = "bounce-storm"

// Doubted reports a result that Review did not believe.
func Doubted(r mail.Result) bool { return r.Rule == RuleStorm && r.Class == mail.AccountFault }
