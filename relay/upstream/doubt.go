package upstream

import (
	"slices"
	"time"

	"postern/mail"
	"postern/relay/upstream/internal/gate"
)

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

// review asks whether the refusals are to be believed, and tells the gate and the sender's hold what it is told.
func (a *attempt) review() {
	if a.t.Review == nil {
		return
	}
	doubt := a.t.Review(a.results)
	i := slices.IndexFunc(a.results, Doubted)
	if doubt == Believed || i < 0 {
		return
	}
	r := &a.results[i]
	f := &fault{stage: r.Stage, class: mail.AccountFault, reply: r.Reply, verbatim: r.Verbatim, rule: &Rule{Name: RuleStorm, Class: mail.AccountFault}}
	switch doubt {
	case DoubtMessage:
		a.news = news{}
	case DoubtSender:
		f.rule.Scope = ScopeSender
		a.slot.senderRefused(time.Now(), a.t.From, f)
	case DoubtIdentity:
		a.news = news{News: gate.News{Verdict: gate.Fault, Reply: r.Reply}}
	}
}
