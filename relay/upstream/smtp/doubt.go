package smtp

import (
	"slices"
	"time"

	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/account"
)

// review asks whether the refusals are to be believed, and tells the account what it is told.
func (a *attempt) review() {
	if a.t.Review == nil {
		return
	}
	doubt := a.t.Review(a.results)
	i := slices.IndexFunc(a.results, upstream.Doubted)
	if doubt == upstream.Believed || i < 0 {
		return
	}
	r := &a.results[i]
	switch doubt {
	case upstream.DoubtMessage:
		a.news = account.News{}
	case upstream.DoubtSender:
		a.slot.SenderRefused(time.Now(), a.t.From,
			mail.Result{Class: r.Class, Stage: r.Stage, Reply: r.Reply, Verbatim: r.Verbatim, Rule: r.Rule})
	case upstream.DoubtIdentity:
		a.news = account.News{Verdict: account.Fault, Reply: r.Reply}
	}
}
